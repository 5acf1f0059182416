"""Plan of a cache file, the sources of its rows, and the only code that writes features.

Commits of the writer (memory to a shard), its closing (file and shards to a new file),
`merge_caches` and `repair_cache` all make a `Plan` and write it with `write_plan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.failures import Failures
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import DAMAGE, FilePool, reason, write_header
from mvemo.cache.storage.index import Index, feature_label, read_index, write_index
from mvemo.cache.storage.layout import (
    CHECKSUM,
    read_curves,
    read_failures,
    read_merged,
    read_provenance,
    read_table,
    row_checksum,
    values_checksum,
    write_extras,
    write_table,
)
from mvemo.cache.storage.plain import attribute, part, write_attribute
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Bools, Curves, Ints
from mvemo.cache.union import PlannedFeature, Rows
from mvemo.cache.writing.checks import check_spec

# Bytes of values that are in memory at a time.
BLOCK = 32 << 20


class Source(Rows, Protocol):
    """Source of feature rows, with their values."""

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
                index, _ = read_index(item, self.table.clip_ids)
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


@dataclass
class Plan:
    """Complete content of a file, and the sources of its values."""

    table: ClipTable  # clips in the order of all rows
    sources: list[Source]  # `PlannedFeature.origin` holds indices of this list
    features: dict[str, PlannedFeature]  # plan by spec digest, the most recent last
    failures: Failures
    curves: Curves
    provenance: dict[str, Any]
    merged: tuple[str, ...] = ()  # names of the shards among the sources

    @property
    def n_bytes(self) -> int:
        """Estimated size of the file, rather too large than too small."""
        n = len(self.table)
        values = 0
        for feature in self.features.values():
            rows = n if feature.spec.kind != "sequence" else int(feature.frames.sum())
            values += np.dtype(feature.spec.dtype).itemsize * feature.spec.dim * rows
        curves = sum(len(s) for curve in self.curves.values() for s in curve.values())
        texts = len(json.dumps(self.provenance, default=str))
        texts += sum(len(reason.text if reason else "") + 300 for reason in self.failures.values())
        texts += sum(len(json.dumps(f.spec.params, default=str)) for f in self.features.values())
        texts += sum(len(c) for f in self.features.values() for c in f.spec.trained_on)
        texts += sum(
            2 * len(c) + len(g) for c, g in zip(self.table.clip_ids, self.table.groups, strict=True)
        )
        # Per clip: keys and checksums of every feature, labels, and overhead of HDF5.
        return values + 4 * texts + n * (160 * len(self.features) + 256) + 32 * curves + (1 << 17)


@dataclass(frozen=True)
class Corrupt:
    """Stored row that does not match its checksum, is not finite or cannot be read."""

    spec: FeatureSpec
    clip_id: str
    source: str

    def __str__(self) -> str:
        return f"{feature_label(self.spec)} of clip {self.clip_id!r} is corrupt in {self.source}"


class CorruptRows(Exception):
    """Error for rows that cannot be copied; nothing usable was written."""

    def __init__(self, digest: str, rows: Ints, corrupt: list[Corrupt]) -> None:
        super().__init__(digest)
        self.digest = digest
        self.rows = rows
        self.corrupt = corrupt


def write_plan(file: h5py.File, plan: Plan) -> None:
    """Write a plan into an empty HDF5 file; raise CorruptRows if rows of a source are damaged."""
    write_header(file)
    write_table(file, plan.table)
    group = file.create_group("features")
    for order, (digest, feature) in enumerate(plan.features.items()):
        name = feature_label(feature.spec)
        # A shard may hold two versions of one feature.
        item = group.create_group(name if name not in group else f"{name}~{digest[:12]}")
        item.attrs["order"] = order
        write = _write_vectors if feature.spec.kind != "sequence" else _write_sequences
        write_attribute(item, "values_checksum", write(item, plan, digest))
        write_index(item, feature.index, plan.table.clip_ids)
    write_extras(file, plan.failures, plan.curves, plan.provenance, plan.merged)


def _write_vectors(item: Any, plan: Plan, digest: str) -> str:
    """Write ``values`` and return their checksum."""
    feature = plan.features[digest]
    n, dim = len(plan.table), feature.spec.dim
    values = item.create_dataset("values", shape=(n, dim), dtype="<f4")
    step = max(1, BLOCK // (4 * dim))
    corrupt: list[int] = []
    checksum = values_checksum()
    for start in range(0, n, step):
        origin = feature.origin[start : start + step]
        block = np.full((len(origin), dim), np.nan, np.float32)
        for number in np.unique(origin[origin >= 0]).tolist():
            places = np.flatnonzero(origin == number)
            source, rows = plan.sources[number], feature.row[start + places]
            try:
                block[places] = source.vectors(digest, rows)
            except DAMAGE:
                block[places] = np.nan
        for i in np.flatnonzero(origin >= 0).tolist():
            if not _sound(plan, feature, start + i, block[i]):
                corrupt.append(start + i)
        values[start : start + len(block)] = block
        checksum.update(block.data.cast("B"))
    _raise_corrupt(plan, digest, corrupt)
    return checksum.hexdigest()


def _write_sequences(item: Any, plan: Plan, digest: str) -> str:
    """Write ``values`` and return their checksum."""
    feature = plan.features[digest]
    total, dim = int(feature.frames.sum()), feature.spec.dim
    values = item.create_dataset("values", shape=(total, dim), dtype=feature.spec.dtype)
    start = 0
    corrupt: list[int] = []
    checksum = values_checksum()
    for i in np.flatnonzero(feature.origin >= 0).tolist():
        frames = int(feature.frames[i])
        try:
            row = plan.sources[feature.origin[i]].sequence(digest, int(feature.row[i]))
        except DAMAGE:
            row = np.empty((0, dim), np.float32)
        if row.shape == (frames, dim) and _sound(plan, feature, i, row):
            values[start : start + frames] = row
            stored = np.ascontiguousarray(row, dtype=feature.spec.dtype)
            checksum.update(stored.data.cast("B"))
        else:
            corrupt.append(i)
        start += frames
    _raise_corrupt(plan, digest, corrupt)
    return checksum.hexdigest()


def _sound(plan: Plan, feature: PlannedFeature, i: int, row: F32) -> bool:
    expected = feature.checksums[i].tobytes()
    key: bytes = feature.keys[i]
    return (
        bool(np.isfinite(row).all())
        and row_checksum(plan.table.clip_ids[i], bytes(key), row) == expected
    )


def _raise_corrupt(plan: Plan, digest: str, rows: Iterable[int]) -> None:
    numbers = np.array(list(rows), dtype=np.int64)
    if not len(numbers):
        return
    feature = plan.features[digest]
    raise CorruptRows(
        digest,
        numbers,
        [
            Corrupt(feature.spec, plan.table.clip_ids[i], plan.sources[int(feature.origin[i])].name)
            for i in numbers.tolist()
        ],
    )
