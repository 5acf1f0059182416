"""Writer of a cache: rows go to shards, which are merged into the cache at the end.

The rows of a run are buffered, committed to shards in ``<cache>.parts/``, and merged into the
cache by `CacheWriter.close`. Every file appears by renaming a complete, flushed file. So
whenever a run is killed, the cache is as the last `close` left it and every shard is complete.
Only rows that were not committed are lost. The next writer merges the shards.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from mvemo.cache.errors import CacheError
from mvemo.cache.storage.files import LIBVER, FilePool, parts_folder
from mvemo.cache.storage.index import Index
from mvemo.cache.table import ClipTable
from mvemo.cache.union import PlannedFeature, plan_rows
from mvemo.cache.writing.checks import check_table
from mvemo.cache.writing.lock import WriterLock
from mvemo.cache.writing.plan import FileSource, Plan, Source, write_plan
from mvemo.cache.writing.rows import KEPT, RowWriter, StoredRows
from mvemo.cache.writing.rules import (
    joined_history,
    newest_failures,
    remaining_curves,
    resolve,
    saw_its_fold,
)
from mvemo.cache.writing.shards import (
    read_shards,
    remove_shards,
    shard_number,
    shard_paths,
    write_dropping,
    write_file,
)
from mvemo.manifests.files import cause, replacing, to_json_values


class CacheWriter(RowWriter):
    """Writer of one cache; a context manager.

    Leaving the ``with`` block merges everything into the cache. Leaving it by an exception
    (Ctrl-C included) commits the rows so far and does not change the cache; the next writer, or
    ``mvemo cache repair``, merges the shards.

    If the table differs from the cache's, rows follow their clip ids, and rows of clips that are
    no longer in the table are dropped. For each feature name and fold, the spec that was last
    passed to `current` or `put` stays. Specs that are not compatible with it (other parameters
    or another protocol) are dropped, and so are nets that saw clips which are now in their fold.

    Parameters
    ----------
    path
        Path of the cache; its folder must exist.
    table
        All clips of the run.
    provenance
        JSON values: command, versions, settings, seeds. The provenance of earlier runs is kept
        under ``history``.
    commit_rows, commit_bytes, commit_seconds
        Number of buffered rows or bytes, or seconds since the last commit, after which `put`
        commits. They limit the memory, and the loss if the process is killed.

    Raises
    ------
    CacheBusy
        Another writer holds the cache.
    BadCache
        The table is inconsistent, or the cache is damaged or has a newer schema.
    CacheError
        The folder cannot be written.

    See Also
    --------
    open_cache : Read a cache.
    import_feature : Write an array as a feature.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.cache import FeatureSpec, open_cache
    >>> path = Path(tempfile.mkdtemp()) / "features.h5"
    >>> clips = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> spec = FeatureSpec("mean", "audio", "vector", 2, "example", 1, params={})
    >>> with CacheWriter(path, clips, provenance={"command": "example"}) as writer:
    ...     writer.put(spec, "a", spec.key("digest of a.mp3"), np.array([0.5, 1.5], np.float32))
    ...     writer.fail("b", "decode:audio", "the file is truncated")
    >>> with open_cache(path) as cache:
    ...     cache.vectors("mean")
    (array([[0.5, 1.5], [nan, nan]], dtype=float32), array([ True, False]))
    """

    def __init__(
        self,
        path: Path | str,
        table: ClipTable,
        *,
        provenance: Mapping[str, Any] | None = None,
        commit_rows: int = 1024,
        commit_bytes: int = 64 << 20,
        commit_seconds: float = 60.0,
    ) -> None:
        super().__init__(path, table, provenance, (commit_rows, commit_bytes, commit_seconds))
        self._withdrawn: set[str] = set()
        self._pool = FilePool()
        self._lock = WriterLock(self.path)
        try:
            for temp in self._parts.glob("*.tmp"):
                temp.unlink(missing_ok=True)
            self._main = FileSource(self.path, self._pool) if self.path.exists() else None
            self._shards = read_shards(self._parts, self._pool, self._main)
            self._next = 1 + max(map(shard_number, shard_paths(self._parts)), default=-1)
            self._failures = newest_failures(self._sources())
            self._write_opening()
        except BaseException as error:
            self._end()
            if isinstance(error, OSError) and not isinstance(error, CacheError):
                raise CacheError(f"{self.path}: cannot be written: {cause(error)}") from None
            raise

    # --- rows of other processes

    def stored_rows(self, clip_ids: Iterable[str]) -> StoredRows:
        """Return the stored rows of some clips, for a `PartWriter` of them."""
        wanted = frozenset(clip_ids)
        keys: dict[str, dict[str, bytes]] = {}
        for source in self._sources():
            rows = [i for i, clip in enumerate(source.table.clip_ids) if clip in wanted]
            for digest, index in source.indexes.items():
                found = keys.setdefault(digest, {})
                found.update(
                    (source.table.clip_ids[i], bytes(index.keys[i]))
                    for i in rows
                    if index.present[i]
                )
        failures = {k: why for k, why in self._failures.items() if k[0] in wanted}
        return StoredRows(keys, failures, self._next)

    def take_up(self, shards: Iterable[str]) -> None:
        """Add shards that `PartWriter` committed to this cache, by their names.

        Raises
        ------
        MissingCache
            A shard does not exist.
        BadCache
            A shard is damaged.
        """
        self._check_open()
        for name in shards:
            source = FileSource(self._parts / name, self._pool)
            self._shards.append(source)
            self._next = max(self._next, shard_number(source.path) + 1)
            self._failures.update(source.failures)
            for digest, index in source.indexes.items():
                known = self._rows.get(digest)
                if known is not None:
                    known.update(_keys_of(source, index, self._clips))

    def withdraw(self, name: str) -> None:
        """Remove the rows of this run under a feature's name from the result.

        It is used if nets of some folds could not be trained, because the feature could then not be
        evaluated. Features that earlier runs finished under the name are kept.
        """
        self._check_open()
        digests = {digest for digest, spec in self._requested.items() if spec.name == name}
        self._withdrawn |= digests
        for digest in digests:
            del self._requested[digest]

    # --- to the disk

    def close(self) -> None:
        """Commit, merge the shards into the cache in one step, and release the lock.

        Raises
        ------
        CacheError
            The cache cannot be written. Cache and shards are unchanged; the lock is released.
        """
        if self._closed:
            return
        try:
            if self._sources():
                self.commit()
            try:
                self._merge()
            except CacheError:
                with suppress(CacheError):
                    self.commit()
                raise
        finally:
            self._end()

    def _merge(self) -> None:
        """Write the cache from all sources, or from memory if nothing else exists."""
        sources: list[Source] = self._sources()
        if self._memory:
            sources = [self._frozen_memory()]
        plan = Plan(
            self.table,
            sources,
            self._features(sources),
            {
                (clip, stage): why
                for (clip, stage), why in self._failures.items()
                if clip in self._clips and why is not None
            },
            {},
            joined_history(dict(to_json_values(self.provenance)), sources),
            merged=tuple(shard.path.name for shard in self._shards),
        )
        plan.curves = remaining_curves(sources, plan.features)
        for corrupt in write_dropping(self.path, plan, self._parts / "merged.tmp", kept=KEPT):
            warnings.warn(f"{corrupt}: dropped; run again to extract it", stacklevel=2)
        self._pool.close()
        remove_shards(self._parts)

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            try:
                # The current exception matters more than one of the commit.
                with suppress(CacheError):
                    self.commit()
            finally:
                self._end()

    def _end(self) -> None:
        self._closed = True
        self._pool.close()
        if not shard_paths(parts_folder(self.path)):
            remove_shards(parts_folder(self.path))
        self._lock.release()

    def _write_opening(self) -> None:
        # The whole table, for a repair that finds only shards.
        plan = Plan(self.table, [], {}, {}, {}, dict(to_json_values(self.provenance)))
        path = self._parts / "table.h5"
        write_file(path, plan, path.with_suffix(".tmp"))

    def _stored(self, digest: str) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        for source in self._sources():
            if digest in source.indexes:
                known.update(_keys_of(source, source.indexes[digest], self._clips))
        return known

    def _note_shard(self, path: Path) -> None:
        self._shards.append(FileSource(path, self._pool))

    def _sources(self) -> list[Source]:
        """Return the cache, if it exists, and its shards, oldest first."""
        return [*([] if self._main is None else [self._main]), *self._shards]

    def _features(self, sources: Sequence[Source]) -> dict[str, PlannedFeature]:
        """Return the features that stay, by the rules in the class docstring."""
        planned = plan_rows(self.table, sources)
        row = {clip: i for i, clip in enumerate(self.table.clip_ids)}
        for digest in list(planned):
            feature = planned[digest]
            stale = [row[c] for c in self._stale.get(digest, ())]
            feature.drop(np.array(stale, dtype=np.int64))
            if (
                digest in self._withdrawn
                or not (feature.origin >= 0).any()
                or (digest not in self._requested and saw_its_fold(feature.spec, self.table))
            ):
                del planned[digest]
        return resolve(planned, self._requested)


def _keys_of(source: Source, index: Index, clips: Container[str]) -> dict[str, bytes]:
    """Map the ids of clips to the keys of their rows in a source."""
    ids = source.table.clip_ids
    found = ((ids[i], bytes(index.keys[i])) for i in np.flatnonzero(index.present).tolist())
    return {clip: key for clip, key in found if clip in clips}


def write_clips(path: Path, table: ClipTable, provenance: Mapping[str, Any]) -> None:
    """Write a cache without features, which fixes all clips and their order for its shards.

    Nothing is locked: processes that write the same clips at the same time write equal files.

    Raises
    ------
    BadCache
        The table is inconsistent.
    CacheError
        The file cannot be written.
    """
    check_table(table, str(path))
    with (
        replacing(path, error=CacheError) as temp,
        h5py.File(temp, "w", libver=LIBVER, locking=False) as file,
    ):
        write_plan(file, Plan(table, [], {}, {}, {}, dict(to_json_values(provenance))))
