"""The unimodal nets: each module of this folder without a leading underscore is one.

A net's file states all that is its own: what it reads, its options and how they follow
from the settings of a run, its settings in each profile, the layouts of weight files that
it accepts. `NETS` finds it by looking into the folder; no other file names it. What nets
share is in `mvemo.extract.nets.parts`.

Names here are imported when they are used: the names of the nets cost no import of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
        build_net,
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
    "AudioInput": "inputs",
    "NETS": "registry",
    "Net": "base",
    "NetInput": "inputs",
    "SequenceInput": "inputs",
    "SharedSettings": "inputs",
    "VideoInput": "inputs",
    "build_net": "registry",
    "default_settings": "registry",
    "input_of": "registry",
    "load_weights": "weights",
    "make_options": "registry",
    "net_names": "registry",
    "options_of": "registry",
    "weights_digest": "base",
    "with_length": "registry",
    "with_shared_options": "registry",
}

__all__ = [
    "NETS",
    "AudioInput",
    "Net",
    "NetInput",
    "SequenceInput",
    "SharedSettings",
    "VideoInput",
    "build_net",
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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.parts.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
