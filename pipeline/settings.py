"""Settings of both stages: profiles from files, overrides, and nothing unknown.

A profile is a TOML file with the tables ``[extract]``, ``[descriptors]``,
``[nets.NAME]`` and ``[fuse]``.
Two come with mvemo: ``paper`` (every number of the papers) and ``demo`` (small enough
for two cores). ``--set nets.i3d.lr=3e-4`` overrides one value; a key that no setting has
is an error that lists those there are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from mvemo.extract.descriptors import DESCRIPTORS, DescriptorSettings
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.pipeline.errors import BadOption

PROFILES = ("demo", "paper")
# Those of PL20 and Z22, which run unless others are asked for; then J22's.
DEFAULT_NETS = ("music1d", "music2d", "c3d", "i3d")
NET_NAMES = (*DEFAULT_NETS, "cnn", "lightcnn", "crnn", "rnn")


@dataclass(frozen=True)
class ExtractSettings:
    """Stage one.

    Parameters
    ----------
    protocol
        ``crossfit``, ``frozen``, ``shared`` or ``holdout``.
    nets
        Names of the nets to run, in order.
    folds, fold_seed
        Number of folds and the seed they are made with; the seed is the split's, too.
    split
        ``holdout``: shares of training, validation and test clips (J22: 7:2:1), where the
        manifest prescribes no split.
    seed
        Of initial weights, batch order and dropout.
    n_frames
        Frames a clip for every video net (V1, V2).
    workers
        Decoding processes; 0 for one a core.
    device
        ``auto``, ``cpu`` or ``cuda``.
    precision
        ``float32``, or ``bf16`` for mixed precision.
    embed_batch
        Clips a step when embedding.
    descriptors
        Names of the descriptor sequences to write to the cache; nets that read others get
        them, too.
    """

    protocol: str = "crossfit"
    nets: tuple[str, ...] = DEFAULT_NETS
    folds: int = 6
    fold_seed: int = 0
    split: str = "7:2:1"
    seed: int = 0
    n_frames: int = 32
    workers: int = 0
    device: str = "auto"
    precision: str = "float32"
    embed_batch: int = 4
    descriptors: tuple[str, ...] = (
        "mel",
        "mfcc",
        "rp",
        "f0",
        "formants",
        "contrast",
        "chroma",
        "times",
    )

    def __post_init__(self) -> None:
        least = {"folds": 2, "fold_seed": 0, "seed": 0, "n_frames": 1, "workers": 0}
        for name, value in {**least, "embed_batch": 1}.items():
            if getattr(self, name) < value:
                raise BadOption(
                    f"extract.{name} is {getattr(self, name)}: it must be {value} or more"
                )
        if not self.nets:
            raise BadOption(f"extract.nets names no net: some of {', '.join(NET_NAMES)}")
        for what in ("nets", "descriptors"):
            held = getattr(self, what)
            twice = next((name for name in held if held.count(name) > 1), None)
            if twice is not None:
                raise BadOption(f"extract.{what} names {twice!r} twice")


@dataclass(frozen=True)
class NetSettings:
    """One net of stage one; the fields of a plan and of its training, flat."""

    width: float = 1.0
    weights: str = ""
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 60
    iterations: int = 0
    patience: int = 10
    batch_size: int = 16
    val_fraction: float = 0.15
    loss: str = "softmax"
    tau: float = 0.01
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FuseSettings:
    """Stage two.

    Parameters
    ----------
    C, choose_C, inner_folds, class_weight
        Of the heads, see `mvemo.fuse.HeadSettings`.
    stacked
        Add ``integrated-stacked``, F5 (b).
    missing_modality
        Score fusions with either modality missing, and predict clips that lack one (F6).
    temperature
        Fit temperatures on inner folds, and report calibration with them as well (of
        classes only).
    n_resamples
        Resamples of groups for 95 % intervals; 0 for none.
    """

    C: float = 0.01
    choose_C: bool = False
    inner_folds: int = 3
    class_weight: str = "none"
    stacked: bool = True
    missing_modality: bool = True
    temperature: bool = True
    n_resamples: int = 1000

    def __post_init__(self) -> None:
        if self.n_resamples < 0:
            raise BadOption(f"fuse.n_resamples is {self.n_resamples}: it must be 0 or more")

    def head(self) -> HeadSettings:
        """The heads' part."""
        return HeadSettings(**{f.name: getattr(self, f.name) for f in _HEAD_FIELDS})


