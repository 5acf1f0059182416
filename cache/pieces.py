"""Files that a cache is read from: one file, or the shards of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import CacheFile, FilePool, cache_files
from mvemo.cache.storage.index import Index, StoredFeature, read_feature
from mvemo.cache.storage.plain import array_of
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Bools, Ints
from mvemo.cache.union import (
    Clash,
    PlannedFeature,
    plan_rows,
    refuse_rivals,
    rows_in,
    union_table,
)

T = TypeVar("T")
# (name, fold) of a feature.
At = tuple[str, "int | None"]


@dataclass(frozen=True)
class Piece:
    """One file of a cache."""

    file: CacheFile
    # int64 (clips of the file,): their rows in the cache; None if they are the same.
    places: Ints | None = None

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Clip ids of the file."""
        return self.file.table.clip_ids

    def rows(self, rows: Ints) -> Ints:
        """Return rows of the file as rows of the cache."""
        return rows if self.places is None else self.places[rows]

    def row(self, row: int) -> int:
        """Return a row of the cache as a row of the file, or -1 if the file lacks the clip."""
        return row if self.places is None else self._own.get(row, -1)

    def index(self, spec: FeatureSpec) -> Index:
        """Return the index of a feature; its training clips are those that this file names."""
        return self.read(spec, lambda item: self.feature(item, spec).index)

    def feature(self, item: Any, spec: FeatureSpec) -> StoredFeature:
        """Return the stored feature in an HDF5 group, with its values not read yet."""
        return read_feature(item, self.clip_ids, self.file.groups[spec.name, spec.fold][0])

    def present(self, spec: FeatureSpec) -> Bools:
        """Return bool (clips of the file,), True for clips that have the feature."""
        shape = (len(self.clip_ids),)
        return self.read(spec, lambda item: array_of(item, "present", np.bool_, shape).read())

    def read(self, spec: FeatureSpec, read: Callable[[Any], T]) -> T:
        """Call `read` with the HDF5 group of a feature."""
        return self.file.read_feature(self.file.groups[spec.name, spec.fold][1], read)

    @cached_property
    def _own(self) -> dict[int, int]:
        places = [] if self.places is None else self.places.tolist()
        return {row: i for i, row in enumerate(places)}


@dataclass(frozen=True)
class _OneFeature:
    """Source of one feature in one file, for `plan_rows`."""

    name: str
    table: ClipTable
    indexes: Mapping[str, Index]


@dataclass(frozen=True)
class Pieces:
    """All files of a cache."""

    pieces: tuple[Piece, ...]  # at least one
    table: ClipTable  # clips of all files
    specs: Mapping[At, FeatureSpec]  # specs of all features, with `trained_on`

    @property
    def files(self) -> list[CacheFile]:
        """Files in the order of the pieces."""
        return [piece.file for piece in self.pieces]

    def having(self, spec: FeatureSpec) -> Iterator[Piece]:
        """Yield the pieces that have a feature."""
        return (p for p in self.pieces if (spec.name, spec.fold) in p.file.groups)

    def present(self, spec: FeatureSpec) -> Bools:
        """Return bool (clips,), True for clips that have the feature."""
        present = np.zeros(len(self.table), np.bool_)
        for piece in self.having(spec):
            present[piece.rows(np.flatnonzero(piece.present(spec)))] = True
        return present

    def index_checksum(self, spec: FeatureSpec) -> str:
        """Return the checksum of a feature's index, equal to that of the merged file."""
        if len(self.pieces) == 1:
            return self.files[0].index_checksum(spec.name, spec.fold)
        return replace(self.plan(spec).index, spec=spec).checksum()

    def plan(self, spec: FeatureSpec, *, strict: bool = False) -> PlannedFeature:
        """Return the plan that gives the source file of each row; with `strict`, raise Clash."""
        pieces = list(self.having(spec))
        sources = [
            _OneFeature(p.file.name, p.file.table, {spec.digest: p.index(spec)}) for p in pieces
        ]
        places = [p.rows(np.arange(len(p.clip_ids))) for p in pieces]
        return plan_rows(self.table, sources, places=places, strict=strict)[spec.digest]


def pieces_of(path: Path, pool: FilePool) -> Pieces:
    """Open all files of a cache, which is a file or a folder of shards."""
    files = [CacheFile(file, pool) for file in cache_files(path)]
    if len(files) == 1:
        specs = {at: spec for at, (spec, _) in files[0].groups.items()}
        return Pieces((Piece(files[0]),), files[0].table, specs)
    table = union_table(files)
    places = rows_in(table, [file.table for file in files])
    pieces = Pieces(tuple(map(Piece, files, places)), table, _union_specs(files, table, path))
    if sum(map(len, places)) > len(table):
        for spec in pieces.specs.values():
            try:
                pieces.plan(spec, strict=True)
            except Clash as clash:
                raise BadCache(f"{path}: {clash}") from None
    return pieces


def _union_specs(files: list[CacheFile], table: ClipTable, where: Path) -> dict[At, FeatureSpec]:
    """Return the specs of all files, with the training clips that any file names."""
    of_files = [[spec for spec, _ in file.groups.values()] for file in files]
    refuse_rivals(zip([file.path.name for file in files], of_files, strict=True), str(where))
    specs: dict[At, FeatureSpec] = {}
    seen: dict[At, set[str]] = {}
    for spec in (spec for of_file in of_files for spec in of_file):
        at = spec.name, spec.fold
        specs.setdefault(at, spec)
        seen.setdefault(at, set()).update(spec.trained_on)
    clips = set(table.clip_ids) if any(seen.values()) else set()
    return {
        at: replace(
            spec,
            trained_on=(
                *(clip for clip in table.clip_ids if clip in seen[at]),
                *sorted(seen[at] - clips),
            )
            if seen[at]
            else (),
        )
        for at, spec in specs.items()
    }
