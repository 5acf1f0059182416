"""The nets by name. A net is one file, and one line here.

Classes are imported when they are asked for, so that naming a net costs no import of
what only another one needs (torchvision, for example).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Protocol, cast

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.base import Net


class NetClass(Protocol):
    """What a registered class is.

    `Options` is a frozen dataclass of bool, int, float and str fields, all with defaults,
    which checks its own values and raises `BadSetting`; it can be saved as JSON beside
    the weights.
    """

    name: str
    modality: str
    Options: type[Any]

    def __call__(self, n_outputs: int, *, width: float, options: Any) -> Net: ...


class _Registry(Mapping[str, NetClass]):
    """Name -> class, imported on access.

    Parameters
    ----------
    places
        Name -> ``module:class``.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> NetClass:
        module, _, attribute = self._places[name].partition(":")
        return cast(NetClass, getattr(importlib.import_module(module), attribute))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


NETS: Mapping[str, NetClass] = _Registry(
    {
        "music1d": "mvemo.extract.nets.music1d:Music1D",
        "music2d": "mvemo.extract.nets.music2d:Music2D",
        "c3d": "mvemo.extract.nets.c3d:C3D",
        "i3d": "mvemo.extract.nets.i3d:I3D",
        "cnn": "mvemo.extract.nets.cnn:CNN",
        "lightcnn": "mvemo.extract.nets.lightcnn:LightCNN",
        "crnn": "mvemo.extract.nets.crnn:CRNN",
        "rnn": "mvemo.extract.nets.rnn:RNN",
    }
)


def build_net(name: str, n_outputs: int, *, width: float = 1.0, **options: Any) -> Net:
    """Make a net with random weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        A key of `NETS`.
    n_outputs
        Classes, tags or dimensions.
    width
        Multiplies the channel counts; 1 is the papers' size.
    options
        Fields of the class's `Options`.

    Raises
    ------
    BadSetting
        The name or an option is unknown, or a value is of the wrong type or range.
    """
    if name not in NETS:
        raise BadSetting(f"net {name!r} is not known: one of {', '.join(NETS)}")
    if isinstance(n_outputs, bool) or not isinstance(n_outputs, int) or n_outputs < 1:
        raise BadSetting(f"{name}: n_outputs is {n_outputs!r}: it must be an integer above 0")
    if not (isinstance(width, (int, float)) and math.isfinite(width) and width > 0):
        raise BadSetting(f"{name}: width is {width!r}: it must be a number above 0")
    kind = NETS[name]
    return kind(n_outputs, width=float(width), options=make_options(kind, options))


def make_options(kind: NetClass, given: Mapping[str, Any]) -> Any:
    """The options of a net from plain values, as they come from JSON or TOML.

    Raises
    ------
    BadSetting
        Naming the option, the value, and what is allowed.
    """
    known = {field.name: field.default for field in fields(kind.Options)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            there = ", ".join(known) or "none"
            raise BadSetting(f"{kind.name}: option {key!r} is not known; there are: {there}")
        values[key] = _typed(kind.name, key, value, known[key])
    return kind.Options(**values)


def _typed(net: str, key: str, value: Any, default: Any) -> Any:
    """The value, in the type of the option's default."""
    if default is MISSING or default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise BadSetting(f"{net}: option {key} is {value!r}: it takes a {type(default).__name__}")


def scaled(channels: int, width: float) -> int:
    """`channels` of the paper's net, in a net of this width; at least one."""
    return max(1, round(channels * width))
