"""Nets by name: the modules of the folder `mvemo.extract.nets`.

Every module there without a leading underscore is a net with the name of the module. It is
imported on first use. So naming a net imports neither torch nor the libraries of other nets,
such as torchvision. A folder of an encoder, named ``hf:FOLDER`` in a run, is a net after
`add_folders`.
"""

from __future__ import annotations

import importlib
import math
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.encoder_folders import PREFIX, EncoderFolder, parse_entries
from mvemo.extract.settings import NetSettings
from mvemo.extract.workers.process import imports_uncollected

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net
    from mvemo.extract.nets.parts.inputs import NetInput, SharedSettings

PACKAGE = "mvemo.extract.nets"
# Folders by the name of their net, and their classes after first use.
_FOLDERS: dict[str, EncoderFolder] = {}
_FOLDER_NETS: dict[EncoderFolder, type[Net]] = {}
# Profile that replaces one for which a net has no settings.
FALLBACK_PROFILE = "paper"


def net_names() -> tuple[str, ...]:
    """Return the sorted names of all nets, without importing them.

    Folders added to ``mvemo.extract.nets.__path__`` are listed too, so your own net need not
    be in the installed package.

    Examples
    --------
    >>> "i3d" in net_names()
    True
    """
    path = importlib.import_module(PACKAGE).__path__
    return _modules_in(
        tuple((folder, os.stat(folder).st_mtime_ns) for folder in path if os.path.isdir(folder))
    )


