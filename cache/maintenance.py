"""Maintenance of caches: merging, slim copies, removal, and repair; all rewrite the file."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from mvemo.cache import cache_file, reader, union, verify
from mvemo.cache.cache_file import CacheFile, FilePool, part_paths, parts_folder
from mvemo.cache.errors import BadCache
from mvemo.cache.parts import locked_cache, read_parts, refuse_parts, remove_parts
from mvemo.cache.rewrite import curve_names, newest_failures, newest_plan, rewrite
from mvemo.cache.table import ClipTable, subset
from mvemo.manifests.errors import MissingFile


def merge_caches(paths: Sequence[Path | str], out: Path | str) -> None:
    """Merge caches of the same manifest; the order of `paths` does not matter.

    Every row is checked while it is copied. Clips are in the order of the cache that has all
    clips, otherwise sorted by id. If the reasons for a failure differ, the first in alphabetical
    order is kept.

    Parameters
    ----------
    paths
        Finished caches, or folders of shards. Each may hold only some of the clips or rows.
    out
        Path of the merged cache, which is replaced if it exists.

    Raises
    ------
    BadCache
        The manifests differ, a row is corrupt, or a row has different values in two caches.
    CacheBusy
        A writer holds `out`.

    Examples
    --------
    >>> import numpy as np
    >>> from mvemo.cache import ClipTable, import_feature
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> for name in ("mean", "deviation"):
    ...     _ = import_feature(f"{name}.h5", name, "audio", np.eye(2), table=clips)
    >>> merge_caches(["mean.h5", "deviation.h5"], "both.h5")
    >>> select_features("both.h5", ["mean"], "slim.h5").features
    ('deviation',)
    """
    out = Path(out)
    if not paths:
        raise BadCache(f"{out}: there are no caches to merge: give at least one")
    with locked_cache(out) as pool:
        refuse_parts(out)
        shards = [file for path in paths for file in cache_file.cache_files(Path(path))]
        files = [CacheFile(file, pool).load() for file in shards]
        rewrite(out, reader.Cache(out, files).plan())


@dataclass(frozen=True)
class Removed:
    """Content that was removed from a cache."""

    features: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()  # of nets without a feature in the cache
    failures: int = 0
    freed: int = 0  # bytes by which the file became smaller

    def __bool__(self) -> bool:
        return bool(self.features or self.clips or self.curves or self.failures)


def select_features(
    path: Path | str,
    features: Collection[str],
    out: Path | str,
    *,
    clips: Collection[str] | None = None,
    groups: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Removed:
    """Copy some features, and optionally some clips, of a cache to another file.

    Every row is checked while it is copied; labels, folds and provenance are kept. Failures of
    omitted features, and curves of nets without a feature, are omitted, too. With `out` the same
    as `path`, the other features are removed. `groups` are new groups of some clips; folds that
    divide them are left out. A selection of clips loses the manifest's digest.

    Returns what `out` does not have; with `dry_run`, nothing is written.
    """
    path, out = Path(path), Path(out)
    if not path.exists():
        raise MissingFile(f"{path}: no such file")
    with locked_cache(out) as pool:
        for file in {path, out}:
            refuse_parts(file)
        files = [CacheFile(file, pool).load() for file in cache_file.cache_files(path)]
        whole = reader.Cache(path, files).plan()
        plan = _selection(path, whole, frozenset(features), clips)
        if groups:
            plan.table = _regrouped(path, plan, groups)
        kept = set(plan.table.clip_ids)
        removed = Removed(
            features=tuple(sorted({f.spec.name for f in whole.features.values()} - set(features))),
            clips=tuple(c for c in whole.table.clip_ids if c not in kept),
            curves=tuple(sorted(whole.curves.keys() - plan.curves.keys())),
            failures=len(whole.failures) - len(plan.failures),
        )
        if dry_run or (not removed and not groups and out == path):
            return removed
        before = sum(file.path.stat().st_size for file in files)
        rewrite(out, plan)
        return replace(removed, freed=before - out.stat().st_size)


def _selection(
    path: Path, whole: union.Plan, features: frozenset[str], clips: Collection[str] | None
) -> union.Plan:
    """Return the plan of a file with only some features and clips of the plan `whole`."""
    names = {feature.spec.name for feature in whole.features.values()}
    _refuse_unknown(path, features, names)
    table, planned = whole.table, whole.features
    kept = frozenset(table.clip_ids if clips is None else clips)
    rows = [i for i, clip in enumerate(table.clip_ids) if clip in kept]
    if len(rows) < len(table):
        if not rows:
            raise BadCache(f"{path}: none of its {len(table)} clips would remain: choose others")
        table = replace(subset(table, rows), digest="")
        planned = {digest: f.take(np.array(rows)) for digest, f in planned.items()}
    planned = {digest: f for digest, f in planned.items() if f.spec.name in features}
    live = {name for feature in planned.values() for name in curve_names(feature.spec)}
    return replace(
        whole,
        table=table,
        features=planned,
        failures={
            (clip, stage): why
            for (clip, stage), why in whole.failures.items()
            if clip in kept and stage.partition(":")[2].partition("@")[0] not in names - features
        },
        curves={name: curve for name, curve in whole.curves.items() if name in live},
    )


def _regrouped(path: Path, plan: union.Plan, groups: Mapping[str, str]) -> ClipTable:
    """Return the clip table with new groups, and without folds that divide them."""
    table = plan.table
    names = tuple(map(groups.get, table.clip_ids, table.groups))
    table = replace(table, groups=names, digest="")
    parts = table.folds if table.splits is None else table.splits
    if len({*zip(names, parts.tolist(), strict=True)}) == len({*names}):
        return table
    if trained := sorted({f.spec.name for f in plan.features.values() if f.spec.trained_on}):
        raise BadCache(
            f"{path}: the nets of {', '.join(trained)} were trained for folds that divide the new "
            "groups: correct the groups in the manifest and extract again"
        )
    return replace(table, folds=np.full(len(table), -1), k=0, fold_seed=0, splits=None)


def remove_features(path: Path | str, features: Collection[str]) -> Removed:
    """Remove features from a cache; see `select_features`."""
    path = Path(path)
    cache_file.refuse_folder(path)
    with reader.open_cache(path) as cache:
        names = cache.names()
    _refuse_unknown(path, features, names)
    return select_features(path, set(names).difference(features), path)


def _refuse_unknown(path: Path, features: Collection[str], names: Collection[str]) -> None:
    if unknown := sorted(set(features).difference(names)):
        raise reader.unknown_feature(path, unknown[0], names)


def repair_cache(path: Path | str) -> list[str]:
    """Drop corrupt rows, add the parts of an unfinished run, and rewrite the file.

    A dropped row is missing afterwards. It has a failure of stage ``cache:<feature>``, which
    the next extraction clears.

    Returns
    -------
    Sentences about what was done; empty if the cache was valid and is unchanged.

    Raises
    ------
    MissingFile
        There is neither a cache nor a part.
    BadCache
        The clip table cannot be read.
    CacheBusy
        A writer holds the cache.
    """
    path = Path(path)
    folder = parts_folder(path)
    opening = folder / "table.h5"  # clips of the unfinished run
    if not path.exists() and not folder.is_dir():
        raise MissingFile(f"{path}: no such file")
    with locked_cache(path) as pool:
        main, done = _readable_part(path, pool)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = read_parts(path, pool, main)
        done += [str(warning.message) for warning in caught]
        if parts:
            done.append(f"added {len(parts)} parts of an unfinished run")
        if main is None and not parts:
            raise MissingFile(f"{path}: there is neither this file nor a readable part of a run")
        found = [] if main is None else verify.verify_cache(path)
        if found or done:
            sources = parts if main is None else [main, *parts]
            if opening.exists():
                table = CacheFile(opening, pool).table
            elif main is not None:
                table = main.table
            else:
                raise BadCache(
                    f"{opening}: is missing (clip table of the unfinished run): extract again"
                )
            plan = newest_plan(table, sources, newest_failures(sources), {})
            plan.merged = tuple(part.path.name for part in parts)
            dropped = rewrite(path, plan, drop=True)
            done += [f"{sentence}: dropped" for sentence in dropped]
            pool.close()
            left = verify.verify_cache(path)
            if not done:
                done += [f"repaired: {problem}" for problem in found if problem not in left]
            done += [f"not repaired; extract again: {problem}" for problem in left]
        remove_parts(path)
    return done


def _readable_part(path: Path, pool: FilePool) -> tuple[CacheFile | None, list[str]]:
    """Return the readable part of the cache (or None), and sentences about lost parts."""
    if not path.exists():
        return None, []
    try:
        main = CacheFile(path, pool, tolerant=True).load()
    except BadCache as error:
        if not part_paths(path):
            raise
        return None, [f"the cache cannot be repaired; only the parts are kept: {error}"]
    return main, [f"left out: {what}" for what in main.lost]


def unfinished_run(path: Path) -> tuple[str, frozenset[str]]:
    """Return the manifest's name and the clips with rows that an unfinished run left at `path`."""
    name = ""
    clips: set[str] = set()
    with closing(FilePool()) as pool:
        for part in part_paths(path):
            with suppress(BadCache):
                source = CacheFile(part, pool).load()
                name = source.table.name
                for index in source.indexes.values():
                    clips.update(compress(source.table.clip_ids, index.present))
    return name, frozenset(clips)
