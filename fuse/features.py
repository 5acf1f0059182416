"""Inputs of heads: feature vectors, statistics of sequences, and the clips' labels and folds.

The feature ``lld`` has statistics of low-level descriptors. They are computed from the sequences
in the cache when they are needed, so other descriptors can be chosen without the media files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import FeatureSpec
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import Link, complete
from mvemo.fuse.scaling import Rows, standardise_within
from mvemo.fuse.stores import FeatureStore
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import labels as manifest_labels
from mvemo.manifests import make_folds
from mvemo.manifests.array_types import F32, F64, Bools, Ints
from mvemo.manifests.declared import setting

LLD = "lld"
# Must be increased if the same sequences would give different statistics.
STATISTICS_VERSION = 1
# Name of a statistic in settings to its name in caches and models.
STATISTICS = {
    "mean": "mean",
    "std": "sd",
    "p10": "10th percentile",
    "p90": "90th percentile",
    "diff_mean": "mean of differences",
    "diff_std": "sd of differences",
    "diff_p10": "10th percentile of differences",
    "diff_p90": "90th percentile of differences",
}
DEFAULT_STATISTICS = ("mean", "std", "diff_std")
_FUNCTIONS: dict[str, Any] = {"mean": np.mean, "std": np.std}
_FUNCTIONS |= {"p10": partial(np.quantile, q=0.1), "p90": partial(np.quantile, q=0.9)}


def check_statistics(names: Sequence[str]) -> None:
    """Raise for an empty list, an unknown statistic or a duplicate."""
    known = ", ".join(STATISTICS)
    if not names:
        raise BadFeatures(f"lld_statistics is empty: expected one or more of {known}")
    for name in names:
        if name not in STATISTICS:
            raise BadFeatures(f"lld_statistics: unknown {name!r}; expected one or more of {known}")
        if list(names).count(name) > 1:
            raise BadFeatures(f"lld_statistics names {name!r} twice")


def sequence_statistics(sequence: F32, statistics: Sequence[str] = DEFAULT_STATISTICS) -> F32:
    """Return statistics over time: the first one for all columns, then the second, and so on."""
    values = sequence.astype(np.float64)
    steps = np.diff(values, axis=0) if len(values) > 1 else np.zeros_like(values)
    parts = []
    for name in statistics:
        kind = name.removeprefix("diff_")
        parts.append(_FUNCTIONS[kind](values if kind == name else steps, axis=0))
    return np.concatenate(parts).astype(np.float32)


def statistics_of(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the names in settings of the statistics of a feature ``lld``."""
    names = {stored: name for name, stored in STATISTICS.items()}
    return tuple(names[stored] for stored in spec.params["statistics"])


def statistics_vector(spec: FeatureSpec, sequences: Sequence[F32]) -> F64:
    """Return the statistics of descriptors, float64 (dim,)."""
    statistics = statistics_of(spec)
    of_each = [sequence_statistics(sequence, statistics) for sequence in sequences]
    return np.concatenate(of_each).astype(np.float64)


def descriptor_statistics(
    store: FeatureStore, descriptors: Sequence[str], statistics: Sequence[str] = DEFAULT_STATISTICS
) -> FeatureSpec:
    """Return the spec of the feature ``lld`` of a cache; raise if it cannot be made."""
    sequences = [spec.name for spec in store.specs if spec.kind == "sequence"]
    if LLD in {spec.name for spec in store.specs}:
        raise BadFeatures(f"{store.path}: already has a feature {LLD!r}: leave fuse.lld empty")
    for name in descriptors:
        if name not in sequences:
            raise BadFeatures(
                f"{store.path}: fuse.lld: unknown sequence {name!r}; the file has "
                f"{', '.join(dict.fromkeys(sequences)) or 'no sequences'}"
            )
        if descriptors.count(name) > 1:
            raise BadFeatures(f"fuse.lld names {name!r} twice")
    specs = [next(s for s in store.specs if s.name == name) for name in descriptors]
    if len({spec.modality for spec in specs}) > 1:
        raise BadFeatures(f"fuse.lld: {', '.join(descriptors)} must have the same modality")
    return FeatureSpec(
        name=LLD,
        modality=specs[0].modality,
        kind="vector",
        dim=len(statistics) * sum(spec.dim for spec in specs),
        extractor="statistics of descriptors",
        version=STATISTICS_VERSION,
        params={
            "statistics": [STATISTICS[name] for name in statistics],
            "descriptors": {spec.name: spec.digest for spec in specs},
            "order": list(descriptors),
        },
    )