@cache
def _modules_in(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Return the names of the modules in folders; a changed modification time lists again."""
    return tuple(
        sorted(
            module.name
            for module in pkgutil.iter_modules([folder for folder, _ in folders])
            if not module.ispkg and not module.name.startswith("_")
        )
    )


def add_folders(entries: Sequence[str]) -> tuple[str, ...]:
    """Register the entries ``hf:FOLDER`` of a run, and return the names of all its nets.

    A folder is opened only when its net is used. A name that stood for another folder now
    stands for this one.

    Raises
    ------
    BadSetting
        A folder has the name of an existing net, or two folders have the same name.

    Examples
    --------
    >>> add_folders(["musicnn", "hf:models/MERT-v1-95M@4+8"])
    ('musicnn', 'MERT-v1-95M-layer4', 'MERT-v1-95M-layer8')
    """
    names, folders = parse_entries(entries)
    for folder in folders:
        if folder.name in net_names():
            raise BadSetting(
                f"{PREFIX}{folder.path}: {folder.name} is the name of a net there is: rename the "
                "folder, or link to it by another name"
            )
        _FOLDERS[folder.name] = folder
        _FOLDER_NETS.pop(folder, None)
    return names


def add_folder(name: str, path: Path) -> None:
    """Register a folder as the net of a name, for the features of a model.

    The hidden state is an option in the features' record.
    """
    _FOLDERS[name] = EncoderFolder(name, path)
    _FOLDER_NETS.pop(_FOLDERS[name], None)


def folder_nets() -> dict[str, EncoderFolder]:
    """Return the registered folders by the name of their net, for other processes."""
    return dict(_FOLDERS)


def add_folder_nets(folders: Mapping[str, EncoderFolder]) -> None:
    """Register the `folder_nets` of another process."""
    _FOLDERS.update(folders)


class _Registry(Mapping[str, "type[Net]"]):
    """Mapping from the name of a net to its class, imported on access."""

    def __getitem__(self, name: str) -> type[Net]:
        if name in _FOLDERS:
            folder = _FOLDERS[name]
            if folder not in _FOLDER_NETS:
                from mvemo.extract.nets.parts.encoder_nets import make_net_class

                _FOLDER_NETS[folder] = make_net_class(folder)
            return _FOLDER_NETS[folder]
        if name not in net_names():
            raise KeyError(name)
        with imports_uncollected():
            module = importlib.import_module(f"{PACKAGE}.{name}")
        for kind in vars(module).values():
            if (
                isinstance(kind, type)
                and kind.__module__ == module.__name__
                and getattr(kind, "name", None) == name
            ):
                return kind
        raise BadSetting(f"{module.__file__}: has no class whose name is {name!r}")

    def __contains__(self, name: object) -> bool:
        return name in net_names() or name in _FOLDERS

    def __iter__(self) -> Iterator[str]:
        return iter(net_names())

    def __len__(self) -> int:
        return len(net_names())


NETS: Mapping[str, type[Net]] = _Registry()


def check_name(name: str) -> None:
    """Raise `BadSetting` with the list of nets if this name is unknown."""
    if name not in NETS:
        raise BadSetting(f"net {name!r} is not known: one of {', '.join(NETS)}")


def default_settings(name: str, profile: str = FALLBACK_PROFILE) -> NetSettings:
    """Return the settings of a net in a profile.

    Parameters
    ----------
    name
        Key of `NETS`.
    profile
        Name of a profile, such as ``paper`` or ``demo``; ``paper`` replaces a profile for which
        the net has no settings.

    Examples
    --------
    >>> settings = default_settings("music2d", "paper")
    >>> settings.train.optimizer, settings.train.momentum
    ('sgd', 0.5)
    """
    check_name(name)
    profiles = NETS[name].profiles
    return profiles.get(profile, profiles[FALLBACK_PROFILE])


def with_shared_options(settings: NetSettings, shared: SharedSettings) -> NetSettings:
    """Add the options that follow from the settings of a run and from random weights."""
    kind = NETS[settings.name]
    random = {} if settings.weights else kind.random_options
    options = {**random, **kind.shared_options(shared), **settings.options}
    return replace(settings, options=options)


def with_length(settings: NetSettings, seconds: float, shared: SharedSettings) -> NetSettings:
    """Return the settings of a net whose input has this length.

    Examples
    --------
    >>> from mvemo.extract.descriptors import DescriptorSettings
    >>> from mvemo.extract.nets import SharedSettings
    >>> shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    >>> dict(with_length(NetSettings("rnn"), 10.0, shared).options)
    {'n_frames': 431}
    >>> dict(with_length(NetSettings("i3d"), 10.0, shared).options)
    {}
    """
    options = NETS[settings.name].options_for(seconds, shared)
    return replace(settings, options={**settings.options, **options})


def options_of(settings: NetSettings) -> Any:
    """Return the options of a net, typed and checked; see `make_options`."""
    check_name(settings.name)
    return make_options(NETS[settings.name], settings.options)


def input_of(settings: NetSettings) -> NetInput:
    """Return the input of a net with these settings, without building the net.

    Examples
    --------
    >>> input_of(NetSettings("i3d", options={"n_frames": 16}))
    VideoInput(n_frames=16, size=224)
    """
    return NETS[settings.name].input_of(options_of(settings))


def check_view(settings: NetSettings) -> None:
    """Raise `BadSetting` if the views of a net do not suit its modality.

    Examples
    --------
    >>> from mvemo.extract.views import ViewSettings
    >>> check_view(NetSettings("musicnn", view=ViewSettings(rate=12.5)))
    Traceback (most recent call last):
    mvemo.extract.errors.BadSetting: musicnn: rate is 12.5, which is for nets of pictures
    """
    rate = settings.view.rate
    if rate and NETS[settings.name].modality != "video":
        raise BadSetting(f"{settings.name}: rate is {rate}, which is for nets of pictures")


def build_net(name: str, n_outputs: int, *, width: float = 1.0, **options: Any) -> Net:
    """Build a net with random weights from torch's global generator.

    Parameters
    ----------
    name
        Key of `NETS`.
    n_outputs
        Number of classes, tags or regression targets.
    width
        Factor of the numbers of channels; 1 for the size in the papers.
    options
        Fields of the class's `Options`.

    Raises
    ------
    BadSetting
        The name or an option is unknown, or a value has the wrong type or range.

    Examples
    --------
    >>> net = build_net("music1d", 6, width=0.5, seconds=4.0)
    >>> net.embedding_dim, net.input
    (128, AudioInput(sr=16000, seconds=4.0, mark_end=False))
    """
    check_name(name)
    if isinstance(n_outputs, bool) or not isinstance(n_outputs, int) or n_outputs < 1:
        raise BadSetting(f"{name}: n_outputs is {n_outputs!r}: it must be an integer above 0")
    if not (isinstance(width, (int, float)) and math.isfinite(width) and width > 0):
        raise BadSetting(f"{name}: width is {width!r}: it must be a number above 0")
    kind: Any = NETS[name]
    net: Net = kind(n_outputs, width=float(width), options=make_options(kind, options))
    return net


def make_options(kind: type[Net], values: Mapping[str, Any]) -> Any:
    """Return the options of a net from plain values, as read from JSON or TOML.

    Raises
    ------
    BadSetting
        An option is unknown, or a value has the wrong type or range. The message names the
        option, the value and the allowed values.
    """
    defaults = {field.name: field.default for field in fields(kind.Options)}
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise BadSetting(f"{kind.name}: option {key!r} is not known; there are: {known}")
        typed[key] = _typed(kind.name, key, value, defaults[key])
    return kind.Options(**typed)


def _typed(net: str, key: str, value: Any, default: Any) -> Any:
    """Return the value in the type of the option's default."""
    if default is MISSING or default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise BadSetting(f"{net}: option {key} is {value!r}: it takes a {type(default).__name__}")


def check_options(options: Any, prefix: str, *positive: str, least_size: int = 0) -> None:
    """Raise `BadSetting` if an option that many nets have is out of range.

    `positive` has the names of options of at least 1; `size`, `dropout` and `norm_momentum` are
    checked if the net has them.
    """
    values = vars(options)
    for name in positive:
        if values[name] < 1:
            raise BadSetting(f"{prefix}{name} is {values[name]}: it must be at least 1")
    if least_size and values["size"] < least_size:
        raise BadSetting(
            f"{prefix}size is {values['size']}: it must be at least {least_size} pixels"
        )
    if not 0 <= values["dropout"] < 1:
        raise BadSetting(f"{prefix}dropout is {values['dropout']}: it must lie in [0, 1)")
    momentum = values.get("norm_momentum", 1)
    if not 0 < momentum <= 1:
        raise BadSetting(f"{prefix}norm_momentum is {momentum}: it must lie above 0, up to 1")


def scaled(channels: int, width: float) -> int:
    """Return the number of channels in a net of this width, at least 1.

    Examples
    --------
    >>> scaled(32, 0.25), scaled(32, 0.001)
    (8, 1)
    """
    return max(1, round(channels * width))
