"""Plan of a cache file, and the only code that writes features.

Commits of the writer (memory to a shard), its closing (file and shards to a new file),
`merge_caches` and `repair_cache` all make a `Plan` and write it with `write_plan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import DAMAGE, write_header
from mvemo.cache.storage.index import feature_label, write_index
from mvemo.cache.storage.layout import row_checksum, values_checksum, write_extras, write_table
from mvemo.cache.storage.plain import write_attribute
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Curves, Failures, Ints
from mvemo.cache.union import PlannedFeature
from mvemo.cache.writing.sources import Source

# Bytes of values that are in memory at a time.
BLOCK = 32 << 20


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