# Digest of a spec of `lld` to its vectors: the audit and repeats do not read the sequences again.
_vectors: WeakKeyDictionary[FeatureStore, dict[str, F32]] = WeakKeyDictionary()


def statistics_vectors(store: FeatureStore, spec: FeatureSpec) -> F32:
    """Return the vectors of a spec of `descriptor_statistics`; NaN if a clip lacks a descriptor."""
    kept = _vectors.setdefault(store, {})
    if spec.digest not in kept:
        clip_ids = store.table.clip_ids
        values = np.full((len(clip_ids), spec.dim), np.nan, dtype=np.float32)
        for row, clip_id in zip(values, clip_ids, strict=True):
            found = [store.sequence(name, clip_id) for name in spec.params["order"]]
            parts = [sequence_statistics(s, statistics_of(spec)) for s in found if s is not None]
            if len(parts) == len(found):
                row[:] = np.concatenate(parts)
        kept[spec.digest] = values
    return kept[spec.digest].copy()


# A feature needs this many clips to be used, two in each of six folds, or a quarter of all clips.
FEWEST = 12


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Settings for turning cached vectors into inputs of heads."""

    lld: tuple[str, ...] = setting((), "Sequences whose statistics are the feature `lld`.")
    lld_statistics: tuple[str, ...] = setting(
        DEFAULT_STATISTICS,
        "Statistics: `mean`, `std`, `p10`, `p90`, `diff_mean` to `diff_p90`.",
    )
    within_groups: bool = setting(
        False, "Standardise within groups of five or more; new clips must come as groups, too."
    )
    memory: float = setting(4.0, "GiB for features; larger ones are read in blocks.", ge=0)


@dataclass(frozen=True)
class Matrix:
    """Cached values of one feature for all clips."""

    # float32 (clips, dim), in memory or not; zeros for clips without it (they have weight 0).
    values: NDArray[np.float32] | Rows
    present: NDArray[np.bool_]  # bool (clips,)


PLAIN = FeatureSettings()


class Features:
    """The vector features of a store."""

    def __init__(self, store: FeatureStore, settings: FeatureSettings = PLAIN) -> None:
        self.store: FeatureStore = store
        self._settings = settings
        lld = settings.lld, settings.lld_statistics
        statistics = descriptor_statistics(store, *lld) if settings.lld else None
        self.modality: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.rare: dict[str, int] = {}
        # Specs of each feature: one, or one per fold under ``crossfit``.
        self.variants: dict[str, tuple[FeatureSpec, ...]] = {}
        for name, found in groupby(store.specs, attrgetter("name")):
            variants = tuple(found)
            if variants[0].kind == "sequence":
                continue
            n = int(store.present(name, variants[0].fold).sum())
            if n < min(FEWEST, len(store.table) // 4):
                self.rare[name] = n
            listed = self.modality if variants[0].kind == "vector" else self.outputs
            listed[name] = variants[0].modality
            self.variants[name] = variants
        if statistics is not None:
            self.modality[LLD] = statistics.modality
            self.variants[LLD] = (statistics,)
        if not self.modality:
            raise BadFeatures(
                f"{store.path}: holds no feature vectors to evaluate: run 'mvemo extract' first"
            )
        for name, variants in self.variants.items():
            missing = set(range(store.table.k)) - {spec.fold for spec in variants}
            if self.crossfit(name) and missing:
                raise BadFeatures(
                    f"{store.path}: {name} lacks the nets of folds "
                    f"{', '.join(map(str, sorted(missing)))}: run the same 'mvemo extract' again, "
                    "which continues where it stopped"
                )
        numbers = sum(self.variants[name][0].dim for name in self.modality if name != LLD)
        gib = 4 * len(store.table) * numbers / 2**30
        self.streamed: bool = gib > settings.memory
        if self.streamed and settings.within_groups:
            raise BadFeatures(
                f"{store.path}: within_groups needs all features in memory ({gib:.3g} GiB): "
                "set fuse.memory to at least that, or within_groups to false"
            )

    def crossfit(self, name: str) -> bool:
        """Return True if each fold has a different net."""
        return any(spec.fold is not None for spec in self.variants[name])

    def spec(self, name: str, fold: int) -> FeatureSpec:
        """Return the spec of the values that are used to score a fold's clips."""
        return next(spec for spec in self.variants[name] if spec.fold in (None, fold))

    def protocol(self, names: tuple[str, ...]) -> str:
        """Return the most optimistic protocol of these features."""
        protocols = {spec.protocol for name in names for spec in self.variants[name]}
        ranked = ("shared", "crossfit", "holdout", "frozen", "imported")
        return next((protocol for protocol in ranked if protocol in protocols), "none")

    def matrix(self, name: str, fold: int | None) -> Matrix:
        """Return a feature as heads read it, from the fold's net if each fold has one."""
        matrix = self.raw_matrix(name, fold)
        if self._settings.within_groups and not isinstance(matrix.values, Rows):
            values = standardise_within(matrix.values, matrix.present, self.store.table.groups)
            return Matrix(values, matrix.present)
        return matrix

    def raw_matrix(self, name: str, fold: int | None) -> Matrix:
        """Return the cached values of a feature, without standardisation within groups."""
        if self._settings.lld and name == LLD:
            return matrix_of(statistics_vectors(self.store, self.variants[LLD][0]))
        if not self.streamed:
            return matrix_of(*self.store.vectors(name, fold))
        shape = len(self.store.table), self.variants[name][0].dim
        rows = Rows(shape, partial(self.store.blocks, name, fold))
        return Matrix(rows, self.store.present(name, fold))


