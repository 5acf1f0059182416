"""Rows of an interrupted run that are committed but not merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.storage.files import FilePool, parts_folder
from mvemo.cache.writing.shards import shard_paths
from mvemo.cache.writing.sources import FileSource


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
