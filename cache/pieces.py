"""The files that a cache is read from: one, or the shards of a folder as one."""

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
# Name and fold of a feature.
At = tuple[str, "int | None"]


@dataclass(frozen=True)
class Piece:
    """One file of a cache."""

    file: CacheFile  # open
    # Int64 (clips of the file,): their rows in the cache; None where they are the same.
    places: Ints | None = None

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """Of the file."""
        return self.file.table.clip_ids

    def rows(self, rows: Ints) -> Ints:
        """Rows of the file as rows of the cache."""
        return rows if self.places is None else self.places[rows]

    def row(self, row: int) -> int:
        """A row of the cache as one of the file; -1 where the file lacks the clip."""
        return row if self.places is None else self._own.get(row, -1)

    def index(self, spec: FeatureSpec) -> Index:
        """Of one feature, with what the file alone says of its training clips."""
        return self.read(spec, lambda item: self.feature(item, spec).index)

    def feature(self, item: Any, spec: FeatureSpec) -> StoredFeature:
        """What `read` gives of a feature, values not read yet."""
        return read_feature(item, self.clip_ids, self.file.groups[spec.name, spec.fold][0])

    def present(self, spec: FeatureSpec) -> Bools:
        """bool (clips of the file,): which have a feature."""
        shape = (len(self.clip_ids),)
        return self.read(spec, lambda item: array_of(item, "present", np.bool_, shape).read())

    def read(self, spec: FeatureSpec, read: Callable[[Any], T]) -> T:
        """Read from the HDF5 group of a feature."""
        return self.file.read_feature(self.file.groups[spec.name, spec.fold][1], read)

    @cached_property
    def _own(self) -> dict[int, int]:
        places = [] if self.places is None else self.places.tolist()
        return {row: i for i, row in enumerate(places)}


@dataclass(frozen=True)
class _OneFeature:
    """Of one file, as `plan_rows` takes it."""

    name: str
    table: ClipTable
    indexes: Mapping[str, Index]


@dataclass(frozen=True)
class Pieces:
    """All files of a cache."""

    pieces: tuple[Piece, ...]  # one at least
    table: ClipTable  # clips of all
    specs: Mapping[At, FeatureSpec]  # of all features, `trained_on` filled in

    @property
    def files(self) -> list[CacheFile]:
        """In the order of the pieces."""
        return [piece.file for piece in self.pieces]

    def having(self, spec: FeatureSpec) -> Iterator[Piece]:
        """Those with a feature."""
        return (p for p in self.pieces if (spec.name, spec.fold) in p.file.groups)

    def present(self, spec: FeatureSpec) -> Bools:
        """bool (clips,): which clips have a feature."""
        present = np.zeros(len(self.table), np.bool_)
        for piece in self.having(spec):
            present[piece.rows(np.flatnonzero(piece.present(spec)))] = True
        return present

    def index_checksum(self, spec: FeatureSpec) -> str:
        """Checksum of a feature's index, as the one file has it that merging would give."""
        if len(self.pieces) == 1:
            return self.files[0].index_checksum(spec.name, spec.fold)
        return replace(self.plan(spec).index, spec=spec).checksum()

    def plan(self, spec: FeatureSpec, *, strict: bool = False) -> PlannedFeature:
        """Which file gives each row of a feature; errors as of `plan_rows`."""
        pieces = list(self.having(spec))
        sources = [
            _OneFeature(p.file.name, p.file.table, {spec.digest: p.index(spec)}) for p in pieces
        ]
        places = [p.rows(np.arange(len(p.clip_ids))) for p in pieces]
        return plan_rows(self.table, sources, places=places, strict=strict)[spec.digest]


def pieces_of(path: Path, pool: FilePool) -> Pieces:
    """Open all files of a cache."""
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
    """Specs of all files; of nets that several files have, all training clips."""
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
