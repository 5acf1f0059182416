"""Reading of the values in one file of a cache, verified against their checksums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.pieces import Piece
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.index import Index, feature_label, values_array
from mvemo.cache.storage.layout import row_checksum, values_checksum
from mvemo.cache.storage.scanning import Scan
from mvemo.cache.types import F32, Bools, Ints


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
