"""Settings of both stages: profiles from files, overrides, and nothing unknown.

A profile is a TOML file with the tables ``[extract]``, ``[descriptors]``,
``[nets.NAME]`` and ``[fuse]``; what it does not state keeps its default, which for a net
is the net's own (`mvemo.extract.nets`).
Five come with mvemo: ``paper`` (every number of the papers), ``c17`` (the music tagger of Choi
et al. 2017 as it is), ``demo`` (small enough for two cores), ``pretrained`` (public pretrained
nets as they are) and ``best`` (those nets, fine-tuned as is done today).
``--set nets.i3d.lr=3e-4``
overrides one value; a key that no setting has is an error that lists those there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import (
    NETS,
    SharedSettings,
    add_folders,
    check_view,
    default_settings,
    net_names,
    options_of,
    with_shared_options,
)
from mvemo.fuse.crossval.settings import EvaluationSettings
from mvemo.fuse.errors import FuseError
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import PROFILES, ExtractSettings, Settings

T = TypeVar("T")

# Above all that a setting may be.
LARGEST = 1e10
# Tables in tables.
MOST_LEVELS = 9
# Characters of an override in a message.
MOST_SHOWN = 80


def load_settings(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a profile and apply overrides.

    The nets' files are imported, and with them torch; `load_fuse_settings` needs neither.

    Examples
    --------
    >>> settings = load_settings("paper", ["nets.i3d.lr=3e-4", "extract.folds=4"])
    >>> settings.nets["i3d"].train.lr, settings.nets["i3d"].train.batch_size
    (0.0003, 8)
    >>> settings.extract.folds, settings.extract.run.protocol
    (4, 'crossfit')
    """
    with _blaming(profile, overrides, load_settings):
        return _load(profile, overrides)


def _load(profile: str, overrides: Sequence[str]) -> Settings:
    source, tree = _read(profile, overrides)
    extract = _filled(ExtractSettings(), tree, "extract", source)
    descriptors = _filled(DescriptorSettings(), tree, "descriptors", source)
    shared = SharedSettings(extract.n_frames, descriptors)
    nets = {}
    for name in dict.fromkeys((*net_names(), *extract.nets)):
        net = _filled(default_settings(name, profile), tree, f"nets.{name}", source)
        nets[name] = with_shared_options(net, shared)
        try:
            options_of(nets[name])
            check_view(nets[name])
        except BadSetting as error:
            raise BadOption(f"{source}: {error}") from error
    return Settings(
        profile=profile,
        extract=extract,
        descriptors=descriptors,
        nets=nets,
        fuse=_filled(EvaluationSettings(), tree, "fuse", source),
    )


