"""Features that stage two reads: in a file (`mvemo.cache.Cache`) or in memory (`MemoryStore`)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import ClipTable, FeatureSpec
from mvemo.cache.table import Failure, subset
from mvemo.fuse.numeric import complete
from mvemo.manifests.array_types import F32, Bools, Ints

if TYPE_CHECKING:
    from mvemo.cache import Cache


class MemoryStore:
    """Vectors of clips in memory: features with values, float32 (clips, dim).

    A row with a NaN is a clip without the feature. `path` is the name in messages.
    """

    failures: tuple[Failure, ...] = ()

    def __init__(
        self,
        table: ClipTable,
        vectors: Sequence[tuple[FeatureSpec, F32]],
        path: Path = Path("memory"),
    ) -> None:
        self.path: Path = path
        self.table: ClipTable = table
        # By name and fold, as in a cache.
        self.specs: tuple[FeatureSpec, ...] = tuple(
            sorted((spec for spec, _ in vectors), key=lambda s: (s.name, s.fold or 0))
        )
        self.curves: Mapping[str, Mapping[str, list[float]]] = {}
        self._values = {(spec.name, spec.fold): values for spec, values in vectors}

    def _of(self, name: str, fold: int | None) -> F32:
        return self._values[(name, fold) if (name, fold) in self._values else (name, None)]

    def vectors(self, name: str, fold: int | None = None) -> tuple[F32, Bools]:
        """Return a copy of a feature's values, and bool (clips,), True for clips that have it."""
        return self._of(name, fold).copy(), self.present(name, fold)

    def blocks(self, name: str, fold: int | None = None) -> Iterator[tuple[Ints, F32]]:
        """Yield the rows of a feature, in one block."""
        rows = np.flatnonzero(self.present(name, fold))
        yield rows, self._of(name, fold)[rows]

    def present(self, name: str, fold: int | None = None) -> Bools:
        """Return bool (clips,), True for clips that have the feature."""
        return complete(self._of(name, fold))

    def keys(self, name: str, fold: int | None = None) -> NDArray[np.bytes_]:
        """Return empty keys, because no row was read from a file."""
        return np.zeros(len(self.table), "S1")

    def sequence(self, name: str, clip_id: str, fold: int | None = None) -> F32 | None:
        """Return None: there are no sequences in memory."""

    def digest(self) -> str:
        """Return the SHA-256 of the clips and of all values."""
        table = self.table
        facts = (table.task, table.classes, table.clip_ids, table.groups)
        state = hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass"))
        state.update(np.ascontiguousarray(table.labels).data)
        for spec in self.specs:
            state.update(spec.digest.encode())
            state.update(np.ascontiguousarray(self._of(spec.name, spec.fold)).data)
        return state.hexdigest()


# Features of clips, with the clips' labels, groups and folds.
FeatureStore: TypeAlias = "Cache | MemoryStore"


def selected(
    store: FeatureStore, specs: Sequence[FeatureSpec], rows: Ints, **facts: Any
) -> MemoryStore:
    """Return some clips of a store; `facts` replaces fields of the table. Folds are dropped."""
    table = replace(_unfolded(subset(store.table, rows.tolist()), len(rows)), **facts)
    vectors = [(spec, store.vectors(spec.name, spec.fold)[0][rows]) for spec in specs]
    return MemoryStore(table, vectors, store.path)


def _unfolded(table: ClipTable, n: int) -> ClipTable:
    """Return the table of `n` clips without folds, split and annotators."""
    folds = np.full(n, -1)
    return replace(table, folds=folds, k=0, fold_seed=0, splits=None, disagreement=None)


def joined(stores: Sequence[MemoryStore], splits: Sequence[int] | None = None) -> MemoryStore:
    """Concatenate stores with the same features; other facts are from the first store.

    `splits` has the part of each store, if the stores are parts of a split; groups stay apart.
    """
    first, tables = stores[0], [store.table for store in stores]
    parts = splits or [0] * len(stores)
    sizes = [len(table) for table in tables]
    fronts = [f"{part}/" if splits else "" for part in parts]
    table = replace(
        _unfolded(first.table, sum(sizes)),
        clip_ids=tuple(f"{i}/{clip}" for i, t in enumerate(tables) for clip in t.clip_ids),
        groups=tuple(f"{f}{g}" for f, t in zip(fronts, tables, strict=True) for g in t.groups),
        labels=np.concatenate([t.labels for t in tables]),
        splits=np.repeat(parts, sizes) if splits else None,
    )
    vectors = [
        (spec, np.concatenate([store.vectors(spec.name, spec.fold)[0] for store in stores]))
        for spec in first.specs
    ]
    return MemoryStore(table, vectors, first.path)
