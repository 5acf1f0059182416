"""Profiles and overrides: reading and checking of the settings of both stages.

A profile is a TOML file with the tables ``[extract]``, ``[descriptors]``, ``[nets.NAME]`` and
``[fuse]``. A setting that it does not state keeps its default; nets have their own defaults
(`mvemo.extract.nets`). mvemo includes five profiles: ``paper`` (every number of the papers),
``c17`` (the music tagger of Choi et al. 2017 as it is), ``demo`` (small enough for two cores),
``pretrained`` (public pretrained nets as they are) and ``best`` (these nets, fine-tuned by
current practice). ``--set nets.i3d.lr=3e-4`` overrides one value. An unknown key is an error that
lists the known keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

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
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.manifests.declared import profile_fields
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import TomlError, parse_toml
from mvemo.pipeline.settings import PROFILES, ExtractSettings, Settings

T = TypeVar("T")

# Larger than any valid setting.
LARGEST = 1e10
# Maximum depth of nested tables.
MOST_LEVELS = 9
# Maximum length of an override in a message, in characters.
MOST_SHOWN = 80
# Largest number of settings that an unknown one may stand for in a message.
MOST_MEANT = 3


def load_settings(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a profile (one of `PROFILES`, or a TOML file based on ``paper``); apply overrides.

    Overrides are ``key=value``, with dots in keys and values as in TOML; a bare word is a string.
    This imports the modules of the nets and torch; `load_fuse_settings` imports neither.
    """
    text = _profile_text(profile)
    with _blaming(profile, overrides, load_settings):
        tree = _read(text, overrides)
        extract = _filled(ExtractSettings(), tree, "extract")
        described = replace(DescriptorSettings(), level=extract.run.level)
        descriptors = _filled(described, tree, "descriptors")
        shared = SharedSettings(extract.n_frames, descriptors)
        nets = {}
        for name in dict.fromkeys((*net_names(), *extract.nets)):
            net = _filled(default_settings(name, profile), tree, f"nets.{name}")
            nets[name] = with_shared_options(net, shared)
            options_of(nets[name])
            check_view(nets[name])
        fuse = _filled(EvaluationSettings(), tree, "fuse")
        return Settings(profile, extract, descriptors, nets, fuse)


