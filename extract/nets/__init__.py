"""Unimodal nets: each module of this folder without a leading underscore is one net.

The file of a net states everything specific to it: its input, its options and how they
follow from the settings of a run, its settings in each profile, and the layouts of weight
files that it accepts. `NETS` finds the net by listing the folder; no other file names it.
Code that nets share is in `mvemo.extract.nets.parts`.

The names exported here are imported on first use, so listing the nets does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvemo.manifests.lazy import import_on_use

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net, weights_digest
    from mvemo.extract.nets.parts.inputs import (
        AudioInput,
        NetInput,
        SequenceInput,
        SharedSettings,
        VideoInput,
    )
    from mvemo.extract.nets.parts.registry import (
        NETS,
        add_folders,
        build_net,
        check_view,
        default_settings,
        input_of,
        make_options,
        net_names,
        options_of,
        with_length,
        with_shared_options,
    )
    from mvemo.extract.nets.parts.weights import load_weights

_PLACES = {
    "AudioInput": "parts.inputs",
    "NETS": "parts.registry",
    "Net": "parts.base",
    "NetInput": "parts.inputs",
    "SequenceInput": "parts.inputs",
    "SharedSettings": "parts.inputs",
    "VideoInput": "parts.inputs",
    "add_folders": "parts.registry",
    "build_net": "parts.registry",
    "check_view": "parts.registry",
    "default_settings": "parts.registry",
    "input_of": "parts.registry",
    "load_weights": "parts.weights",
    "make_options": "parts.registry",
    "net_names": "parts.registry",
    "options_of": "parts.registry",
    "weights_digest": "parts.base",
    "with_length": "parts.registry",
    "with_shared_options": "parts.registry",
}

__all__ = [
    "NETS",
    "AudioInput",
    "Net",
    "NetInput",
    "SequenceInput",
    "SharedSettings",
    "VideoInput",
    "add_folders",
    "build_net",
    "check_view",
    "default_settings",
    "input_of",
    "load_weights",
    "make_options",
    "net_names",
    "options_of",
    "weights_digest",
    "with_length",
    "with_shared_options",
]

__getattr__ = import_on_use(__name__, _PLACES)
