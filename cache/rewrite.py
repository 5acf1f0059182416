"""Rewriting of caches: merging, slim copies, and removal of features or clips."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.files import FilePool, cache_files, parts_folder, refuse_folder
from mvemo.cache.storage.layout import subset
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Curves
from mvemo.cache.union import PlannedFeature, in_order, plan_rows
from mvemo.cache.writing.lock import locked_files
from mvemo.cache.writing.plan import CorruptRows, FileSource, Plan
from mvemo.cache.writing.rules import curve_names, union_plan
from mvemo.cache.writing.shards import shard_paths, write_file


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
    with locked_files(out) as pool:
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


@dataclass(frozen=True)
class Removed:
    """Content that was removed from a cache.

    Parameters
    ----------
    features
        Names of removed features.
    clips
        Ids of removed clips.
    curves
        Names of removed training curves, of nets without features in the cache.
    failures
        Number of removed failures.
    freed
        Bytes by which the file became smaller.
    """

    features: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    failures: int = 0
    freed: int = 0

    def __bool__(self) -> bool:
        return bool(self.features or self.clips or self.curves or self.failures)


def select_features(
    path: Path | str,
    features: Collection[str],
    out: Path | str,
    *,
    clips: Collection[str] | None = None,
    dry_run: bool = False,
) -> Removed:
    """Copy some features, and optionally some clips, of a cache to another file.

    Every row is checked while it is copied; labels, folds and provenance are kept. Failures of
    omitted features, and curves of nets without a feature, are omitted, too.

    Parameters
    ----------
    path
        Path of the cache, or of a folder of shards.
    features
        Names of the features to keep.
    out
        Path of the new file, which is replaced if it exists. With `path` itself, all other
        features are removed.
    clips
        Ids of the clips to keep; None for all. A selection is no longer the whole manifest, so
        the manifest's digest is removed.
    dry_run
        If True, return the result without writing.

    Returns
    -------
    The content of the cache that `out` does not have.

    Raises
    ------
    BadCache
        A feature or clip does not exist, the cache is damaged, or a run is unfinished.
    CacheBusy
        A writer holds `out`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from mvemo.cache import import_feature
    >>> path = Path(tempfile.mkdtemp()) / "features.h5"
    >>> songs = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> for name in ("mean", "deviation"):
    ...     _ = import_feature(path, name, "audio", np.eye(2), table=songs)
    >>> select_features(path, ["mean"], path.with_name("slim.h5")).features
    ('deviation',)
    """
    path, out = Path(path), Path(out)
    if not path.exists():
        raise MissingCache(f"{path}: there is no such file")
    with locked_files(out) as pool:
        for file in {path, out}:
            if shard_paths(parts_folder(file)):
                raise BadCache(
                    f"{file}: an unfinished run's rows lie in {parts_folder(file).name}: finish "
                    f"it, or run 'mvemo cache repair {file}'"
                )
        files = cache_files(path)
        sources = [FileSource(file, pool) for file in files]
        plan, removed = _selection_plan(path, sources, frozenset(features), clips)
        if dry_run or (not removed and out == path):
            return removed
        before = sum(file.stat().st_size for file in files)
        try:
            write_file(out, plan, parts_folder(out) / "merged.tmp")
        except CorruptRows as error:
            raise BadCache(f"{error.corrupt[0]}: run 'mvemo cache repair {path}'") from None
        return replace(removed, freed=before - out.stat().st_size)


def remove_features(path: Path | str, features: Collection[str]) -> Removed:
    """Remove features from a cache; see `select_features`.

    Raises
    ------
    BadCache
        A feature does not exist.
    """
    path = Path(path)
    refuse_folder(path)
    if not path.exists():
        raise MissingCache(f"{path}: there is no such file")
    pool = FilePool()
    try:
        names = {index.spec.name for index in FileSource(path, pool).indexes.values()}
    finally:
        pool.close()
    _refuse_unknown(path, features, names)
    return select_features(path, names.difference(features), path)


def _selection_plan(
    path: Path,
    sources: Sequence[FileSource],
    features: frozenset[str],
    clips: Collection[str] | None,
) -> tuple[Plan, Removed]:
    whole = union_plan(sources, str(path))
    names = {feature.spec.name for feature in whole.features.values()}
    _refuse_unknown(path, features, names)
    table = _kept_clips(path, whole.table, clips)
    planned: Mapping[str, PlannedFeature] = whole.features
    if table is not whole.table:
        planned = plan_rows(table, sources)
    kept = in_order({d: f for d, f in planned.items() if f.spec.name in features})
    live = {name for feature in kept.values() for name in curve_names(feature.spec)}
    dropped = names - features
    ids = frozenset(table.clip_ids)
    failures = {
        (clip, stage): why
        for (clip, stage), why in whole.failures.items()
        if clip in ids and stage.partition(":")[2].partition("@")[0] not in dropped
    }
    curves: Curves = {name: curve for name, curve in whole.curves.items() if name in live}
    removed = Removed(
        features=tuple(sorted(dropped)),
        clips=tuple(clip for clip in whole.table.clip_ids if clip not in ids),
        curves=tuple(sorted(set(whole.curves) - live)),
        failures=len(whole.failures) - len(failures),
    )
    return replace(
        whole, table=table, features=dict(kept), failures=failures, curves=curves
    ), removed


def _kept_clips(path: Path, table: ClipTable, clips: Collection[str] | None) -> ClipTable:
    if clips is None:
        return table
    kept = frozenset(clips)
    rows = [i for i, clip in enumerate(table.clip_ids) if clip in kept]
    if not rows:
        raise BadCache(f"{path}: none of its {len(table)} clips would be left")
    if len(rows) == len(table):
        return table
    return replace(subset(table, rows), digest="")


def _refuse_unknown(path: Path, features: Collection[str], names: Collection[str]) -> None:
    unknown = sorted(set(features).difference(names))
    if unknown:
        listed = ", ".join(sorted(names)) or "none"
        raise BadCache(f"{path}: no feature {unknown[0]!r}; there are {listed}")