def load_fuse_settings(profile: str, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Read only the settings of stage two; tables of stage one, which need torch, are ignored."""
    text = _profile_text(profile)
    with _blaming(profile, overrides, load_fuse_settings):
        return _filled(EvaluationSettings(), _read(text, overrides), "fuse")


class Override(str):
    """A ``key=value`` made from another option, which errors name instead of ``--set``."""

    option: str  # option as given on the command line, such as ``--folds 1``

    def __new__(cls, text: str, option: str) -> Override:
        self = super().__new__(cls, text)
        self.option = option
        return self


@contextmanager
def _blaming(
    profile: str, overrides: Sequence[str], load: Callable[[str, Sequence[str]], object]
) -> Iterator[None]:
    """Make an error name the override that causes it, otherwise the profile."""
    try:
        yield
    except (BadOption, BadSetting) as error:
        cause = f"profile {profile}" if profile in PROFILES else str(Path(profile))
        if overrides:
            # If this raises, an earlier override or the profile is wrong; if not, the last is.
            load(profile, overrides[:-1])
            last = overrides[-1]
            shown = last if len(last) < MOST_SHOWN else f"{last[:MOST_SHOWN]}…"
            cause = last.option if isinstance(last, Override) else f"--set {shown}"
            is_unknown = re.search("unknown (setting|option)", str(error))
            if is_unknown and (meant := _meant(last.partition("=")[0].strip())):
                text = f"unknown setting; did you mean {' or '.join(meant)}?"
                raise BadOption(f"{cause}: {text}") from error
        raise BadOption(f"{cause}: {error}") from error


def _meant(key: str) -> list[str]:
    """Return the settings that end as an unknown key and are nearest to it; [] for a known one."""
    tables: dict[str, Any] = {"extract": ExtractSettings(), "descriptors": DescriptorSettings()}
    tables["fuse"] = EvaluationSettings()
    with suppress(ImportError):  # stage two needs no torch
        for name in net_names():
            tables[f"nets.{name}"] = default_settings(name, "paper")
            tables[f"nets.{name}.options"] = options_of(tables[f"nets.{name}"])
    keys = [f"{t}.{each.name}" for t, of in tables.items() for each, _ in profile_fields(of)]
    *parts, last = key.split(".")
    shared = {k: len({*parts} & {*k.split(".")}) for k in keys if k.split(".")[-1] == last}
    nearest = [k for k, n in shared.items() if n == max(shared.values())]
    return [] if key in keys else nearest[:MOST_MEANT]


def _profile_text(profile: str) -> str:
    if profile in PROFILES:
        return resources.files("mvemo.pipeline").joinpath(f"profiles/{profile}.toml").read_text()
    path = Path(profile)
    if not path.is_file():
        raise BadOption(
            f"unknown profile {profile!r}: expected a file or one of {', '.join(PROFILES)}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path}: cannot be read as a profile: {error}") from error


def _read(text: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the tables of a profile, with the overrides applied."""
    try:
        tree = parse_toml(text)
    except ValueError as error:
        raise BadOption(f"not valid TOML: {error}") from error
    for override in overrides:
        _override(tree, override)
    _check_numbers(tree, "")
    for name in sorted(set(tree) - {"extract", "descriptors", "nets", "fuse"}):
        raise BadOption(f"unknown setting {name!r}: expected extract, descriptors, nets or fuse")
    extract = _table(tree, "extract")
    if "nets" in extract:
        try:
            extract["nets"] = list(add_folders(_names(extract["nets"], "extract.nets")))
        except BadSetting as error:
            raise BadOption(f"extract.nets: {error}") from error
    for name in _table(tree, "nets"):
        if name not in NETS and name not in extract.get("nets", ()):
            raise BadOption(f"unknown net {name!r}: expected one of {', '.join(net_names())}")
    return tree


def _check_numbers(value: Any, key: str) -> None:
    """Raise `BadOption` for numbers that are not finite or larger than any setting."""
    if isinstance(value, (dict, list)):
        if key.count(".") > MOST_LEVELS:
            raise BadOption(f"{key}: is nested too deeply")
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in pairs:
            _check_numbers(each, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, (int, float)) and not abs(value) <= LARGEST:
        raise BadOption(
            f"{key}: expected a finite number of at most {LARGEST:g}, got {value!s:.20}"
        )


def _override(tree: dict[str, Any], override: str) -> None:
    """Apply one ``key=value`` to a tree of settings."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise BadOption("write it as key=value")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except TomlError:
        value = text.strip()
    except ValueError as error:
        raise BadOption(str(error)) from error
    node = tree
    *parents, last = key.strip().split(".")
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"{part!r} is not a table of settings")
    node[last] = value


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the table at a dotted key; empty if there is none."""
    node = tree
    for part in key.split("."):
        node = node.get(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"{key}: expected a table of settings, got {node!r}")
    table = node
    return table


def _filled(defaults: T, tree: dict[str, Any], key: str) -> T:
    """Return `defaults` with the values of the table at a dotted key; nested keys are flat."""
    table = _table(tree, key)
    known = [each.name for each, _ in profile_fields(defaults)]
    for name in table:
        if name not in known:
            raise BadOption(f"{key}.{name}: unknown setting; expected one of {', '.join(known)}")
    try:
        return _replaced(defaults, table, key)
    except (BadSetting, BadFeatures) as error:
        # The messages of settings start with the name of a setting.
        raise BadOption(f"{key}.{error}") from error


def _replaced(settings: T, table: Mapping[str, Any], where: str) -> T:
    """Return a settings object with the values of a table, converted to the defaults' types."""
    values = {}
    for each in fields(settings):  # type: ignore[arg-type]
        default = getattr(settings, each.name)
        if is_dataclass(default):
            values[each.name] = _replaced(default, table, where)
        elif each.name in table:
            values[each.name] = _typed(table[each.name], default, f"{where}.{each.name}")
    return replace(settings, **values)  # type: ignore[type-var]


def _typed(value: Any, default: Any, where: str) -> Any:
    """Convert a value to the type of its default; a table is merged into a default table."""
    if isinstance(default, tuple):
        return _names(value, where)
    if isinstance(default, Mapping):
        if isinstance(value, dict):
            return {**default, **value}
        raise BadOption(f"{where}: expected a table, got {value!r}")
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is type(default):
        return value
    raise BadOption(f"{where}: expected {type(default).__name__}, got {value!r}")


def _names(value: Any, where: str) -> tuple[str, ...]:
    """Return the names in a list, or in a comma-separated string."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise BadOption(f"{where}: expected a list of names, got {value!r}")
