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
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvemo.cache import Cache, open_cache
from mvemo.extract import nets as net_types
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets.parts.encoder_names import EncoderName, encoder_of, of_encoder
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.manifests.declared import fill, profile_fields, split_names
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_files import TomlError, parse_toml, read_toml
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.settings import PROFILES, ExtractSettings, Settings

FALLBACK_PROFILE = "paper"
# Maximum depth of nested tables.
MOST_LEVELS = 9
# Maximum length of an override in a message, in characters.
MOST_SHOWN = 80
# Maximum number of suggestions in a message about an unknown setting.
MOST_MEANT = 3


def load_settings(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a profile (one of `PROFILES`, or a TOML file based on ``paper``); apply overrides.

    Overrides are ``key=value``, with dots in keys and values as in TOML; a bare word is a string.
    This imports the modules of the nets and torch; `load_fuse_settings` imports neither.
    """
    with _blaming(profile, overrides, load_settings):
        tree = _read(profile, overrides)
        extract = fill(ExtractSettings(), _table(tree, "extract"), "extract")
        described = replace(DescriptorSettings(), level=extract.run.level)
        descriptors = fill(described, _table(tree, "descriptors"), "descriptors")
        shared = net_types.SharedSettings(extract.n_frames, descriptors)
        nets = {}
        broken = net_types.broken_nets()
        for name in dict.fromkeys((*net_types.net_names(), *extract.nets)):
            if name in broken and name not in extract.nets:
                continue
            key = f"nets.{name}"
            net = fill(net_types.default_settings(name, profile), _table(tree, key), key)
            nets[name] = net_types.with_shared_options(net, shared)
            net_types.options_of(nets[name])
            net_types.check_view(nets[name])
        fuse = fill(EvaluationSettings(), _table(tree, "fuse"), "fuse")
        return Settings(profile, extract, descriptors, nets, fuse)


def load_fuse_settings(profile: str, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Read only the settings of stage two; tables of stage one, which need torch, are ignored."""
    with _blaming(profile, overrides, load_fuse_settings):
        return fill(EvaluationSettings(), _table(_read(profile, overrides), "fuse"), "fuse")


def settings_for(
    features: Path, profile: str | None, overrides: Sequence[str] = ()
) -> EvaluationSettings:
    """Return the settings of stage two for a cache.

    The default profile is that of the last run of stage one if it is one of `PROFILES`, otherwise
    ``paper``. Descriptors of a profile are left out if the cache lacks them; descriptors of an
    override must be in the cache.
    """
    with open_cache(features) as cache:
        profile = profile or _profile_of(cache)
        sequences = {spec.name for spec in cache.specs if spec.kind == "sequence"}
    settings = load_fuse_settings(profile, overrides)
    if any(override.partition("=")[0].strip() == "fuse.lld" for override in overrides):
        return settings
    missing = [name for name in settings.lld if name not in sequences]
    if missing:
        tell_note(f"the feature lld leaves out {', '.join(missing)}: not in {features}")
    return replace(settings, lld=tuple(name for name in settings.lld if name in sequences))


def settings_of_arrays(profile: str | None, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Return the settings of stage two for features in memory, which have no descriptors."""
    return replace(load_fuse_settings(profile or FALLBACK_PROFILE, overrides), lld=())


def _profile_of(cache: Cache) -> str:
    """Return the profile of the last run of stage one in the cache's provenance."""
    for record in (cache.provenance, *cache.provenance.get("history", ())):
        settings = record.get("settings")
        if isinstance(settings, dict) and "profile" in settings:
            return settings["profile"] if settings["profile"] in PROFILES else FALLBACK_PROFILE
    return FALLBACK_PROFILE


class Override(str):
    """A ``key=value`` made from another option, which errors name instead of ``--set``."""

    option: str  # option as given on the command line, such as ``--folds 1``

    def __new__(cls, text: str, option: str) -> Override:
        self = super().__new__(cls, text)
        self.option = option
        return self


def refuse_unused_weights(files: Mapping[str, Path], settings: Settings) -> None:
    """Raise `BadOption` for a file of weights, by net, whose net the settings do not use."""
    for net, file in files.items():
        if net not in {*settings.extract.nets, *map(encoder_of, settings.extract.nets)}:
            raise BadOption(
                f"--weights {net}={file}: this run does not use {net}: expected one of "
                f"{', '.join(settings.extract.nets)}"
            )


@contextmanager
def _blaming(
    profile: str, overrides: Sequence[str], load: Callable[[str, Sequence[str]], object]
) -> Iterator[None]:
    """Inside the context, add the override or the profile that causes an error to its message."""
    try:
        yield
    except BadOption as error:
        cause = f"profile {profile}" if profile in PROFILES else str(Path(profile))
        if overrides:
            # If this raises, an earlier override or the profile is wrong, otherwise the last one.
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
    """Return suggestions for an unknown key: settings with the same end; [] for a known key."""
    tables: dict[str, Any] = {"extract": ExtractSettings(), "descriptors": DescriptorSettings()}
    tables["fuse"] = EvaluationSettings()
    with suppress(ImportError):  # stage two needs no torch
        for name in net_types.NETS.keys() - net_types.broken_nets().keys():
            tables[f"nets.{name}"] = net_types.default_settings(name, "paper")
            tables[f"nets.{name}.options"] = net_types.options_of(tables[f"nets.{name}"])
    keys = [f"{t}.{each.name}" for t, of in tables.items() for each, _ in profile_fields(of)]
    *parts, last = key.split(".")
    shared = {k: len({*parts} & {*k.split(".")}) for k in keys if k.split(".")[-1] == last}
    nearest = [k for k, n in shared.items() if n == max(shared.values())]
    return [] if key in keys else nearest[:MOST_MEANT]


def _read(profile: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the tables of a profile, with the overrides applied."""
    path = Path(profile)
    if profile in PROFILES:
        path = Path(__file__).with_name("profiles") / f"{profile}.toml"
    elif not path.is_file():
        raise BadOption(
            f"unknown profile {profile!r}: expected a file or one of {', '.join(PROFILES)}"
        )
    tree: dict[str, Any] = read_toml(path)
    for override in overrides:
        _override(tree, override)
    for name in sorted(set(tree) - {"extract", "descriptors", "nets", "fuse"}):
        raise BadOption(f"unknown setting {name!r}: expected extract, descriptors, nets or fuse")
    extract = _table(tree, "extract")
    nets = split_names(extract.get("nets", []))
    if not isinstance(nets, list) or not all(isinstance(name, str) for name in nets):
        raise BadOption(f"extract.nets: expected a list of names, got {nets!r}")
    if nets:
        nets = extract["nets"] = list(net_types.add_encoders(nets))
    tables = _table(tree, "nets")
    for name in nets:
        # The settings of an encoder apply to all its layers.
        if isinstance(name, EncoderName) and (shared := of_encoder(tables, name)):
            tables[name] = {**shared, **tables.get(name, {})}
    for name in {*tables} - {encoder_of(name) for name in nets}:
        if name not in net_types.NETS and name not in nets:
            raise BadOption(
                f"unknown net {name!r}: expected one of {', '.join(net_types.net_names())}"
            )
    return tree


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
    if len(parents) > MOST_LEVELS:
        raise BadOption("nested too deeply")
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"{part!r} is not a table of settings")
    node[last] = value


def dotted(tree: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of all entries of nested tables."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{front}{key}.")
        else:
            yield f"{front}{key}", value


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the table at a dotted key; empty if there is none."""
    node = tree
    for part in key.split("."):
        node = node.get(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"{key}: expected a table of settings, got {node!r}")
    return node
