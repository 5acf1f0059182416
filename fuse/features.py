"""Cached feature vectors, as the solver reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.descriptor_statistics import DEFAULT as DEFAULT_STATISTICS
from mvemo.fuse.descriptor_statistics import LLD, DescriptorStatistics
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.scaling import Rows, standardise_within

# Fewest clips that a feature needs for models of it: two in each of six folds, or a quarter of all.
FEWEST = 12


@dataclass(frozen=True)
class FeatureSettings:
    """Settings that decide how cached vectors become the inputs of heads."""

    # Descriptor sequences whose statistics are one more feature (`descriptor_statistics`).
    lld: tuple[str, ...] = ()
    # Names in `mvemo.fuse.descriptor_statistics.STATISTICS`.
    lld_statistics: tuple[str, ...] = DEFAULT_STATISTICS
    within_groups: bool = False  # standardise within groups (`mvemo.fuse.scaling`)
    # GiB of memory for the values of all features. Larger features are read again, block by
    # block, whenever a head is fitted; the heads are equal but for rounding.
    memory: float = 4.0


@dataclass(frozen=True)
class Matrix:
    """One feature of all clips, as cached."""

    # float32 (clips, dim), in memory or not; zeros where missing (these clips have weight 0).
    values: NDArray[np.float32] | Rows
    present: NDArray[np.bool_]  # bool (clips,)


PLAIN = FeatureSettings()


class Features:
    """The vector features of a cache."""

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
        """Return True if each fold has a net of its own."""
        return any(spec.fold is not None for spec in self._variants[name])

    def held_out(self, name: str) -> bool:
        """Return True if the net was trained on the training clips of one split."""
        return any(spec.protocol == "holdout" for spec in self._variants[name])

    def variants(self, name: str) -> tuple[FeatureSpec, ...]:
        """Return the specs of a feature: one, or one per fold under ``crossfit``."""
        return self._variants[name]

    def spec(self, name: str, fold: int) -> FeatureSpec:
        """Return the spec of the values that the scores of a fold's clips rest on."""
        if self._statistics is not None and name == LLD:
            return self._statistics.spec
        return self._cache.spec(name, fold)

    def protocol(self, names: tuple[str, ...]) -> str:
        """Return the most optimistic protocol among features."""
        protocols = {spec.protocol for name in names for spec in self._variants[name]}
        for protocol in ("shared", "crossfit", "holdout", "frozen", "imported"):
            if protocol in protocols:
                return protocol
        return "none"

    def own_outputs(self, name: str, fold: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the outputs of a fold's net itself, as `Cache.vectors` does."""
        return self._cache.vectors(name, fold)

    def matrix(self, name: str, fold: int | None) -> Matrix:
        """Return a feature as heads read it, from the fold's net if each fold has one."""
        matrix = self.raw_matrix(name, fold)
        if not self._settings.within_groups:
            return matrix
        assert not isinstance(matrix.values, Rows)
        values = standardise_within(matrix.values, matrix.present, self._cache.table.groups)
        return Matrix(values, matrix.present)

    def raw_matrix(self, name: str, fold: int | None) -> Matrix:
        """Return a feature as cached."""
        if self._statistics is not None and name == LLD:
            values, present = self._statistics.vectors()
        elif self._streamed:
            shape = len(self._cache.table), self._variants[name][0].dim
            rows = Rows(shape, partial(self._cache.blocks, name, fold))
            return Matrix(rows, self._cache.present(name, fold))
        else:
            values, present = self._cache.vectors(name, fold)
        return matrix_of(values, present)


def matrix_of(values: NDArray[np.float32], present: NDArray[np.bool_] | None = None) -> Matrix:
    """Make a `Matrix` of float32 (clips, dim), changed in place; NaN rows are missing."""
    if present is None:
        present = complete(values)
    values[~present] = 0.0
    return Matrix(values, present)
