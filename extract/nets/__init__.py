"""Unimodal nets: a module of this folder without a leading underscore holds one or a few nets.

A net's module states everything specific to it: its card, its input, its options and how they
follow from the settings of a run, and the layouts of weight files that it accepts. `NETS` finds
the net by listing the folder; no other file names it. Code that nets share is in
`mvemo.extract.nets.parts`.

The names exported here are imported on first use, so listing the nets does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvemo.manifests.lazy import import_on_use

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net, weights_digest
    from mvemo.extract.nets.parts.cards import (
        AudioInput,
        NetCard,
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

__all__ = [
    "NETS",
    "AudioInput",
    "Net",
    "NetCard",
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

_PLACES = dict.fromkeys(__all__, "parts.registry")
_PLACES |= {name: "parts.cards" for name in __all__ if name.endswith(("Input", "Card", "Settings"))}
_PLACES |= {"Net": "parts.base", "weights_digest": "parts.base", "load_weights": "parts.weights"}

__getattr__ = import_on_use(__name__, _PLACES)
