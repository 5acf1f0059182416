"""Plan of a cache file, the sources of its rows, and the only code that writes features.

Commits of the writer (memory to a part), its `close` (file and parts to a new file), merging,
slim copies, removals and repairs all create a `Plan` and write it with `rewrite`.
"""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from mvemo.cache import schema
from mvemo.cache.cache_file import CacheFile, RunningChecksum, parts_folder
from mvemo.cache.errors import BadCache
from mvemo.cache.index import Index, finite_rows, write_index
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.table import ClipTable, Curves, Failure, Failures
from mvemo.cache.union import Plan, in_order, plan_rows
from mvemo.cache.untrusted import write_attribute
from mvemo.manifests.array_files import DAMAGED
from mvemo.manifests.array_types import F32, Ints
from mvemo.manifests.files import replacing

# Maximum number of bytes of values in memory at a time.
BLOCK = 4 << 20
# Number of earlier runs whose provenance is kept under "history".
HISTORY = 20


class MemoryRows:
    """Uncommitted rows in memory; after `freeze`, they are a source like `CacheFile`."""

    name = "memory"
    table: ClipTable

    def __init__(self) -> None:
        self.failures: Failures = {}
        self.curves: Curves = {}
        self.provenance: dict[str, Any] = {}
        self.indexes: dict[str, Index] = {}
        self.n_rows: int = 0
        self.n_bytes: int = 0
        self._specs: dict[str, FeatureSpec] = {}
        # Spec digest -> clip id -> (key, values, checksum).
        self._rows: dict[str, dict[str, tuple[bytes, F32, bytes]]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows or self.failures or self.curves)

    def put(self, spec: FeatureSpec, clip_id: str, key: bytes, values: F32) -> None:
        """Buffer a row, which replaces an earlier one of the same feature and clip."""
        self._specs.setdefault(spec.digest, spec)
        rows = self._rows.setdefault(spec.digest, {})
        before = rows.get(clip_id)
        rows[clip_id] = (key, values, schema.row_checksum(clip_id, key, values))
        self.n_rows += before is None
        self.n_bytes += values.nbytes - (0 if before is None else before[1].nbytes)

    def clips(self) -> set[str]:
        """Return the ids of all clips with a row or a failure."""
        return {clip for clip, _ in self.failures}.union(*self._rows.values())

    def freeze(self, table: ClipTable, named: Mapping[str, frozenset[str]]) -> None:
        """Create the indexes for the clips of `table`; afterwards, no rows can be added.

        `named` has the training clips, by spec digest, that earlier parts name.
        """
        self.table = table
        for digest, stored in self._rows.items():
            spec, seen = self._specs[digest], named.get(digest, frozenset())
            rows = np.array([i for i, c in enumerate(table.clip_ids) if c in stored], np.int64)
            keys, values, checksums = zip(*(stored[table.clip_ids[i]] for i in rows), strict=True)
            index = Index.empty(spec, len(table))
            index.present[rows], index.keys[rows] = True, keys
            joined = np.frombuffer(b"".join(checksums), np.uint8)
            index.checksums[rows] = joined.reshape(len(rows), -1)
            index.frames[rows] = [*map(len, values)] if spec.kind == "sequence" else 1
            index.origin[rows], index.row[rows] = 0, rows
            # Training clips that an earlier part names are named again only if they are in
            # `table`; otherwise the size of all parts would grow with the square of the clips.
            if seen:
                spec = replace(spec, trained_on=tuple(c for c in table.clip_ids if c in seen))
            self.indexes[digest] = replace(index, spec=spec, n_trained_on=len(seen))

    def is_whole(self, digest: str) -> bool:
        """Return True: `put` has computed the checksums from these values."""
        return digest in self._rows

    def fill(self, block: F32, digest: str, rows: Ints) -> None:
        """Fill `block`, float32 (rows or frames, dim), with the values of these rows."""
        stored = self._rows[digest]
        values = [stored[self.table.clip_ids[i]][1] for i in rows]
        np.concatenate(values, axis=None, out=block.reshape(-1))