_HEAD_FIELDS = [f for f in fields(HeadSettings) if f.name != "inputs"]


@dataclass(frozen=True)
class Settings:
    """All of it, with the name of the profile it came from."""

    profile: str
    extract: ExtractSettings
    descriptors: DescriptorSettings
    nets: Mapping[str, NetSettings]
    fuse: FuseSettings


def load_settings(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """Read a profile and apply overrides.

    Parameters
    ----------
    profile
        A name of `PROFILES`, or the path of a TOML file of the same form.
    overrides
        ``key=value`` strings; keys with dots, values as in TOML (bare words are strings).

    Raises
    ------
    BadOption
        The profile is unknown or unreadable, a key is unknown, or a value has the wrong
        type.
    """
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
        tree: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadOption(f"{source}: not valid TOML: {error}") from error
    for override in overrides:
        _override(tree, override)
    unknown = sorted(set(tree) - {"extract", "descriptors", "nets", "fuse"})
    if unknown:
        raise BadOption(
            f"{source}: unknown setting {unknown[0]!r}: extract, descriptors, nets or fuse"
        )
    nets: dict[str, NetSettings] = {}
    tables = tree.get("nets", {})
    for name in tables:
        if name not in NET_NAMES:
            raise BadOption(f"{source}: unknown net {name!r}: one of {', '.join(NET_NAMES)}")
    for name in NET_NAMES:
        nets[name] = _build(NetSettings, tables.get(name, {}), f"{source}: nets.{name}")
    extract = _build(ExtractSettings, tree.get("extract", {}), f"{source}: extract")
    for name in extract.nets:
        if name not in NET_NAMES:
            raise BadOption(f"{source}: unknown net {name!r}: one of {', '.join(NET_NAMES)}")
    for name in extract.descriptors:
        if name not in DESCRIPTORS:
            known = ", ".join(DESCRIPTORS)
            raise BadOption(f"{source}: unknown descriptor {name!r}: one of {known}")
    return Settings(
        profile=profile,
        extract=extract,
        descriptors=_build(
            DescriptorSettings, tree.get("descriptors", {}), f"{source}: descriptors"
        ),
        nets=nets,
        fuse=_build(FuseSettings, tree.get("fuse", {}), f"{source}: fuse"),
    )


def _override(tree: dict[str, Any], override: str) -> None:
    """Put one ``key=value`` into a settings tree."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise BadOption(f"--set {override!r}: write it as key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    node = tree
    *parents, last = key.strip().split(".")
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise BadOption(f"--set {override!r}: {part!r} is no table of settings")
    node[last] = value


def _build(kind: type[Any], table: Any, where: str) -> Any:
    """Make a settings dataclass from a table; unknown keys and wrong types are errors."""
    if not isinstance(table, dict):
        raise BadOption(f"{where}: {table!r} is no table of settings")
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise BadOption(f"{where}.{key}: unknown setting; there are {', '.join(known)}")
        values[key] = _typed(kind, key, value, where)
    return kind(**values)


def _typed(kind: type[Any], key: str, value: Any, where: str) -> Any:
    """The value in the type of the field's default."""
    default = getattr(kind(), key)
    if isinstance(default, tuple):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise BadOption(f"{where}.{key} is {value!r}: it takes a list of names")
    wanted = "a table" if isinstance(default, Mapping) else type(default).__name__
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, Mapping):
        if isinstance(value, dict):
            return value
    elif type(value) is type(default):
        return value
    raise BadOption(f"{where}.{key} is {value!r}: it takes {wanted}")
