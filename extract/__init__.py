"""Stage one: media, descriptors, nets, fine-tuning, near-duplicates.

The names below are the public API. Each is imported when it is first used: importing this
package does not import torch, librosa or the media libraries.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mvemo.manifests.lazy import import_on_use

if TYPE_CHECKING:
    from mvemo.extract.descriptors.describe import DESCRIPTORS, describe, descriptor_spec
    from mvemo.extract.descriptors.framing import DescriptorSettings
    from mvemo.extract.duplicates import (
        Duplicate,
        Fingerprint,
        Search,
        find_duplicates,
        fingerprint,
    )
    from mvemo.extract.errors import (
        BadMedia,
        BadSetting,
        BadWeights,
        ExtractError,
        FetchFailed,
        MissingFile,
        TrainingDiverged,
    )
    from mvemo.extract.media.reading import decode_clip, probe_seconds
    from mvemo.extract.media.request import Decoded, FrameSampling, Problem
    from mvemo.extract.mel import MelSettings, mel_filter_bank
    from mvemo.extract.nets.parts.base import Net
    from mvemo.extract.nets.parts.cards import AudioInput, SequenceInput, VideoInput
    from mvemo.extract.nets.parts.registry import build_net, default_settings, net_names
    from mvemo.extract.nets.parts.weights import WeightReport, load_weights
    from mvemo.extract.pretrained.getting import find_package, get_weights
    from mvemo.extract.pretrained.store import pretrained_path
    from mvemo.extract.settings import NetSettings, RunSettings, TrainSettings
    from mvemo.extract.training.data import RawBatches, TrainingClips
    from mvemo.extract.training.devices import pick_device
    from mvemo.extract.training.embedding import embed_rows
    from mvemo.extract.training.protocols import TrainedNet, train_nets
    from mvemo.extract.views import ViewSettings

_PLACES = {
    "DESCRIPTORS": "descriptors.describe",
    "AudioInput": "nets.parts.cards",
    "BadMedia": "errors",
    "BadSetting": "errors",
    "BadWeights": "errors",
    "Decoded": "media.request",
    "DescriptorSettings": "descriptors.framing",
    "Duplicate": "duplicates",
    "ExtractError": "errors",
    "FetchFailed": "errors",
    "Fingerprint": "duplicates",
    "FrameSampling": "media.request",
    "MelSettings": "mel",
    "MissingFile": "errors",
    "Net": "nets.parts.base",
    "NetSettings": "settings",
    "Problem": "media.request",
    "RawBatches": "training.batches",
    "RunSettings": "settings",
    "Search": "duplicates",
    "SequenceInput": "nets.parts.cards",
    "TrainSettings": "settings",
    "TrainedNet": "training.protocols",
    "TrainingClips": "training.protocols",
    "TrainingDiverged": "errors",
    "VideoInput": "nets.parts.cards",
    "ViewSettings": "views",
    "WeightReport": "nets.parts.weights",
    "build_net": "nets.parts.registry",
    "decode_clip": "media.reading",
    "default_settings": "nets.parts.registry",
    "describe": "descriptors.describe",
    "descriptor_spec": "descriptors.describe",
    "find_duplicates": "duplicates",
    "find_package": "pretrained.getting",
    "embed_rows": "training.embedding",
    "fingerprint": "duplicates",
    "get_weights": "pretrained.getting",
    "load_weights": "nets.parts.weights",
    "mel_filter_bank": "mel",
    "net_names": "nets.parts.registry",
    "pick_device": "training.devices",
    "pretrained_path": "pretrained.store",
    "probe_seconds": "media.reading",
    "train_nets": "training.protocols",
}

__all__ = [
    "DESCRIPTORS",
    "AudioInput",
    "BadMedia",
    "BadSetting",
    "BadWeights",
    "Decoded",
    "DescriptorSettings",
    "Duplicate",
    "ExtractError",
    "FetchFailed",
    "Fingerprint",
    "FrameSampling",
    "MelSettings",
    "MissingFile",
    "Net",
    "NetSettings",
    "Problem",
    "RawBatches",
    "RunSettings",
    "Search",
    "SequenceInput",
    "TrainSettings",
    "TrainedNet",
    "TrainingClips",
    "TrainingDiverged",
    "VideoInput",
    "ViewSettings",
    "WeightReport",
    "build_net",
    "decode_clip",
    "default_settings",
    "describe",
    "descriptor_spec",
    "embed_rows",
    "find_duplicates",
    "find_package",
    "fingerprint",
    "get_weights",
    "load_weights",
    "mel_filter_bank",
    "net_names",
    "pick_device",
    "pretrained_path",
    "probe_seconds",
    "train_nets",
]

__getattr__ = import_on_use(__name__, _PLACES)


class _CallablePackage(ModuleType):
    """This package as a module that can be called: the call is ``mvemo.extract_features``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("mvemo").extract_features(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