Source = CacheFile | MemoryRows


def _size(plan: Plan) -> int:
    """Return the estimated size of a planned file, rather too large than too small."""
    n, indexes = len(plan.table), plan.features.values()
    values = sum(
        np.dtype(index.spec.dtype).itemsize * index.spec.dim * int(index.bounds[-1])
        for index in indexes
    )
    trained_on = [index.spec.trained_on for index in indexes]
    # Texts of one list have the width of the longest, and a character has at most four bytes.
    lists = (plan.table.clip_ids, plan.table.groups, plan.table.classes, *trained_on)
    texts = sum(4 * len(texts) * max(map(len, texts), default=0) for texts in lists)
    records = (plan.failures, plan.curves, plan.provenance, [index.spec for index in indexes])
    # Per clip: keys and checksums of every feature, labels, and overhead of HDF5.
    clips = n * (160 * len(indexes) + 256)
    return values + clips + texts + 4 * len(repr(records)) + (1 << 17)


def rewrite(target: Path, plan: Plan, *, drop: bool = False, kept: str = "") -> list[str]:
    """Write a plan to a file atomically, and check every row.

    Corrupt rows raise BadCache; with `drop`, they are dropped, and a sentence each is returned.
    `kept` ends the message for a file that cannot be written.
    """
    dropped: list[str] = []
    ids = plan.table.clip_ids
    # If the target is locked, the next writer finds what a killed one left in its folder.
    folder = parts_folder(target)
    temp = folder / "merged.tmp" if folder.is_dir() else None
    with replacing(target, temp, kept=kept) as temp:
        while True:
            require_room(temp, _size(plan))
            with h5py.File(temp, "w", libver=schema.LIBVER, locking=False) as file:
                corrupt = _write_plan(file, plan)
            if not corrupt:
                return dropped
            damaged = [str(plan.sources[f.origin[i]].name) for f, i in corrupt]
            sentences = [
                f"{feature.spec.label} of clip {ids[i]!r} is corrupt in {name}"
                for (feature, i), name in zip(corrupt, damaged, strict=True)
            ]
            if not drop:
                more = f" (and {len(corrupt) - 1} more rows)" if len(corrupt) > 1 else ""
                cure = f"run 'mvemo cache repair {damaged[0]}'"
                raise BadCache(f"{target}: {sentences[0]}{more}: {cure}")
            dropped += sentences
            why = "the stored values did not match their checksum and were dropped"
            for feature, i in corrupt:
                feature.drop(i)
                at = ids[i], corrupt_stage(feature.spec)
                plan.failures[at] = failure_now(*at, why)


def require_room(path: Path, n_bytes: int) -> None:
    """Raise OSError if a file of this size cannot be written."""
    # HDF5 cannot handle a full disk: it aborts the process at exit if data is unwritten.
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and limit < n_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _write_plan(file: h5py.File, plan: Plan) -> list[tuple[Index, int]]:
    """Write a plan into an empty HDF5 file; return the corrupt rows: feature, and number."""
    write_attribute(file, "format", schema.FORMAT)
    file.attrs["schema"] = schema.SCHEMA
    write_attribute(file, "mvemo", schema.code_version())
    schema.write_table(file, plan.table)
    group = file.create_group("features")
    damaged: list[tuple[Index, int]] = []
    for order, (digest, feature) in enumerate(plan.features.items()):
        name = feature.spec.label
        # A part may hold two versions of one feature.
        item = group.create_group(name if name not in group else f"{name}~{digest[:12]}")
        item.attrs["order"] = order
        checksum, corrupt = _write_values(item, plan, feature)
        damaged += [(feature, i) for i in corrupt]
        if not damaged:
            write_attribute(item, "values_checksum", checksum)
            write_index(item, feature, plan.table.clip_ids)
    failures = [astuple(why) if why else at for at, why in plan.failures.items()]
    schema.write_json(file, "failures", sorted(failures))
    schema.write_json(file, "curves", plan.curves)
    schema.write_json(file, "provenance", plan.provenance)
    schema.write_texts(file, "merged", plan.merged)
    return damaged


