"""Sources of rows: a cache file, a shard, or the writer's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import DAMAGE, FilePool, reason
from mvemo.cache.storage.index import Index, read_index
from mvemo.cache.storage.layout import (
    CHECKSUM,
    read_curves,
    read_failures,
    read_merged,
    read_provenance,
    read_table,
    row_checksum,
)
from mvemo.cache.storage.plain import attribute, part
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Bools, Curves, Failures, Ints
from mvemo.cache.writing.checks import check_spec


class Source(Protocol):
    """Source of feature rows; the rows of `indexes` follow `table`."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    @property
    def table(self) -> ClipTable:
        """Clips of the source, often only some of the cache's."""
        ...

    @property
    def indexes(self) -> Mapping[str, Index]:
        """Index by spec digest, oldest first."""
        ...

    @property
    def failures(self) -> Failures: ...

    @property
    def curves(self) -> Curves: ...

    @property
    def provenance(self) -> dict[str, Any]: ...

    def vectors(self, digest: str, rows: Ints) -> F32:
        """Return float32 (rows, dim)."""
        ...

    def sequence(self, digest: str, row: int) -> F32:
        """Return float32 (frames, dim)."""
        ...


class FileSource:
    """Cache file or shard as a source: its index in memory, its values on disk.

    With `tolerant`, features that cannot be read are left out and named in `lost`.
    """

    def __init__(self, path: Path, pool: FilePool, *, tolerant: bool = False) -> None:
        self.path = path
        self.name = str(path)
        self.lost: list[str] = []
        self._pool = pool
        self._groups: dict[str, str] = {}
        file = pool.get(path)
        try:
            self.table = read_table(file)
        except DAMAGE as error:
            raise BadCache(
                f"{path}: its clip table is damaged ({reason(error)}): extract again"
            ) from None
        ordered: list[tuple[int, Index]] = []
        for group in file["features"]:
            try:
                item = part(file["features"], group)
                index = read_index(item, self.table.clip_ids)
                check_spec(index.spec, str(path))
                ordered.append((attribute(item, "order", int), index))
            except DAMAGE as error:
                if not tolerant:
                    raise BadCache(
                        f"{path}: feature {group} is damaged ({reason(error)}): "
                        f"run 'mvemo cache repair {path}'"
                    ) from None
                self.lost.append(f"feature {group}: {reason(error)}")
                continue
            self._groups[index.spec.digest] = group
        ordered.sort(key=lambda item: item[0])
        self.indexes = {index.spec.digest: index for _, index in ordered}
        self._starts = {
            digest: np.concatenate([[0], np.cumsum(index.frames)])
            for digest, index in self.indexes.items()
            if index.spec.kind == "sequence"
        }
        self.failures = self._extra("failures", read_failures, {}, tolerant)
        self.merged = self._extra("merged", read_merged, (), tolerant)
        self.curves = self._extra("curves", read_curves, {}, tolerant)
        self.provenance = self._extra("provenance", read_provenance, {}, tolerant)

    def _extra(self, what: str, read: Any, default: Any, tolerant: bool) -> Any:
        try:
            return read(self._pool.get(self.path))
        except DAMAGE as error:
            if not tolerant:
                raise BadCache(
                    f"{self.path}: its {what} are damaged ({reason(error)}): "
                    f"run 'mvemo cache repair {self.path}'"
                ) from None
            self.lost.append(f"{what}: {reason(error)}")
            return default

    def vectors(self, digest: str, rows: Ints) -> F32:
        if not len(rows):
            return np.empty((0, self.indexes[digest].spec.dim), np.float32)
        first, last = int(rows.min()), int(rows.max())
        block: F32 = self._values(digest)[first : last + 1]
        return block[rows - first]

    def sequence(self, digest: str, row: int) -> F32:
        start, stop = self._starts[digest][row : row + 2]
        frames: F32 = self._values(digest)[int(start) : int(stop)].astype("<f4", copy=False)
        return frames

    def _values(self, digest: str) -> Any:
        return self._pool.get(self.path)["features"][self._groups[digest]]["values"]


@dataclass
class _Buffered:
    spec: FeatureSpec
    # Clip id to (key, values, checksum).
    rows: dict[str, tuple[bytes, F32, bytes]] = field(default_factory=dict)


class MemorySource:
    """Source of rows that are put and not yet committed."""

    name = "memory"

    def __init__(self) -> None:
        self.failures: Failures = {}
        self.curves: Curves = {}
        self.provenance: dict[str, Any] = {}
        self.rows = 0
        self.bytes = 0
        self._features: dict[str, _Buffered] = {}
        self._table: ClipTable | None = None
        self._indexes: dict[str, Index] = {}

    def __bool__(self) -> bool:
        return bool(self._features or self.failures or self.curves)

    def put(self, spec: FeatureSpec, clip_id: str, key: bytes, values: F32) -> None:
        """Buffer a row, which replaces an earlier one of the same feature and clip."""
        buffered = self._features.setdefault(spec.digest, _Buffered(spec))
        before = buffered.rows.get(clip_id)
        buffered.rows[clip_id] = (key, values, row_checksum(clip_id, key, values))
        self.rows += before is None
        self.bytes += values.nbytes - (0 if before is None else before[1].nbytes)

    def clips(self) -> set[str]:
        """Return the ids of all clips with a row or a failure."""
        clips = {clip for clip, _ in self.failures}
        for buffered in self._features.values():
            clips.update(buffered.rows)
        return clips

    def freeze(self, table: ClipTable, named: Mapping[str, frozenset[str]]) -> None:
        """Turn the buffer into a `Source` over these clips; no more rows can be put.

        `named` maps spec digests to training clips that an earlier shard has named. Then this shard
        names only those in `table`; otherwise shards would grow with the square of the clips.
        """
        self._table = table
        n = len(table)
        for digest, buffered in self._features.items():
            present: Bools = np.zeros(n, np.bool_)
            checksums = np.zeros((n, CHECKSUM), np.uint8)
            frames = np.zeros(n, np.int64)
            keys = np.zeros(n, f"S{max(64, *(len(r[0]) for r in buffered.rows.values()))}")
            for i, clip in enumerate(table.clip_ids):
                row = buffered.rows.get(clip)
                if row is not None:
                    present[i], keys[i] = True, row[0]
                    checksums[i] = np.frombuffer(row[2], np.uint8)
                    frames[i] = len(row[1]) if buffered.spec.kind == "sequence" else 1
            spec, seen = buffered.spec, named.get(digest, frozenset())
            if seen:
                spec = replace(spec, trained_on=tuple(c for c in table.clip_ids if c in seen))
            self._indexes[digest] = Index(spec, present, keys, checksums, frames, len(seen))

    @property
    def table(self) -> ClipTable:
        assert self._table is not None
        return self._table

    @property
    def indexes(self) -> dict[str, Index]:
        return self._indexes

    def vectors(self, digest: str, rows: Ints) -> F32:
        buffered = self._features[digest].rows
        return np.stack([buffered[self.table.clip_ids[i]][1] for i in rows.tolist()])

    def sequence(self, digest: str, row: int) -> F32:
        return self._features[digest].rows[self.table.clip_ids[row]][1]
