"""Merging of caches with clips of the same manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvemo.cache.errors import BadCache
from mvemo.cache.storage.files import FilePool, cache_files, parts_folder
from mvemo.cache.writing.lock import WriterLock
from mvemo.cache.writing.plan import CorruptRows
from mvemo.cache.writing.rules import union_plan
from mvemo.cache.writing.shards import shard_paths, write_file
from mvemo.cache.writing.sources import FileSource


def merge_caches(paths: Sequence[Path | str], out: Path | str) -> None:
    """Merge caches of the same manifest; the order of `paths` does not matter.

    Every row is checked while it is copied. Clips are in the order of the cache that has all of
    them, otherwise sorted by id. If the reasons for a failure differ, the first in alphabetical
    order is kept.

    Parameters
    ----------
    paths
        Finished caches, or folders of shards. Each may hold all clips with some of the rows,
        or some of the clips.
    out
        Path of the merged cache, which is replaced if it exists.

    Raises
    ------
    BadCache
        The manifests differ, a row is corrupt, or a row has different values in two caches.
        The message names the first such row and their number.
    CacheBusy
        A writer holds `out`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from mvemo.cache import ClipTable, import_feature, open_cache
    >>> folder = Path(tempfile.mkdtemp())
    >>> clips = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> for name in ("mean", "deviation"):
    ...     _ = import_feature(folder / f"{name}.h5", name, "audio", np.eye(2), table=clips)
    >>> merge_caches([folder / "mean.h5", folder / "deviation.h5"], folder / "both.h5")
    >>> with open_cache(folder / "both.h5") as cache:
    ...     cache.names()
    ('deviation', 'mean')
    """
    out = Path(out)
    if not paths:
        raise BadCache(f"{out}: no caches to merge were given")
    lock = WriterLock(out)
    pool = FilePool()
    try:
        if shard_paths(parts_folder(out)):
            raise BadCache(
                f"{out}: an unfinished run's rows lie in {parts_folder(out).name}: finish or "
                "repair it first, or merge to another file"
            )
        sources = [FileSource(file, pool) for path in paths for file in cache_files(Path(path))]
        plan = union_plan(sources, str(out))
        try:
            write_file(out, plan, parts_folder(out) / "merged.tmp")
        except CorruptRows as error:
            more = f", and {len(error.corrupt) - 1} more rows" if len(error.corrupt) > 1 else ""
            where = error.corrupt[0].source
            raise BadCache(
                f"{out}: {error.corrupt[0]}{more}: run 'mvemo cache repair {where}'"
            ) from None
    finally:
        pool.close()
        lock.release()
