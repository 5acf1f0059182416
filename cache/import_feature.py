"""Import of an array into a cache as a feature."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.clip_columns import texts_of
from mvemo.cache.errors import BadCache
from mvemo.cache.import_arrays import FileRows, TableColumns, read_frame, read_ids
from mvemo.cache.index import finite_rows
from mvemo.cache.parts import refuse_parts
from mvemo.cache.reader import open_cache
from mvemo.cache.spec import FeatureSpec, content_digest, digest_of
from mvemo.cache.table import ClipTable, table_differences
from mvemo.cache.writer import CacheWriter
from mvemo.manifests.array_types import F32, Bools
from mvemo.manifests.errors import MissingFile
from mvemo.manifests.labels import UNLABELLED
from mvemo.manifests.tables import match_ids

EXTRACTOR = "import"
VERSION = 1


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    spec: FeatureSpec
    clips: int  # number of clips in the cache
    present: int  # number of clips that now have the feature
    incomplete: int  # number of rows with missing numbers
    skipped: int  # number of rows whose clips are not in the table
    absent: tuple[str, ...] = ()  # clips without a row
    left_out: tuple[str, ...] = ()  # columns of a data frame that state labels or groups


def join_arrays(
    arrays: Sequence[FileRows], rows: Sequence[Path] = (), *, id_column: str | None = None
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Join several files of one feature into one array, with the clip ids of its rows or None.

    `rows` are CSV files with the clip ids: one file per array, or any number of files with as many
    rows as all arrays together. They take precedence over ids in the arrays' files; `id_column` is
    that of `read_ids`.
    """
    if not arrays:
        raise BadCache("there is no file to import: give at least one")
    dim = arrays[0].values.shape[1]
    for array in arrays[1:]:
        if array.values.shape[1] != dim:
            raise BadCache(
                f"{array.path}: has {array.values.shape[1]} numbers per row, but {arrays[0].path} "
                f"has {dim}: import only files of one feature together"
            )
    values = arrays[0].values if len(arrays) == 1 else np.concatenate([a.values for a in arrays])
    if rows:
        listed = [read_ids(path, id_column=id_column) for path in rows]
        if len(rows) == len(arrays):
            for path, ids, array in zip(rows, listed, arrays, strict=True):
                if len(ids) != len(array.values):
                    raise BadCache(
                        f"{path}: has {len(ids)} clip ids, but {array.path} has "
                        f"{len(array.values)} rows"
                    )
        joined = tuple(clip for ids in listed for clip in ids)
        if len(joined) != len(values):
            raise BadCache(f"{rows[0]}: there are {len(joined)} clip ids for {len(values)} rows")
        return values, joined
    without = [array for array in arrays if array.clip_ids is None]
    if len(without) == len(arrays):
        return values, None
    if without:
        raise BadCache(f"{without[0].path}: has no clip ids, but other files do: give --rows")
    return values, tuple(clip for array in arrays for clip in array.clip_ids or ())


@dataclass(frozen=True)
class ImportSettings:
    """Options of `import_feature`."""

    # Files of the values; their names and SHA-256 become parameters of the feature.
    sources: Sequence[Path | str] = ()
    skip_unknown: bool = False  # leave out rows of clips that are not in the table
    replace: bool = False  # replace a feature with the same name, in all folds
    # JSON values; the provenance of earlier runs stays in the cache's history.
    provenance: Mapping[str, Any] = field(default_factory=dict)


