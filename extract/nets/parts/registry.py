"""Nets by name: the modules of the folder `mvemo.extract.nets`, and plug-ins.

A module there without a leading underscore holds the nets of its lines ``@NetCard("NAME", …)``. It
is imported on first use of a net, so naming a net imports neither torch nor torchvision.
The name of an encoder that is not part of mvemo, such as ``hf:FOLDER`` or ``hf:FOLDER@4+8`` in a
run, carries its place. Encoders are opened when their nets are used, because stage two also reads
profiles, on machines without the encoders.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mvemo.extract.nets.parts.encoder_names import EncoderName, parse_entry
from mvemo.extract.settings import NetSettings
from mvemo.extract.workers.process import torch_import_without_gc
from mvemo.manifests.declared import fill
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import offered, plugins, reserve

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net
    from mvemo.extract.nets.parts.cards import NetInput, SharedSettings

# Profile that is used if a net has no settings for the requested profile.
FALLBACK_PROFILE = "paper"
_CARD = re.compile(r'^@NetCard\(\s*"(\w+)"', re.MULTILINE)


def net_names() -> tuple[str, ...]:
    """Return the sorted names of all nets with those of plug-ins, without importing them.

    Examples
    --------
    >>> "i3d" in net_names()
    True
    """
    return tuple(sorted(offered(_modules(), "nets")))


@cache
def _modules() -> Mapping[str, str]:
    """Return the name of the module of each net of mvemo."""
    modules: dict[str, str] = {}
    for path in sorted(Path(__file__).parents[1].glob("[!_]*.py")):
        names = _CARD.findall(path.read_text(encoding="utf-8"))
        modules.update(dict.fromkeys(names, path.stem))
    reserve("nets", modules)
    return modules


def broken_nets() -> dict[str, BadOption]:
    """Return the error of each plug-in whose net cannot be used."""
    errors = {}
    for name in set(net_names()) - _modules().keys():
        try:
            NETS[name]
        except BadOption as error:
            errors[name] = error
    return errors


def _net_problem(name: str, kind: Any) -> str:
    """Return the problem of the class of a plug-in's net, or an empty text."""
    from mvemo.extract.nets.parts.base import Net

    if not (isinstance(kind, type) and issubclass(kind, Net)):
        return f"expected a class derived from mvemo.extract.nets.Net, got {kind!r}"
    if kind.name != name:
        return f"expected the decorator @NetCard({name!r}, ...), its name is {kind.name!r}"
    if FALLBACK_PROFILE not in kind.profiles:
        return f"its card has no settings for the profile {FALLBACK_PROFILE!r}"
    return ""


def _import(module: str) -> ModuleType:
    with torch_import_without_gc():
        return importlib.import_module(f"mvemo.extract.nets.{module}")


