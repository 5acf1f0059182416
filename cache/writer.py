"""The one writer: rows go to shards, and at the end into the one file.

A run's rows are buffered, committed to shards in ``<cache>.parts/``, and merged into the
cache by `CacheWriter.close`. Every file appears by renaming a complete, flushed one. So at
whatever moment a run is killed, the cache is as the last `close` left it, every shard is
whole, and only what was not committed is lost; the next writer merges the shards.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mvemo.cache.errors import BadCache, CacheError
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.layout import feature_label, subset
from mvemo.cache.storage.opening import parts_folder
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Reason
from mvemo.cache.writing.checks import check_spec, check_table, check_text, checked_values
from mvemo.cache.writing.lock import WriterLock
from mvemo.cache.writing.plan import Plan, PlannedFeature, plan_rows
from mvemo.cache.writing.rules import (
    corrupt_stage,
    joined_history,
    newest_failures,
    reason_now,
    remaining_curves,
    resolve,
    saw_its_fold,
)
from mvemo.cache.writing.shards import (
    new_shard_path,
    read_shards,
    remove_shards,
    shard_number,
    shard_paths,
    write_dropping,
    write_file,
)
from mvemo.cache.writing.sources import FilePool, FileSource, MemorySource, Source
from mvemo.manifests.files import cause, to_json_values

# The end of the message of a full disk.
KEPT = "; all that was committed before is kept: make room and run the same command again"


class CacheWriter:
    """Writes one cache; a context manager.

    Leaving the ``with`` block merges everything into the cache. Leaving it by an exception
    (Ctrl-C, too) commits what was put and leaves the cache as it was: the next writer, or
    ``mvemo cache repair``, merges the shards.

    When the table differs from the cache's, rows follow their clip ids; rows of clips that
    are no longer in it are dropped. Of each feature name and fold the spec that `current` or
    `put` last had stays, and those that are not compatible with it (other parameters or
    another protocol) are dropped. So are the nets of earlier folds that saw clips which are
    now in their fold.

    Parameters
    ----------
    path
        The cache; its folder must exist.
    table
        All clips of the run.
    provenance
        JSON values: command, versions, settings, seeds. That of earlier runs is kept under
        ``history``.
    commit_rows, commit_bytes, commit_seconds
        A `put` commits when this many rows or bytes are buffered, or the last commit is
        this long ago. Bounds the memory, and what a kill can cost.

    Raises
    ------
    CacheBusy
        Another writer holds the cache.
    BadCache
        The table is inconsistent, or the cache is damaged or of a newer schema.
    CacheError
        The folder cannot be written.

    See Also
    --------
    open_cache : Reads a cache.
    import_feature : Writes an array as a feature.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.cache import open_cache
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
        self.path = Path(path)
        check_table(table, str(self.path))
        self.table = table
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._limits = (commit_rows, commit_bytes, commit_seconds)
        self._clips = frozenset(table.clip_ids)
        self._memory = MemorySource()
        self._rows: dict[str, dict[str, bytes]] = {}
        self._stale: dict[str, set[str]] = {}
        # The features that this run requests, the most recent last.
        self._requested: dict[str, FeatureSpec] = {}
        self._withdrawn: set[str] = set()
        self._closed = False
        self._committed = time.monotonic()
        self._pool = FilePool()
        self._lock = WriterLock(self.path)
        try:
            self._parts = parts_folder(self.path)
            for temp in self._parts.glob("*.tmp"):
                temp.unlink(missing_ok=True)
            self._main = FileSource(self.path, self._pool) if self.path.exists() else None
            merged = () if self._main is None else self._main.merged
            self._shards = read_shards(self._parts, self._pool, merged)
            self._next = 1 + max(map(shard_number, shard_paths(self._parts)), default=-1)
            self._failures = newest_failures(self._sources())
            self._write_opening()
        except BaseException as error:
            self._end()
            if isinstance(error, OSError) and not isinstance(error, CacheError):
                raise CacheError(f"{self.path}: cannot be written: {cause(error)}") from None
            raise

    # --- what is stored

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Ids of the clips whose stored row is up to date; all others have to be extracted.

        Parameters
        ----------
        spec
            The feature.
        keys
            Clip id to `FeatureSpec.key` of its media as they are now. A stored row of one of
            these clips under another key is of media since replaced: `close` drops it,
            unless it was put again.
        """
        known = self._known(spec)
        stale = {c for c, key in keys.items() if c in known and known[c] != key.encode()}
        self._stale.setdefault(spec.digest, set()).update(stale)
        return frozenset(c for c, key in keys.items() if known.get(c) == key.encode())

    @property
    def failures(self) -> tuple[tuple[str, str, str], ...]:
        """(clip id, stage, reason) of each failure of the table's clips, sorted."""
        known = ((c, s, why) for (c, s), why in self._failures.items() if c in self._clips)
        return tuple(sorted((c, s, why.text) for c, s, why in known if why is not None))

    # --- what is new

    def put(self, spec: FeatureSpec, clip_id: str, key: str, array: F32) -> None:
        """Buffer one clip's values; durable after the next commit.

        Parameters
        ----------
        spec
            The feature.
        clip_id
            A clip of the table.
        key
            `FeatureSpec.key` of the clip's media.
        array
            float32 (dim,) of a vector, (frames, dim) of a sequence, frames above 0. Copied.

        Raises
        ------
        BadCache
            Unknown clip, wrong type or shape, NaN or infinity.
        CacheError
            A commit that was due failed; the rows stay buffered.
        """
        self._check_open()
        where = f"{self.path}: {feature_label(spec)} of clip {clip_id!r}"
        if clip_id not in self._clips:
            raise BadCache(f"{where}: the table has no such clip")
        known = self._known(spec)
        values = checked_values(spec, array, where)
        if not key or not key.isascii() or not key.isprintable():
            raise BadCache(f"{where}: key {key!r} is none: give FeatureSpec.key(...)")
        self._memory.put(spec, clip_id, key.encode("ascii"), values)
        known[clip_id] = key.encode("ascii")
        self._stale.get(spec.digest, set()).discard(clip_id)
        self.clear_failures(clip_id, corrupt_stage(spec))
        rows, size, seconds = self._limits
        if (
            self._memory.rows >= rows
            or self._memory.bytes >= size
            or time.monotonic() - self._committed >= seconds
        ):
            self.commit()

    def fail(self, clip_id: str, stage: str, reason: str) -> None:
        """Keep a failure, in place of an earlier one of the same clip and stage.

        It keeps this moment and mvemo's version; those of an earlier failure for the same
        reason under the same version stay.

        Parameters
        ----------
        clip_id
            A clip of the table.
        stage
            What failed, ``decode:audio`` or ``embed:c3d``.
        reason
            Why, in one line.
        """
        self._check_open()
        if clip_id not in self._clips:
            raise BadCache(f"{self.path}: failure of clip {clip_id!r}: the table has no such clip")
        text = " ".join(reason.replace("\0", " ").split()) or "no reason given"
        check_text(stage, str(self.path))
        # A reason may quote bytes of a broken file's name or tags.
        new = reason_now(text.encode("utf-8", "replace").decode())
        earlier = self._failures.get((clip_id, stage))
        if earlier is None or replace(earlier, time=new.time) != new:
            self._set_failure(clip_id, stage, new)

    def clear_failures(self, clip_id: str, stage: str | None = None) -> None:
        """Forget a clip's failures: that of one stage, or all; to be called on success."""
        self._check_open()
        stages = [s for c, s in self._failures if c == clip_id] if stage is None else [stage]
        for known in stages:
            if self._failures.get((clip_id, known)) is not None:
                self._set_failure(clip_id, known, None)

    def curve(self, name: str, values: Mapping[str, Sequence[float]]) -> None:
        """Keep a training curve, ``music1d@fold0``, in place of an earlier one of its name.

        Parameters
        ----------
        name
            Feature name, ``@`` and which net.
        values
            Series of equal length: ``epoch``, ``train_loss``, ``val_loss``, ``val_accuracy``;
            and others, as by iteration.
        """
        self._check_open()
        self._memory.curves[name] = {k: [float(v) for v in s] for k, s in values.items()}

    def withdraw(self, name: str) -> None:
        """Leave out of the cache what this run has put or requested under a feature's name.

        For nets of which not all could be trained: with nets of some folds alone, the feature
        could not be evaluated. What earlier runs finished under the name stays.
        """
        self._check_open()
        digests = {digest for digest, spec in self._requested.items() if spec.name == name}
        self._withdrawn |= digests
        for digest in digests:
            del self._requested[digest]

    # --- to the disk

    def commit(self) -> None:
        """Make everything put so far durable, as one shard.

        Raises
        ------
        CacheError
            It cannot be written; nothing is lost, the rows stay buffered.
        """
        self._check_open()
        if self._memory:
            memory = self._memory
            clips = memory.clips()
            rows = [i for i, clip in enumerate(self.table.clip_ids) if clip in clips]
            memory.freeze(subset(self.table, rows))
            plan = Plan(
                memory.table,
                [memory],
                plan_rows(memory.table, [memory]),
                memory.failures,
                memory.curves,
                dict(to_json_values(self.provenance)),
            )
            path = new_shard_path(self._parts, self._next)
            write_file(path, plan, path.with_suffix(".tmp"), kept=KEPT)
            self._next += 1
            self._shards.append(FileSource(path, self._pool))
            self._memory = MemorySource()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit, merge the shards into the cache in one step, and release the lock.

        Raises
        ------
        CacheError
            It cannot be written: cache and shards are as they were, the lock is released.
        """
        if self._closed:
            return
        try:
            self.commit()
            sources = self._sources()
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
        finally:
            self._end()

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
                # The exception under way matters more than one of the commit.
                with suppress(CacheError):
                    self.commit()
            finally:
                self._end()

    def _check_open(self) -> None:
        if self._closed:
            raise BadCache(f"{self.path}: this writer is closed: open another")

    def _end(self) -> None:
        self._closed = True
        self._pool.close()
        if not shard_paths(parts_folder(self.path)):
            remove_shards(parts_folder(self.path))
        self._lock.release()

    def _write_opening(self) -> None:
        # The whole table, for a repair that finds nothing but shards.
        plan = Plan(self.table, [], {}, {}, {}, dict(to_json_values(self.provenance)))
        path = self._parts / "table.h5"
        write_file(path, plan, path.with_suffix(".tmp"))

    def _sources(self) -> list[Source]:
        """The cache, if it exists, and its shards, oldest first."""
        return [*([] if self._main is None else [self._main]), *self._shards]

    def _known(self, spec: FeatureSpec) -> dict[str, bytes]:
        """Clip id to key of a feature's rows; notes that this run requests the feature."""
        digest = spec.digest
        if not self._requested or next(reversed(self._requested)) != digest:
            if digest not in self._requested:
                check_spec(spec, str(self.path))
            self._requested.pop(digest, None)
            self._requested[digest] = spec
        known = self._rows.get(digest)
        if known is None:
            known = self._rows[digest] = {}
            for source in self._sources():
                index = source.indexes.get(digest)
                if index is None:
                    continue
                for i in np.flatnonzero(index.present).tolist():
                    clip = source.table.clip_ids[i]
                    if clip in self._clips:
                        known[clip] = bytes(index.keys[i])
        return known

    def _set_failure(self, clip_id: str, stage: str, reason: Reason | None) -> None:
        self._memory.failures[clip_id, stage] = self._failures[clip_id, stage] = reason

    def _features(self, sources: Sequence[Source]) -> dict[str, PlannedFeature]:
        """The features that stay, by the rules in the docstring of the class."""
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
