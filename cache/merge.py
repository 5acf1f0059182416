"""Caches of workers into one: disjoint or overlapping clips of the same manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.storage.encoding import to_json
from mvemo.cache.storage.layout import subset
from mvemo.cache.storage.opening import parts_folder
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Curves, Failures
from mvemo.cache.writing.lock import WriterLock
from mvemo.cache.writing.plan import Clash, CorruptRows, Plan, plan_rows
from mvemo.cache.writing.rules import in_order, refuse_rivals
from mvemo.cache.writing.shards import shard_paths, write_file
from mvemo.cache.writing.sources import FilePool, FileSource


def merge_caches(paths: Sequence[Path | str], out: Path | str) -> None:
    """Merge caches of the same manifest; the order of `paths` does not matter.

    Every row is checked on its way. Clips are in the order of the cache that has them all,
    or else by id. Failures of the same clip and stage with other reasons keep the first
    reason by alphabet.

    Parameters
    ----------
    paths
        Finished caches; a worker's may hold all clips with some rows, or some clips.
    out
        The file to write; replaced if it exists.

    Raises
    ------
    BadCache
        The manifests differ, a row is corrupt, or two caches have the same row with other
        values: the message names the first, and the number of all.
    CacheBusy
        A writer holds `out`.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.cache import import_feature, open_cache
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
        sources = [FileSource(Path(path), pool) for path in paths]
        table = merge_tables(sources)
        try:
            features = in_order(plan_rows(table, sources, strict=True))
        except Clash as clash:
            more = f", and {len(clash.args) - 1} more such rows" if len(clash.args) > 1 else ""
            raise BadCache(f"{out}: {clash.args[0]}{more}") from None
        refuse_rivals(features, str(out))
        plan = Plan(
            table,
            list(sources),
            features,
            _merge_failures(sources),
            _merge_curves(sources),
            _merge_provenance(sources),
        )
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


def merge_tables(sources: Sequence[FileSource]) -> ClipTable:
    """One clip table of all clips.

    Raises
    ------
    BadCache
        The sources are of different manifests, or disagree on a clip.
    """
    first = sources[0]
    rows: dict[str, tuple[FileSource, int]] = {}
    for source in sources:
        table = source.table
        for what in ("digest", "task", "classes", "k", "fold_seed", "synthetic"):
            value, first_value = getattr(table, what), getattr(first.table, what)
            if value != first_value:
                raise BadCache(
                    f"{source.path}: {what.replace('_', ' ')} {value!r}, but {first.path} has "
                    f"{first_value!r}: only caches of one manifest merge"
                )
        for i, clip in enumerate(table.clip_ids):
            other, j = rows.setdefault(clip, (source, i))
            if not _same_clip(table, i, other.table, j):
                raise BadCache(
                    f"{source.path}: label, group, fold or split of clip {clip!r} differ from "
                    f"those in {other.path}"
                )
    name = min(source.table.name for source in sources)
    whole = [s.table for s in sources if len(s.table) == len(rows)]
    if whole:
        return replace(min(whole, key=lambda t: t.clip_ids), name=name)
    ids = sorted(rows)
    picked = [subset(rows[c][0].table, [rows[c][1]]) for c in ids]
    return replace(
        first.table,
        name=name,
        clip_ids=tuple(ids),
        groups=tuple(t.groups[0] for t in picked),
        labels=np.concatenate([t.labels for t in picked]),
        folds=np.concatenate([t.folds for t in picked]),
        splits=None if first.table.splits is None else np.array([_split(t, 0) for t in picked]),
    )


def _same_clip(a: ClipTable, i: int, b: ClipTable, j: int) -> bool:
    return (
        a.groups[i] == b.groups[j]
        and a.folds[i] == b.folds[j]
        and _split(a, i) == _split(b, j)
        and np.array_equal(a.labels[i], b.labels[j], equal_nan=True)
    )


def _split(table: ClipTable, row: int) -> int | None:
    return None if table.splits is None else int(table.splits[row])


def _merge_failures(sources: Sequence[FileSource]) -> Failures:
    merged: Failures = {}
    for source in sources:
        for clip_stage, reason in source.failures.items():
            if reason is not None:
                earlier = merged.get(clip_stage)
                merged[clip_stage] = reason if earlier is None else min(earlier, reason)
    return merged


def _merge_curves(sources: Sequence[FileSource]) -> Curves:
    merged: Curves = {}
    for source in sources:
        for name, curve in source.curves.items():
            first = merged.setdefault(name, curve)
            if to_json(first) != to_json(curve):
                raise BadCache(
                    f"{source.path}: curve {name!r} differs from an earlier cache's: the nets "
                    "were trained apart; embed all clips with the same nets"
                )
    return dict(sorted(merged.items()))


def _merge_provenance(sources: Sequence[FileSource]) -> dict[str, Any]:
    """That of the sources where they agree; else all under ``merged``, in a fixed order."""
    each = {to_json(source.provenance): source.provenance for source in sources}
    if len(each) == 1:
        return dict(sources[0].provenance)
    return {"merged": [each[text] for text in sorted(each)]}