def import_feature(
    path: Path | str,
    name: str,
    modality: str,
    values: Any,
    clip_ids: Sequence[Any] | None = None,
    *,
    table: ClipTable | None = None,
    settings: ImportSettings | None = None,
) -> Imported:
    """Write an array into a cache as a vector feature; the rest of the cache is kept.

    Parameters
    ----------
    path
        Path of the cache, which is created if it does not exist.
    name
        Name of the feature.
    modality
        ``audio``, ``video`` or another short word, such as ``lyrics``.
    values
        Array of numbers, (rows, dim), or a data frame of pandas or Polars. A row with a NaN counts
        as missing, like a clip without a row.
    clip_ids
        Clip id of each row, without repetition, as text or number. If None, ids are searched in the
        index and the columns of a data frame; if there are none, row i belongs to clip i of
        `table`, or of the cache.
    table
        Clips of a new cache. For an existing cache it is optional; its clips, groups and
        labels must match the cache, in any order.
    settings
        Options; default: `ImportSettings()`.

    Raises
    ------
    MissingFile
        There is neither a cache nor a table.
    BadCache
        Ids, clips or the number of rows do not match, values are infinite or not numbers, no
        row is complete, or the name is taken.
    CacheBusy
        Another writer holds the cache.

    See Also
    --------
    read_array, join_arrays : Read the values from files.

    Examples
    --------
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> values = np.array([[0.5, 1.0, 2.0], [1.5, 0.0, 4.0]])
    >>> imported = import_feature("new.h5", "vggish", "audio", values, ["b", "a"], table=clips)
    >>> imported.present, imported.clips
    (2, 2)
    """
    path = Path(path)
    settings = settings or ImportSettings()
    where = f"{path}: {name}"
    stored, taken = None, set[str]()
    if path.exists():
        with open_cache(path) as cache:
            stored = cache.table
            taken = {spec.digest for spec in cache.specs if spec.name == name}
    else:
        # The folds of the run, and so the test clips of each net, would be lost.
        refuse_parts(path)
    if stored is not None and table is not None:
        _refuse_other_clips(path, stored, table)
    # Clips of an unlabelled cache may get labels from the table.
    target = table if stored is not None and stored.task == UNLABELLED else stored
    target = target or stored or table
    if target is None:
        raise MissingFile(f"{path}: no such cache: give a manifest to create it")

    clips, left_out = table or target, tuple[str, ...]()
    names = {clip: clip for clip in clips.clip_ids}
    if hasattr(values, "to_frame"):  # a series
        values = values.to_frame()
    if hasattr(values, "columns"):
        frame = read_frame(values, clip_ids, TableColumns(names, table=clips))
        values, clip_ids, left_out = frame.values, frame.clip_ids, frame.left_out
    if clip_ids is not None:
        clip_ids = match_ids(texts_of(clip_ids), names)[0]
    known = clips.clip_ids
    numbers, ids, skipped = _known_rows(values, clip_ids, known, where, settings.skip_unknown)
    rows, present, incomplete = vector_rows(numbers, ids, where)
    files = [
        {"name": file.name, "sha256": content_digest(file)} for file in map(Path, settings.sources)
    ]
    # With the digest, other values or other clips give another feature.
    params = {"files": files, "aligned": _digest(rows, present, ids)}
    spec = FeatureSpec(
        name, modality, "vector", rows.shape[1], EXTRACTOR, VERSION, params, protocol="imported"
    )
    if taken and spec.digest not in taken and not settings.replace:
        raise BadCache(f"{where} already exists: choose another name, or replace it with --force")
    with CacheWriter(path, target, provenance=settings.provenance, commit_rows=0) as writer:
        for i in np.flatnonzero(present).tolist():
            writer.put(spec, ids[i], spec.key(digest_of(["clip", ids[i]])), rows[i], copy=False)
    with_row = {*ids}
    absent = tuple(clip for clip in known if clip not in with_row)
    counts = len(target), int(present.sum()), incomplete, skipped
    return Imported(spec, *counts, absent, left_out)


def _refuse_other_clips(path: Path, stored: ClipTable, table: ClipTable) -> None:
    """Refuse a table whose clips, labels or groups differ from those of the cache."""
    if set(stored.clip_ids) == set(table.clip_ids) and stored.task == UNLABELLED:
        return
    fields = ("task", "classes", "labels", "groups")
    if differences := table_differences(stored, table, fields, ("cache", "manifest")):
        listed = "; ".join(differences)
        text = f"its clips differ from the manifest's ({listed}): import into another file"
        raise BadCache(f"{path}: {text}")