class _Registry(Mapping[str, "type[Net]"]):
    """Mapping from the name of a net to its class, imported on access."""

    def __getitem__(self, name: str) -> type[Net]:
        if isinstance(name, EncoderName):
            if name.net is None:
                maker = "encoders" if name.facts.source == "hf" else "library_encoders"
                name.net = _import(f"parts.{maker}").make_net_class(name)
            return name.net
        check_name(name)
        if name not in _modules():
            with torch_import_without_gc():
                net: type[Net] = plugins("nets")[name].load(partial(_net_problem, name))
            return net
        module = _import(_modules()[name])
        for kind in vars(module).values():
            if isinstance(kind, type) and vars(kind).get("name") == name:
                return kind
        raise BadOption(f"{module.__file__}: has no class with the name {name!r}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, EncoderName) or name in net_names()

    def __iter__(self) -> Iterator[str]:
        return iter(net_names())

    def __len__(self) -> int:
        return len(net_names())


NETS: Mapping[str, type[Net]] = _Registry()


def add_encoders(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a run's nets; entries such as ``hf:FOLDER`` become `EncoderName`.

    >>> add_encoders(["musicnn", "hf:models/MERT-v1-95M@4+8"])
    ('musicnn', 'MERT-v1-95M-layer4', 'MERT-v1-95M-layer8')
    """
    names: list[str] = []
    known: dict[str, EncoderName] = {}
    for entry in entries:
        encoders = parse_entry(entry)
        names += encoders or [entry]
        for encoder in encoders:
            other = known.setdefault(str(encoder), encoder)
            if other != encoder:
                raise BadOption(
                    f"{other.entry} and {encoder.entry} would have the same net name "
                    f"{str(encoder)!r}: rename one, or create a link with another name"
                )
            if str(encoder) in net_names():
                raise BadOption(
                    f"{encoder.entry}: {encoder} is the name of an existing net: rename it, or "
                    "create a link with another name"
                )
    return tuple(names)


def check_name(name: str) -> None:
    if name not in NETS:
        raise BadOption(f"unknown net {name!r}; expected one of {', '.join(NETS)}")


def default_settings(name: str, profile: str = FALLBACK_PROFILE) -> NetSettings:
    """Return the settings of a net in a profile, or in ``paper`` if the profile has none.

    Examples
    --------
    >>> default_settings("music2d", "paper").train.optimizer
    'sgd'
    """
    profiles = NETS[name].profiles
    return profiles.get(profile, profiles[FALLBACK_PROFILE])


def with_shared_options(settings: NetSettings, shared: SharedSettings) -> NetSettings:
    """Add the options that follow from the settings of a run and from random weights."""
    kind = NETS[settings.name]
    random = {} if settings.weights else kind.random_options
    options = {**random, **kind.shared_options(shared), **settings.options}
    return replace(settings, options=options)


def with_length(settings: NetSettings, seconds: float, shared: SharedSettings) -> NetSettings:
    options = NETS[settings.name].options_for(seconds, shared)
    return replace(settings, options={**settings.options, **options})


def options_of(settings: NetSettings) -> Any:
    """Return the options of a net, typed and checked; see `make_options`."""
    return make_options(NETS[settings.name], settings.options)


def input_of(settings: NetSettings) -> NetInput:
    """Return the input of a net with these settings, without building the net."""
    return NETS[settings.name].input_of(options_of(settings))


def check_view(settings: NetSettings) -> None:
    """Raise `BadOption` if the views of a net do not suit its modality."""
    rate = settings.view.rate
    if rate and NETS[settings.name].modality != "video":
        raise BadOption(f"{settings.name}: rate is {rate}, but only video nets have a rate")


def build_net(name: str, n_outputs: int, *, width: float = 1.0, **options: Any) -> Net:
    """Build a net with random weights from torch's global generator.

    Parameters
    ----------
    name
        Key of `NETS`.
    n_outputs
        Number of classes, tags or regression targets.
    width
        Multiplier for the numbers of channels; 1 for the size in the papers.
    options
        Fields of the class's `Options`.

    Raises
    ------
    BadOption
        The name or an option is unknown, or a value has the wrong type or range.

    Examples
    --------
    >>> net = build_net("music1d", 6, width=0.5, seconds=4.0)
    >>> net.embedding_dim, net.input
    (128, AudioInput(sr=16000, seconds=4.0, mark_end=False))
    """
    kind: Any = NETS[name]
    if n_outputs < 1:
        raise BadOption(f"{name}: n_outputs is {n_outputs}: it must be an integer above 0")
    if not 0 < width < math.inf:
        raise BadOption(f"{name}: width is {width}: it must be a number above 0")
    return kind(n_outputs, width=width, options=make_options(kind, options))


def make_options(kind: type[Net], values: Mapping[str, Any]) -> Any:
    """Return the options of a net from plain values, such as those of JSON or TOML."""
    filled = fill(kind.Options(), values, kind.name)
    # Some defaults depend on other options, so that only stated ones are passed.
    return kind.Options(**{name: getattr(filled, name) for name in values})