def load_fuse_settings(profile: str, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Stage two's settings of a profile; see `load_settings`.

    Tables of stage one may be there and are not looked into: their nets' files need torch,
    which a machine for stage two does not have.

    Examples
    --------
    >>> load_fuse_settings("paper", ["fuse.n_resamples=100"]).n_resamples
    100
    """
    with _blaming(profile, overrides, load_fuse_settings):
        source, tree = _read(profile, overrides)
        return _filled(EvaluationSettings(), tree, "fuse", source)


class Override(str):
    """A ``key=value`` that an option stands for, by which errors name it."""

    option: str  # as it was given: ``--folds 1``

    def __new__(cls, text: str, option: str) -> Override:
        """A string with the option beside it."""
        self = super().__new__(cls, text)
        self.option = option
        return self


@contextmanager
def _blaming(
    profile: str, overrides: Sequence[str], load: Callable[[str, Sequence[str]], object]
) -> Iterator[None]:
    """Have an error that an override brings name the override and not the profile."""
    try:
        yield
    except BadOption as error:
        if not overrides:
            raise
        # Without the last it is an error already, or the last is what brings it.
        load(profile, overrides[:-1])
        last = overrides[-1]
        shown = last if len(last) < MOST_SHOWN else f"{last[:MOST_SHOWN]}…"
        option = last.option if isinstance(last, Override) else f"--set {shown}"
        text = str(error).removeprefix(f"--set {last!r}: ").removeprefix(_source(profile))
        raise BadOption(f"{option}: {text}") from error


def _source(profile: str) -> str:
    """What errors of a profile begin with."""
    return f"profile {profile}: " if profile in PROFILES else f"{Path(profile)}: "


def _read(profile: str, overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """A profile's name for messages, and its tables with the overrides in them."""
    if profile in PROFILES:
        source = f"profile {profile}"
        text = resources.files("mvemo.pipeline").joinpath(f"profiles/{profile}.toml").read_text()
    else:
        path = Path(profile)
        source = str(path)
        if not path.is_file():
            raise BadOption(
                f"profile {profile!r} is neither one of {', '.join(PROFILES)} nor a file"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadOption(f"{path}: cannot be read as a profile: {error}") from error
    try:
        tree = parse_toml(text)
    except ValueError as error:
        raise BadOption(f"{source}: not valid TOML: {error}") from error
    for override in overrides:
        _override(tree, override)
    _check_numbers(tree, "", source)
    unknown = sorted(set(tree) - {"extract", "descriptors", "nets", "fuse"})
    if unknown:
        raise BadOption(
            f"{source}: unknown setting {unknown[0]!r}: extract, descriptors, nets or fuse"
        )
    _add_folders(tree, source)
    for name in _table(tree, "nets", source):
        if name not in NETS:
            raise BadOption(f"{source}: unknown net {name!r}: one of {', '.join(net_names())}")
    return source, tree


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML; raise ValueError also if it is nested too deeply or a number too long."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None


def _check_numbers(value: Any, key: str, source: str) -> None:
    """Refuse numbers that are not finite, or so large that no setting takes them."""
    if isinstance(value, (dict, list)):
        if key.count(".") > MOST_LEVELS:
            raise BadOption(f"{source}: {key}: nested too deeply")
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in pairs:
            _check_numbers(each, f"{key}.{name}".removeprefix("."), source)
    elif isinstance(value, (int, float)) and not abs(value) <= LARGEST:
        text = f"{value!s:.20}: expected a finite number of at most {LARGEST:g}"
        raise BadOption(f"{source}: {key} is {text}")


def _add_folders(tree: dict[str, Any], source: str) -> None:
    """Put the names of nets in place of the folders that ``extract.nets`` has."""
    extract = _table(tree, "extract", source)
    nets = extract.get("nets")
    if isinstance(nets, str):
        nets = [part.strip() for part in nets.split(",") if part.strip()]
    if isinstance(nets, list) and all(isinstance(net, str) for net in nets):
        try:
            tree["extract"] = {**extract, "nets": list(add_folders(nets))}
        except BadSetting as error:
            raise BadOption(f"{source}: extract.nets: {error}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    """Put one ``key=value`` into a settings tree."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise BadOption(f"--set {override!r}: write it as key=value")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except ValueError as error:
        raise BadOption(f"--set {override!r}: {error}") from error
    node = tree
    *parents, last = key.strip().split(".")
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"--set {override!r}: {part!r} is no table of settings")
    node[last] = value


def _table(tree: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    """The table at a dotted key; empty where there is none."""
    node: Any = tree
    for part in key.split("."):
        node = node.get(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"{source}: {key} is {node!r}: it must be a table of settings")
    return dict(node)


def _filled(defaults: T, tree: Mapping[str, Any], key: str, source: str) -> T:
    """The settings object `defaults` with the values of the table at a dotted key.

    Keys of a settings object nested in it are keys of the same table.
    """
    table = _table(tree, key, source)
    known = _keys(defaults)
    for name in table:
        if name not in known:
            raise BadOption(
                f"{source}: {key}.{name}: unknown setting; there are {', '.join(known)}"
            )
    try:
        return _replaced(defaults, table, f"{source}: {key}")
    except (BadSetting, FuseError) as error:
        # Messages of settings begin with the name of one.
        raise BadOption(f"{source}: {key}.{error}") from error


def _keys(settings: Any) -> list[str]:
    """Names of all values that a table may set, nested ones in place.

    Fields whose metadata say ``profile`` is False are set by commands alone.
    """
    keys: list[str] = []
    for each in fields(settings):
        if not each.metadata.get("profile", True):
            continue
        value = getattr(settings, each.name)
        keys += _keys(value) if is_dataclass(value) else [each.name]
    return [key for key in keys if key != "name"]


def _replaced(settings: T, table: Mapping[str, Any], where: str) -> T:
    """A settings object with the values of a table, in the types of those they replace."""
    values: dict[str, Any] = {}
    for each in fields(settings):  # type: ignore[arg-type]
        default = getattr(settings, each.name)
        if is_dataclass(default):
            values[each.name] = _replaced(default, table, where)
        elif each.name in table:
            values[each.name] = _typed(table[each.name], default, f"{where}.{each.name}")
    return replace(settings, **values)  # type: ignore[type-var]


def _typed(value: Any, default: Any, where: str) -> Any:
    """The value in the type of the one that it replaces; of a mapping, only those given."""
    if isinstance(default, tuple):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise BadOption(f"{where} is {value!r}: it takes a list of names")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, Mapping):
        if isinstance(value, dict):
            return {**default, **value}
        raise BadOption(f"{where} is {value!r}: it takes a table")
    if type(value) is type(default):
        return value
    raise BadOption(f"{where} is {value!r}: it takes {type(default).__name__}")
