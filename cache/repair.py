"""Make a sound cache of a damaged one, and of the shards of an unfinished run."""

from __future__ import annotations

import warnings
from pathlib import Path

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.opening import parts_folder
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Curves
from mvemo.cache.writing.lock import WriterLock
from mvemo.cache.writing.plan import Plan, plan_rows
from mvemo.cache.writing.rules import joined_history, newest_failures, resolve
from mvemo.cache.writing.shards import read_shards, remove_shards, shard_paths, write_dropping
from mvemo.cache.writing.sources import FilePool, FileSource


def repair_cache(path: Path | str) -> list[str]:
    """Drop what is corrupt, add the shards of an unfinished run, and write the file again.

    A dropped row is missing afterwards, with a failure of stage ``cache:<feature>`` that
    the next extraction clears.

    Returns
    -------
    What was done, a sentence each; empty where the cache was sound and is untouched.

    Raises
    ------
    MissingCache
        There is neither a cache nor a shard.
    BadCache
        Not even the clip table can be read.
    CacheBusy
        A writer is at work.

    See Also
    --------
    verify_cache : Finds what is corrupt.

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
        raise MissingCache(f"{path}: there is no such file")
    lock = WriterLock(path)
    pool = FilePool()
    done: list[str] = []
    try:
        main: FileSource | None = None
        if path.exists():
            try:
                main = FileSource(path, pool, tolerant=True)
                done += [f"left out what cannot be read: {what}" for what in main.lost]
            except BadCache as error:
                if not shard_paths(parts):
                    raise
                done.append(f"the cache was past repair, only the shards are kept: {error}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shards = read_shards(parts, pool, () if main is None else main.merged)
        done += [str(warning.message) for warning in caught]
        if shards:
            done.append(f"took up {len(shards)} shards of an unfinished run")
        sources = [*([] if main is None else [main]), *shards]
        if not sources:
            raise MissingCache(f"{path}: there is no such file, and no shard of a run")
        table = _table(main, parts, pool)
        clips = frozenset(table.clip_ids)
        curves: Curves = {}
        for source in sources:
            curves.update(source.curves)
        provenance = joined_history(sources[-1].provenance, sources[:-1])
        plan = Plan(
            table,
            list(sources),
            {
                digest: feature
                for digest, feature in resolve(plan_rows(table, sources), {}).items()
                if (feature.origin >= 0).any()
            },
            {
                (clip, stage): why
                for (clip, stage), why in newest_failures(sources).items()
                if why is not None and clip in clips
            },
            curves,
            provenance,
            merged=tuple(shard.path.name for shard in shards),
        )
        temp = parts / "merged.tmp"
        trial = path if done else parts / "trial.h5"
        dropped = write_dropping(trial, plan, temp)
        if dropped and not done:
            trial.replace(path)
        done += [f"{sentence}: dropped" for sentence in dropped]
        pool.close()
        (parts / "trial.h5").unlink(missing_ok=True)
        remove_shards(parts)
    finally:
        pool.close()
        lock.release()
    return done


def _table(main: FileSource | None, parts: Path, pool: FilePool) -> ClipTable:
    """The clips of the unfinished run, or of the cache."""
    opening = parts / "table.h5"
    if opening.exists():
        return FileSource(opening, pool).table
    if main is None:
        raise BadCache(f"{opening}: the clip table of the unfinished run is missing: extract again")
    return main.table
