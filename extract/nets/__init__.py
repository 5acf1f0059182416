"""The unimodal nets, by name."""

from mvemo.extract.nets.base import AudioInput, Net, VideoInput, weights_digest
from mvemo.extract.nets.registry import NETS, build_net

__all__ = ["NETS", "AudioInput", "Net", "VideoInput", "build_net", "weights_digest"]