def _known_rows(
    values: NDArray[Any],
    clip_ids: Sequence[str] | None,
    known: Sequence[str],
    where: str,
    skip_unknown: bool,
) -> tuple[NDArray[Any], tuple[str, ...], int]:
    """Return the rows of known clips, their ids, and the number of other rows."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise BadCache(f"{where}: expected numbers, got {values.dtype}")
    if values.ndim != 2 or not values.shape[1]:
        raise BadCache(f"{where}: expected shape (rows, numbers), got {values.shape}")
    n_rows = len(values)
    if clip_ids is None and n_rows != len(known):
        raise BadCache(
            f"{where}: there are {n_rows} rows for {len(known)} clips: give the clip ids of the "
            "rows in a column or with --rows"
        )
    ids = known if clip_ids is None else clip_ids
    if len(ids) != n_rows:
        raise BadCache(f"{where}: there are {len(ids)} clip ids for {n_rows} rows")
    in_table = frozenset(known)
    kept = [i for i, clip in enumerate(ids) if clip in in_table]
    unknown = [clip for clip in ids if clip not in in_table]
    if unknown and (not kept or not skip_unknown):
        fix = ": leave these rows out with --skip-unknown" if kept else ""
        raise BadCache(
            f"{where}: {len(unknown)} of {n_rows} rows belong to clips that the manifest lacks, "
            f"such as {unknown[0]!r}; its ids look like {min(known)!r}{fix}"
        )
    if repeated := [clip for clip, n in Counter(ids[i] for i in kept).items() if n > 1]:
        text = f"{len(repeated)} clips have more than one row, such as {repeated[0]!r}"
        raise BadCache(f"{where}: {text}")
    if values.dtype != np.float32:
        values = values.astype(np.float64, copy=False)
    rows = values if len(kept) == n_rows else values[kept]
    return rows, tuple(ids[i] for i in kept), len(unknown)


def vector_rows(numbers: NDArray[Any], ids: Sequence[str], where: str) -> tuple[F32, Bools, int]:
    """Return rows of vectors, True for complete ones, and the number of rows with only some NaN."""
    with np.errstate(over="ignore"):
        rows: F32 = np.ascontiguousarray(numbers, np.float32)
    present = finite_rows(rows)
    others = np.flatnonzero(~present)
    missing = np.isnan(rows[others])
    if missing.any(axis=1).sum() == len(rows):
        raise BadCache(f"{where}: no clip of the table has a row of numbers")
    infinite = others[np.isinf(rows[others]).any(axis=1)]
    if len(infinite):
        raise BadCache(
            f"{where}: {len(infinite)} rows hold numbers that are infinite or too large for "
            f"float32, such as clip {ids[infinite[0]]!r}: write NaN for a missing number"
        )
    # Numbers of a column may all be so small that float32 would lose them.
    low, high = (of(numbers, axis=0, initial=0.0) for of in (np.nanmin, np.nanmax))
    largest = np.maximum(-low, high)
    tiny = np.flatnonzero((largest > 0) & (largest < np.finfo(np.float32).tiny))
    if len(tiny):
        raise BadCache(
            f"{where}: column {tiny[0] + 1} holds numbers up to {largest[tiny[0]]:.3g}, too small "
            "for float32: multiply it, for example so that its deviation is 1"
        )
    return rows, present, int((~missing.all(axis=1)).sum())


def _digest(rows: F32, present: Bools, ids: Sequence[str]) -> str:
    """Return the SHA-256 of clip ids and values, independent of the order of rows."""
    state = hashlib.sha256()
    for i in sorted(np.flatnonzero(present).tolist(), key=lambda i: ids[i]):
        state.update(ids[i].encode("utf-8", "surrogatepass") + b"\0")
        state.update(rows[i].data)
    return state.hexdigest()
