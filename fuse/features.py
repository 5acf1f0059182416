"""The cached vectors that heads are trained on, as the solver wants them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.matrices.descriptor_statistics import DEFAULT as DEFAULT_STATISTICS
from mvemo.fuse.matrices.descriptor_statistics import LLD, DescriptorStatistics
from mvemo.fuse.matrices.rows import Rows, StoredRows
from mvemo.fuse.matrices.within_groups import standardise_within

# Clips that a feature needs for models of it: two in each of six folds, or a quarter of all.
FEWEST = 12


@dataclass(frozen=True)
class FeatureSettings:
    """How vectors become what heads read."""

    # Names of descriptor sequences whose statistics are one more feature, see
    # `mvemo.fuse.matrices.descriptor_statistics`; none for none
    lld: tuple[str, ...] = ()
    # Some of `mvemo.fuse.matrices.descriptor_statistics.STATISTICS`
    lld_statistics: tuple[str, ...] = DEFAULT_STATISTICS
    within_groups: bool = False  # Standardise within groups (`mvemo.fuse.matrices.within_groups`)
    # GiB that the values of all features together may take in memory; where they take more, they
    # are read again, a block of clips at a time, whenever a head is fitted. Heads are the same but
    # for rounding.
    memory: float = 4.0


@dataclass(frozen=True)
class Matrix:
    """One feature of all clips, as it is cached."""

    # float32 (clips, dim), in memory or not; zeros where missing, which no head's training weighs
    # in
    values: NDArray[np.float32] | Rows
    present: NDArray[np.bool_]


PLAIN = FeatureSettings()


class Features:
    """The vector features of a cache.

    Parameters
    ----------
    cache
        Open; read when a matrix is asked for.
    settings
        How its vectors become what heads read.

    Attributes
    ----------
    modality
        Name of each feature to ``audio``, ``video`` or another modality.
    outputs
        The same of what nets themselves predict, which is no feature of any head.
    rare
        Name to number of clips, of features that too few clips have for a model of them.

    Raises
    ------
    BadFeatures
        There is no feature, or a crossfitted one lacks the net of a fold.
    """

    def __init__(self, cache: Cache, settings: FeatureSettings = PLAIN) -> None:
        self._cache, self._settings = cache, settings
        self._statistics = None
        if settings.lld:
            self._statistics = DescriptorStatistics(cache, settings.lld, settings.lld_statistics)
        self.modality: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.rare: dict[str, int] = {}
        self._variants: dict[str, tuple[FeatureSpec, ...]] = {}
        for name in cache.names():
            variants = cache.variants(name)
            if variants[0].kind == "sequence":
                continue
            n = int(cache.present(name, variants[0].fold).sum())
            if n < min(FEWEST, len(cache.table) // 4):
                self.rare[name] = n
            listed = self.modality if variants[0].kind == "vector" else self.outputs
            listed[name] = variants[0].modality
            self._variants[name] = variants
        if self._statistics is not None:
            self.modality[LLD] = self._statistics.spec.modality
            self._variants[LLD] = (self._statistics.spec,)
        if not self.modality:
            raise BadFeatures(
                f"{cache.path}: holds no feature vectors to evaluate: run 'mvemo extract' first"
            )
        for name in (*self.modality, *self.outputs):
            self._check_folds(name)
        numbers = sum(self._variants[name][0].dim for name in self.modality if name != LLD)
        gib = 4 * len(cache.table) * numbers / 2**30
        self._streamed = gib > settings.memory
        if self._streamed and settings.within_groups:
            raise BadFeatures(
                f"{cache.path}: within_groups needs all features in memory, {gib:.3g} GiB: set "
                "fuse.memory to that or more, or within_groups to false"
            )

    def _check_folds(self, name: str) -> None:
        if not self.crossfit(name):
            return
        with_net = {spec.fold for spec in self._variants[name]}
        missing = [fold for fold in range(self._cache.table.k) if fold not in with_net]
        if missing:
            raise BadFeatures(
                f"{self._cache.path}: {name} lacks the nets of folds "
                f"{', '.join(map(str, missing))}: run 'mvemo extract' again, it goes on where "
                "it stopped"
            )

    def crossfit(self, name: str) -> bool:
        """Whether there is a net for each fold."""
        return any(spec.fold is not None for spec in self._variants[name])

    def held_out(self, name: str) -> bool:
        """Whether its net was trained on the training clips of one split."""
        return any(spec.protocol == "holdout" for spec in self._variants[name])

    def variants(self, name: str) -> tuple[FeatureSpec, ...]:
        """Specs of a feature: one, or one for each fold under ``crossfit``."""
        return self._variants[name]

    def spec(self, name: str, fold: int) -> FeatureSpec:
        """What made the values that scores of this fold's clips rest on."""
        if self._statistics is not None and name == LLD:
            return self._statistics.spec
        return self._cache.spec(name, fold)

    def protocol(self, names: tuple[str, ...]) -> str:
        """The most optimistic protocol among features."""
        protocols = {spec.protocol for name in names for spec in self._variants[name]}
        for protocol in ("shared", "crossfit", "holdout", "frozen", "imported"):
            if protocol in protocols:
                return protocol
        return "none"

    def own_outputs(self, name: str, fold: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What the net of a fold predicts itself, as of `Cache.vectors`."""
        return self._cache.vectors(name, fold)

    def matrix(self, name: str, fold: int | None) -> Matrix:
        """A feature as heads read it, of a fold's net where there is one for each fold."""
        matrix = self.raw_matrix(name, fold)
        if not self._settings.within_groups:
            return matrix
        assert not isinstance(matrix.values, Rows)
        values, _ = standardise_within(matrix.values, matrix.present, self._cache.table.groups)
        return Matrix(values, matrix.present)

    def raw_matrix(self, name: str, fold: int | None) -> Matrix:
        """A feature as it is cached."""
        if self._statistics is not None and name == LLD:
            values, present = self._statistics.vectors()
        elif self._streamed:
            n, dim = len(self._cache.table), self._variants[name][0].dim
            rows = StoredRows(partial(self._cache.blocks, name, fold), n, dim)
            return Matrix(rows, self._cache.present(name, fold))
        else:
            values, present = self._cache.vectors(name, fold)
        return matrix_of(values, present)


def matrix_of(values: NDArray[np.float32], present: NDArray[np.bool_] | None = None) -> Matrix:
    """A `Matrix` of float32 (clips, dim), which is changed in place; NaN rows are missing."""
    if present is None:
        present = np.asarray(np.isfinite(values).all(axis=1), dtype=np.bool_)
    values[~present] = 0.0
    return Matrix(values, present)
