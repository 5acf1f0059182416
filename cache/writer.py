"""Writer of a cache: rows go to parts, which are merged into the cache at the end.

Every file appears by renaming a complete, flushed file. If a run is killed, the cache therefore
keeps its last closed state, every part is complete, and only uncommitted rows are lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache.cache_file import CacheFile, part_paths
from mvemo.cache.index import Index
from mvemo.cache.parts import locked_cache, part_number, read_parts, remove_parts
from mvemo.cache.rewrite import MemoryRows, newest_failures, newest_plan, rewrite
from mvemo.cache.row_writer import KEPT, LIMITS, PartWriter, StoredRows
from mvemo.cache.spec import FeatureSpec, leaked_rows
from mvemo.cache.table import ClipTable, check_table
from mvemo.cache.union import Plan
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import cause


class CacheWriter(PartWriter):
    """Writer of one cache; a context manager.

    The end of the ``with`` block merges everything into the cache. After an exception (Ctrl-C
    included) it commits the rows so far and does not change the cache; the next writer, or
    ``mvemo cache repair``, merges the parts.

    If the table differs from the cache's, rows follow their clip ids; rows of clips that are not
    in the table are dropped. For each feature name and fold, the spec that was last passed to
    `current` or `put` stays. Incompatible specs (other parameters or another protocol) are dropped,
    and also features of nets that were trained on clips which are now in their test fold.

    Parameters
    ----------
    path
        Path of the cache; its folder must exist.
    table
        All clips of the run.
    provenance
        JSON values, such as command, versions and settings; earlier runs are in ``history``.
    commit_rows, commit_bytes, commit_seconds
        Buffered rows or bytes, or seconds since the last commit, after which `put` commits. If
        `commit_rows` is 0, only `close` writes, and a killed run leaves no rows.

    Raises
    ------
    CacheBusy
        Another writer holds the cache.
    BadCache
        The table is inconsistent, or the cache is damaged or has a newer schema.
    MvemoError
        The folder cannot be written.

    Examples
    --------
    >>> from mvemo.cache import FeatureSpec, open_cache
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> spec = FeatureSpec("mean", "audio", "vector", 2, "example", 1, params={})
    >>> with CacheWriter("features.h5", clips, provenance={"command": "example"}) as writer:
    ...     writer.put(spec, "a", spec.key("digest of a.mp3"), np.array([0.5, 1.5], np.float32))
    ...     writer.fail("b", "decode:audio", "the file is truncated")
    >>> with open_cache("features.h5") as cache:
    ...     cache.vectors("mean")
    (array([[0.5, 1.5], [nan, nan]], dtype=float32), array([ True, False]))
    """

    def __init__(
        self,
        path: Path | str,
        table: ClipTable,
        *,
        provenance: Mapping[str, Any] | None = None,
        commit_rows: int = LIMITS[0],
        commit_bytes: int = LIMITS[1],
        commit_seconds: float = LIMITS[2],
    ) -> None:
        limits = commit_rows, commit_bytes, commit_seconds
        super().__init__(path, table, provenance=provenance, limits=limits)
        self._withdrawn: set[str] = set()
        self._lock = ExitStack()
        self._pool = self._lock.enter_context(locked_cache(self.path))
        try:
            for temp in self._folder.glob("*.tmp"):
                temp.unlink(missing_ok=True)
            exists = self.path.exists()
            self._main = CacheFile(self.path, self._pool).load() if exists else None
            self._parts = read_parts(self.path, self._pool, self._main)
            self._next = 1 + max(map(part_number, part_paths(self.path)), default=-1)
            self._failures = newest_failures(self._sources())
            # The whole table is needed by a repair that finds only parts.
            write_clips(self._folder / "table.h5", table, self.provenance)
        except BaseException as error:
            self._end()
            if isinstance(error, OSError) and not isinstance(error, MvemoError):
                raise MvemoError(f"{self.path}: cannot be written: {cause(error)}") from None
            raise

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Do the same as `PartWriter.current`."""
        current = super().current(spec, keys)
        self.requested.clear()  # only another process needs to know them
        return current

    def stored_rows(self, clip_ids: Iterable[str]) -> StoredRows:
        """Return the stored rows of some clips, for a `PartWriter` of these clips."""
        wanted = frozenset(clip_ids)
        failures = {k: why for k, why in self._failures.items() if k[0] in wanted}
        return StoredRows(_stored_keys(self._sources(), wanted), failures, self._next)

    def take_up(self, parts: Iterable[str]) -> None:
        """Add parts, given by name, that a `PartWriter` committed for this cache."""
        self._check_open()
        for name in parts:
            source = CacheFile(self._folder / name, self._pool).load()
            self._parts.append(source)
            self._next = max(self._next, part_number(source.path) + 1)
            self._failures.update(source.failures)
            new = _stored_keys([source], self._row)
            for digest, known in self._rows.items():
                known.update(new.get(digest, {}))

    def withdraw(self, name: str) -> None:
        """Remove the rows of this run under a feature's name; earlier runs' features are kept.

        Use it if the nets of some folds could not be trained.
        """
        self._check_open()
        digests = {digest for digest, spec in self._specs.items() if spec.name == name}
        self._withdrawn |= digests
        for digest in digests:
            del self._specs[digest]

    def close(self) -> None:
        """Commit, merge the parts into the cache in one step, and release the lock.

        If the cache cannot be written, MvemoError is raised; cache and parts are unchanged.
        """
        if self._closed:
            return
        try:
            if self._sources() and self._limits[0]:
                self.commit()
            try:
                self._merge()
            except MvemoError:
                with suppress(MvemoError):
                    self.commit()
                raise
        finally:
            self._end()

    def _merge(self) -> None:
        """Write the cache from all sources and from memory."""
        sources: list[CacheFile | MemoryRows] = [*self._sources()]
        if self._memory:
            sources.append(self._frozen_memory())
        content = self.table, sources, self._failures, self.provenance
        plan = newest_plan(*content, requested=self._specs, keep=self._is_kept)
        plan.merged = tuple(part.path.name for part in self._parts)
        for corrupt in rewrite(self.path, plan, drop=True, kept=KEPT):
            warnings.warn(f"{corrupt} and was dropped: run again to extract it", stacklevel=2)
        self._pool.close()
        remove_parts(self.path)

    def _is_kept(self, feature: Index) -> bool:
        """Drop rows of replaced media; return True if the feature stays (see the class)."""
        digest = feature.spec.digest
        stale = [self._row[clip] for clip in self._stale.get(digest, ())]
        feature.drop(np.array(stale, np.int64))
        if digest in self._withdrawn or digest in self._specs:
            return digest not in self._withdrawn
        # Nets that saw groups of their test clips, or have no test clips, are dropped.
        leaked = leaked_rows(feature.spec, self.table)
        return leaked is None or (bool(leaked[0]) and not leaked[2])

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            try:
                # The current exception is more important than an error of the commit.
                with suppress(MvemoError):
                    self.commit()
            finally:
                self._end()

    def _end(self) -> None:
        self._closed = True
        if not part_paths(self.path):
            remove_parts(self.path)
        self._lock.close()

    def _stored(self, digest: str) -> dict[str, bytes]:
        return _stored_keys(self._sources(), self._row, digest).get(digest, {})

    def _note_part(self, path: Path) -> None:
        self._parts.append(CacheFile(path, self._pool).load())

    def _sources(self) -> list[CacheFile]:
        """Return the cache, if it exists, and its parts, oldest first."""
        return [*([] if self._main is None else [self._main]), *self._parts]


def _stored_keys(
    sources: Iterable[CacheFile], clips: Container[str], digest: str | None = None
) -> dict[str, dict[str, bytes]]:
    """Map digests of features (or only `digest`) and ids of clips to keys of the newest rows."""
    keys: dict[str, dict[str, bytes]] = {}
    for source in sources:
        ids = source.table.clip_ids
        rows = [i for i, clip in enumerate(ids) if clip in clips]
        for known, index in source.indexes.items():
            if digest in (None, known):
                stored = ((ids[i], bytes(index.keys[i])) for i in rows if index.present[i])
                keys.setdefault(known, {}).update(stored)
    return keys


def write_clips(path: Path, table: ClipTable, provenance: Mapping[str, Any]) -> None:
    """Write a cache without features, which determines all clips and their order for its parts.

    Nothing is locked: processes that write the same clips at the same time write equal files.
    Raise BadCache for an inconsistent table, MvemoError if the file cannot be written.
    """
    check_table(table, str(path))
    rewrite(path, Plan(table, provenance=dict(provenance)))