def matrix_of(values: NDArray[np.float32], present: NDArray[np.bool_] | None = None) -> Matrix:
    """Make a `Matrix` of float32 (clips, dim), modified in place; NaN rows are missing clips."""
    if present is None:
        present = complete(values)
    values[~present] = 0.0
    return Matrix(values, present)


@dataclass(frozen=True)
class Clips:
    """Labels, groups and folds of an evaluation's clips.

    Parameters
    ----------
    task
        Task of the labels (`mvemo.fuse.task_of`).
    y_true
        Labels: int64 (clips,) of classes, int64 (clips, tags) of 0 and 1, or float64
        (clips, targets).
    groups
        Group of each clip.
    folds
        int64 (clips,): the fold that tests each clip; -1 for clips that are only trained on.
    n_outputs
        Number of classes, tags or targets.
    seed
        Seed of new folds.
    """

    task: Task
    y_true: NDArray[Any]
    groups: tuple[str, ...]
    folds: Ints
    n_outputs: int
    seed: int = 0

    @property
    def link(self) -> Link:
        """Return the link of the heads (`mvemo.fuse.Head`)."""
        return self.task.link

    @property
    def target(self) -> NDArray[np.float32]:
        """Return the targets, float32 (outputs, clips): one-hot classes, tags, or values."""
        return self.task.target(self.y_true, self.n_outputs)

    def folds_of(self, rows: Bools, count: int) -> Ints:
        """Return new folds of the clips in `rows`, int64 (clips,), -1 for all other clips.

        Groups stay whole. All are -1 if the clips form one group.
        """
        members = np.flatnonzero(rows)
        groups = [self.groups[row] for row in members]
        folds = np.full(len(rows), -1, dtype=np.int64)
        count = min(count, len(set(groups)))
        if count >= 2:
            task = cast(manifest_labels.Task, self.task.name)
            folds[members] = make_folds(self.y_true[members], groups, count, self.seed, task)
        return folds


def leave_each_out(folds: Ints) -> list[tuple[Bools, Bools]]:
    """Return, for each fold, masks of the other folds' clips and of its clips (never -1).

    Folds without clips, and a fold that has all clips, are left out.
    """
    masks = [((folds >= 0) & (folds != n), folds == n) for n in range(int(folds.max()) + 1)]
    return [(others, rows) for others, rows in masks if others.any() and rows.any()]
