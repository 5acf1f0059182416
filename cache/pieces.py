"""Files that a cache is read from (one file, or shards), and verified reading of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import CacheFile, FilePool, cache_files
from mvemo.cache.storage.index import (
    Index,
    StoredFeature,
    feature_label,
    read_feature,
    values_array,
)
from mvemo.cache.storage.layout import row_checksum, values_checksum
from mvemo.cache.storage.plain import PlainArray, array_of
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Bools, Ints
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
# Bytes per step: small enough for the CPU cache, large enough that threads rarely wait.
STEP = 2 << 20


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


class Scan:
    """Single pass over all rows of an array.

    `values` is float32 or float16 (rows, dim); `into` receives the values, or None to discard them.
    """

    def __init__(self, values: PlainArray, into: F32 | None = None) -> None:
        self._values = values
        self._into = into
        self._state: xxhash.xxh3_128 = values_checksum()

    def blocks(self) -> Iterator[tuple[slice, F32, Bools]]:
        """Yield a slice of rows, their values until the next block, and True for finite rows."""
        n, dim = self._values.shape
        step = max(1, STEP // (4 * dim))
        half = self._values.dtype.itemsize == 2
        into = self._into
        block = np.empty((min(step, n), dim), self._values.dtype) if into is None else into[:step]
        # Weights that prevent overflow: then a weighted sum is finite if all its terms are. This
        # is ten times as fast as checking each number.
        weights = np.full(dim, 2.0 ** -dim.bit_length(), np.float32)
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            part = block[: rows.stop - start] if into is None else into[rows]
            self._values.read_into(part, start)
            self._state.update(part.data.cast("B"))
            with np.errstate(all="ignore"):
                yield rows, part, np.isfinite((part.astype("<f4") if half else part) @ weights)

    def checksum(self) -> str:
        """Return `values_checksum` of the blocks so far, as hexadecimal."""
        return self._state.hexdigest()


def read_vectors(piece: Piece, spec: FeatureSpec, values: F32) -> Bools:
    """Read all vectors of a file into `values`; return bool (clips,), True if present."""

    def read(item: Any) -> tuple[Index, bool]:
        stored = piece.feature(item, spec)
        index, scan = stored.index, Scan(stored.values, values)
        sound = all((ok == index.present[rows]).all() for rows, _, ok in scan.blocks())
        if stored.checksum:
            return index, sound and scan.checksum() == stored.checksum
        return index, sound and _rows_fit(piece, index, values, 0)

    index, sound = piece.read(spec, read)
    if not sound:
        raise _damaged(piece, spec)
    return index.present


@dataclass(frozen=True)
class KnownVectors:
    """Facts of a file's vectors that are kept between reads by blocks."""

    present: Bools  # (clips of the file,)
    checksum: str  # checksum of all values; empty in files of mvemo 0.1
    index: Index | None  # index with the checksums of rows, for files of mvemo 0.1


def known_vectors(piece: Piece, spec: FeatureSpec) -> KnownVectors:
    """Return the facts that `vector_blocks` needs."""
    stored = piece.read(spec, lambda item: piece.feature(item, spec))
    return KnownVectors(
        stored.index.present, stored.checksum, None if stored.checksum else stored.index
    )


def vector_blocks(
    piece: Piece, spec: FeatureSpec, known: KnownVectors, n_bytes: int
) -> Iterator[tuple[Ints, F32]]:
    """Yield rows of the cache that one file has, with their values; see `Cache.blocks`."""
    state = values_checksum()
    step = max(1, n_bytes // (4 * spec.dim))
    for start in range(0, len(known.present), step):
        block = _read_rows(piece, spec, known.present, slice(start, start + step))
        present = known.present[start : start + step]
        state.update(block.data.cast("B"))
        if known.index is not None and not _rows_fit(piece, known.index, block, start):
            raise _damaged(piece, spec)
        # A sum is finite if all its terms are, except for overflow.
        with np.errstate(all="ignore"):
            finite = np.isfinite(block.sum(axis=1))
        if (finite != present).any() and (np.isfinite(block).all(axis=1) != present).any():
            raise _damaged(piece, spec)
        rows = start + np.flatnonzero(present)
        yield piece.rows(rows), block if len(rows) == len(block) else block[present]
    if known.checksum and state.hexdigest() != known.checksum:
        raise _damaged(piece, spec)


def _read_rows(piece: Piece, spec: FeatureSpec, frames: Ints | Bools, rows: slice) -> F32:
    """Return float32 (rows, dim) of a file's vectors, or of all frames of its sequences."""
    values = piece.read(
        spec, lambda item: values_array(item, spec, frames).read(rows.start, rows.stop)
    )
    return values.astype("<f4", copy=False)


def read_sequence(piece: Piece, index: Index, i: int, rows: slice) -> F32:
    """Return the frames of a file's i-th clip; `rows` is their range among all frames."""
    values = _read_rows(piece, index.spec, index.frames, rows)
    if not (np.isfinite(values).all() and _row_fits(piece, index, i, values)):
        raise _damaged(piece, index.spec)
    return values


def _rows_fit(piece: Piece, index: Index, values: F32, start: int) -> bool:
    """Return True if vectors from row `start` on match their checksums (mvemo 0.1 only)."""
    present = np.flatnonzero(index.present[start : start + len(values)]).tolist()
    return all(_row_fits(piece, index, start + i, values[i]) for i in present)


def _row_fits(piece: Piece, index: Index, i: int, row: F32) -> bool:
    checksum = row_checksum(piece.clip_ids[i], bytes(index.keys[i]), row)
    return bool(checksum == index.checksums[i].tobytes())


def _damaged(piece: Piece, spec: FeatureSpec) -> BadCache:
    path = piece.file.path
    return BadCache(
        f"{path}: the values of {feature_label(spec)} are damaged: "
        f"'mvemo cache verify {path}' lists them, 'mvemo cache repair' drops them"
    )
