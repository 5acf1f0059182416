"""Repair of damaged caches, and detection and recovery of an unfinished run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.files import FilePool, parts_folder
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Curves
from mvemo.cache.union import plan_rows
from mvemo.cache.verify import verify_cache
from mvemo.cache.writing.lock import locked_files
from mvemo.cache.writing.plan import FileSource, Plan
from mvemo.cache.writing.rules import joined_history, newest_failures, resolve
from mvemo.cache.writing.shards import read_shards, remove_shards, shard_paths, write_dropping


def repair_cache(path: Path | str) -> list[str]:
    """Drop corrupt rows, add the shards of an unfinished run, and rewrite the file.

    A dropped row is missing afterwards. It has a failure of stage ``cache:<feature>``, which
    the next extraction clears.

    Returns
    -------
    Sentences on what was done; empty if the cache was sound and is unchanged.

    Raises
    ------
    MissingCache
        There is neither a cache nor a shard.
    BadCache
        The clip table cannot be read.
    CacheBusy
        A writer holds the cache.

    See Also
    --------
    verify_cache : Find corrupt rows.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from mvemo.cache import import_feature
    >>> path = Path(tempfile.mkdtemp()) / "features.h5"
    >>> clips = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> _ = import_feature(path, "mean", "audio", np.eye(2), table=clips)
    >>> repair_cache(path)
    []
    """
    path = Path(path)
    parts = parts_folder(path)
    if not path.exists() and not parts.is_dir():
        raise MissingCache(f"{path}: no such file")
    with locked_files(path) as pool:
        main, done = _readable_part(path, parts, pool)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shards = read_shards(parts, pool, main)
        done += [str(warning.message) for warning in caught]
        if shards:
            done.append(f"added {len(shards)} shards of an unfinished run")
        if main is None and not shards:
            raise MissingCache(f"{path}: no such file, and no shard of a run")
        found = [] if main is None else verify_cache(path)
        if found or done:
            plan = _plan(_table(main, parts, pool), main, shards)
            dropped = write_dropping(path, plan, parts / "merged.tmp")
            done += [f"{sentence}: dropped" for sentence in dropped]
            pool.close()
            done += _repair_report(found, verify_cache(path), done)
        remove_shards(parts)
    return done


def _repair_report(found: Sequence[str], left: Sequence[str], done: Sequence[str]) -> list[str]:
    """Summarise what the rewrite repaired (if no other sentence does) and what was lost."""
    mended = [] if done else [f"mended: {problem}" for problem in found if problem not in left]
    return mended + [f"not mended, extract it again: {problem}" for problem in left]


def _readable_part(path: Path, parts: Path, pool: FilePool) -> tuple[FileSource | None, list[str]]:
    """Return the readable part of the cache (or None), and sentences on what was left out."""
    if not path.exists():
        return None, []
    try:
        main = FileSource(path, pool, tolerant=True)
    except BadCache as error:
        if not shard_paths(parts):
            raise
        return None, [f"the cache was past repair, only the shards are kept: {error}"]
    return main, [f"left out what cannot be read: {what}" for what in main.lost]


def _plan(table: ClipTable, main: FileSource | None, shards: Sequence[FileSource]) -> Plan:
    """Plan a file with the newest version of each row in the cache and its shards."""
    sources = [*([] if main is None else [main]), *shards]
    clips = frozenset(table.clip_ids)
    curves: Curves = {}
    for source in sources:
        curves.update(source.curves)
    features = resolve(plan_rows(table, sources), {})
    return Plan(
        table,
        list(sources),
        {digest: feature for digest, feature in features.items() if (feature.origin >= 0).any()},
        {
            (clip, stage): why
            for (clip, stage), why in newest_failures(sources).items()
            if why is not None and clip in clips
        },
        curves,
        joined_history(sources[-1].provenance, sources[:-1]),
        merged=tuple(shard.path.name for shard in shards),
    )


def _table(main: FileSource | None, parts: Path, pool: FilePool) -> ClipTable:
    """Return the clips of the unfinished run, or of the cache."""
    opening = parts / "table.h5"
    if opening.exists():
        return FileSource(opening, pool).table
    if main is None:
        raise BadCache(f"{opening}: the clip table of the unfinished run is missing: extract again")
    return main.table


@dataclass(frozen=True)
class UnfinishedRun:
    """Rows that wait next to a cache for the next writer.

    Parameters
    ----------
    name
        Name of the clips' manifest.
    clip_ids
        Ids of the clips that have rows.
    """

    name: str
    clip_ids: frozenset[str]


def unfinished_run(path: Path) -> UnfinishedRun | None:
    """Return the rows that an unfinished run left next to the cache `path`, or None.

    Shards that cannot be read are ignored, because their rows are lost in any case.
    """
    name = ""
    clips: set[str] = set()
    pool = FilePool()
    try:
        for shard in shard_paths(parts_folder(path)):
            try:
                source = FileSource(shard, pool)
            except BadCache:
                continue
            name = source.table.name
            for index in source.indexes.values():
                clips.update(source.table.clip_ids[i] for i in np.flatnonzero(index.present))
    finally:
        pool.close()
    return UnfinishedRun(name, frozenset(clips)) if clips else None