def _write_values(item: Any, plan: Plan, feature: Index) -> tuple[str, list[int]]:
    """Write ``values``; return their checksum, and the corrupt rows."""
    spec, bounds, ids = feature.spec, feature.bounds, plan.table.clip_ids
    shape = (int(bounds[-1]), spec.dim)
    values = item.create_dataset("values", shape=shape, dtype=spec.dtype)
    # The checksum of a whole source is faster than those of its rows, unless few are needed.
    used = np.bincount(feature.origin[feature.origin >= 0], minlength=len(plan.sources))
    whole = {n for n, source in enumerate(plan.sources) if used[n] > len(source.table) // 8}
    sources = [
        RunningChecksum(source, spec.digest)
        if number in whole and isinstance(source, CacheFile)
        else source
        for number, source in enumerate(plan.sources)
    ]

    def is_corrupt(i: int, block: F32, first: int) -> bool:
        row = block[bounds[i] - first : bounds[i + 1] - first]
        return not np.isfinite(row).all() or not feature.fits(i, ids[i], row)

    checksum, spans = xxhash.xxh3_128(), list(_spans(feature))
    longest = max((int(bounds[stop] - bounds[start]) for start, stop in spans), default=0)
    buffer = np.empty((longest, spec.dim), np.float32)
    for start, stop in spans:
        block = buffer[: bounds[stop] - bounds[start]]
        _read_block(sources, feature, start, stop, block)
        present = feature.origin[start:stop] >= 0
        finite = finite_rows(block) == (spec.kind == "sequence" or present)
        # One row shows that the rows of the block belong to their clips.
        rows = start + np.flatnonzero(present)[:1]
        if not finite.all() or any(is_corrupt(i, block, bounds[start]) for i in rows.tolist()):
            whole.difference_update(feature.origin[start:stop].tolist())
        stored = block.astype(spec.dtype, copy=False)
        values[bounds[start] : bounds[stop]] = stored
        checksum.update(stored.data)
    whole = {number for number in whole if sources[number].is_whole(spec.digest)}
    unsure = ~np.isin(feature.origin, [-1, *whole])
    corrupt: list[int] = []
    for start, stop in spans:
        rows = start + np.flatnonzero(unsure[start:stop])
        if len(rows):
            # What was written is checked, because reading a source again may give other values.
            block = values[bounds[start] : bounds[stop]].astype(np.float32)
            corrupt += [i for i in rows.tolist() if is_corrupt(i, block, bounds[start])]
    return checksum.hexdigest(), corrupt


def _spans(feature: Index) -> Iterator[tuple[int, int]]:
    """Yield first clip and end of blocks of clips, which have at most `BLOCK` bytes or one clip."""
    bounds, start, stop = feature.bounds, 0, 0
    while stop < len(bounds) - 1:
        most = bounds[start] + max(1, BLOCK // (4 * feature.spec.dim))
        stop = max(start + 1, int(np.searchsorted(bounds, most, "right")) - 1)
        yield start, stop
        start = stop


def _read_block(
    sources: Sequence[Source | RunningChecksum], feature: Index, start: int, stop: int, block: F32
) -> None:
    """Fill `block` with clips `start` to `stop`; NaN for missing and unreadable vectors."""
    origin, row = feature.origin[start:stop], feature.row[start:stop]
    bounds = feature.bounds[start : stop + 1] - feature.bounds[start]
    # Clips to read in one step: sequences must be next to each other in their source.
    groups = [np.flatnonzero(origin == number) for number in np.unique(origin)]
    if feature.spec.kind == "sequence":
        breaks = 1 + np.flatnonzero((np.diff(origin) != 0) | (np.diff(row) != 1))
        groups = np.split(np.arange(stop - start), breaks)

    if (origin < 0).any():
        block[:] = np.nan
    groups = [clips for clips in reversed(groups) if origin[clips[0]] >= 0]
    while groups:
        clips = groups.pop()
        adjacent = clips[-1] - clips[0] == len(clips) - 1
        rows = slice(bounds[clips[0]], bounds[clips[-1] + 1])
        read = block[rows] if adjacent else np.empty((len(clips), feature.spec.dim), np.float32)
        try:
            sources[origin[clips[0]]].fill(read, feature.spec.digest, row[clips])
        except DAMAGED:
            read[:] = np.nan
            # Other clips of the group may be readable.
            groups += np.array_split(clips, len(clips))[::-1] if len(clips) > 1 else []
        if not adjacent:
            block[clips] = read


def corrupt_stage(spec: FeatureSpec) -> str:
    """Return the stage of failures for corrupt rows; a new `put` clears these failures."""
    return f"cache:{spec.label}"


def failure_now(clip_id: str, stage: str, reason: str) -> Failure:
    """Return a failure with the current time and version of mvemo."""
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Failure(clip_id, stage, reason, moment, schema.code_version())


def newest_plan(
    table: ClipTable,
    sources: Sequence[Source],
    failures: Failures,
    provenance: Mapping[str, Any],
    *,
    requested: Mapping[str, FeatureSpec] | None = None,  # by digest, the most recent last
    keep: Callable[[Index], bool] = lambda feature: True,  # may drop rows; False drops all
) -> Plan:
    """Plan a file with the newest version of each row; sources are oldest first."""
    requested = requested or {}
    features = {digest: f for digest, f in plan_rows(table, sources).items() if keep(f)}
    features = {digest: f for digest, f in features.items() if (f.origin >= 0).any()}
    specs = {d: f.spec for d, f in features.items() if d not in requested} | dict(requested)
    # For each name and fold, the most recent spec and compatible specs stay. Requested specs
    # replace others even without rows: old values must not replace values that failed.
    kept: dict[str, FeatureSpec] = {}
    for digest in reversed(specs):
        spec = specs[digest]
        if all(spec.goes_with(other) for other in kept.values() if other.name == spec.name):
            kept[digest] = spec
    features = in_order({d: features[d] for d in kept if d in features})
    clips = frozenset(table.clip_ids)
    failures = {at: why for at, why in failures.items() if why and at[0] in clips}
    curves = _remaining_curves(sources, features)
    return Plan(table, sources, features, failures, curves, _joined_history(provenance, sources))


def newest_failures(sources: Sequence[Source]) -> Failures:
    """Return the newest failure of each clip and stage; sources are oldest first."""
    newest: Failures = {}
    for source in sources:
        newest.update(source.failures)
    return newest


def curve_names(spec: FeatureSpec) -> set[str]:
    """Return the names of the training curves of a feature's net."""
    if spec.fold is not None:
        return {spec.label}
    return {spec.name, f"{spec.name}@all", f"{spec.name}@holdout"}


def _remaining_curves(sources: Sequence[Source], features: Mapping[str, Index]) -> Curves:
    """Return all curves except those of nets whose features were replaced."""
    live = {name for feature in features.values() for name in curve_names(feature.spec)}
    dropped: set[str] = set()
    curves: Curves = {}
    for source in sources:
        curves.update(source.curves)
        for digest, index in source.indexes.items():
            if digest not in features:
                dropped |= curve_names(index.spec)
    return {name: curve for name, curve in curves.items() if name not in dropped - live}


def _joined_history(facts: Mapping[str, Any], earlier: Sequence[Source]) -> dict[str, Any]:
    """Return provenance, with the provenance of earlier runs under ``history``, newest first."""
    runs: dict[str, dict[str, Any]] = {}
    for record in (facts, *(source.provenance for source in reversed(earlier))):
        latest = {k: v for k, v in record.items() if k != "history"}
        for run in (latest, *record.get("history", [])):
            if run:
                runs.setdefault(schema.to_json(run), run)
    current, *history = runs.values() or [{}]
    return {**current, "history": history[:HISTORY]} if history else current
