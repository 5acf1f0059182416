"""Features that another program made, put into a cache beside our own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.imports.arrays import ArrayRows, read_ids
from mvemo.cache.reader import open_cache
from mvemo.cache.spec import FeatureSpec, Modality, content_digest, digest_of
from mvemo.cache.storage.opening import parts_folder
from mvemo.cache.table import ClipTable
from mvemo.cache.writer import CacheWriter
from mvemo.cache.writing.shards import shard_paths

EXTRACTOR = "import"
VERSION = 1


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Parameters
    ----------
    spec
        Of the feature.
    clips
        How many clips the cache has.
    present
        How many of them have the feature now.
    incomplete
        Rows with some numbers missing, and so missing as a whole.
    skipped
        Rows of clips that the table lacks, left out as was asked.
    """

    spec: FeatureSpec
    clips: int
    present: int
    incomplete: int
    skipped: int


def join_arrays(
    arrays: Sequence[ArrayRows], rows: Sequence[Path] = (), *, id_column: str | None = None
) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Several files of one feature as one array, with its clip ids.

    Parameters
    ----------
    arrays
        Of `read_array`, in the order of the rows.
    rows
        CSVs with the clip ids of the rows: one for each array, or any number of which
        the rows together are the arrays'. They come before ids in the arrays' own files.
    id_column
        Of `rows`, as in `read_ids`.

    Returns
    -------
    float64 (rows, dim); one id a row, or None where no file names any.

    Raises
    ------
    BadCache
        Files of different widths, some with ids and some without, or as many ids as do
        not fit the rows.
    """
    if not arrays:
        raise BadCache("no file was given to import")
    dim = arrays[0].values.shape[1]
    for array in arrays[1:]:
        if array.values.shape[1] != dim:
            raise BadCache(
                f"{array.path}: {array.values.shape[1]} numbers a row, but {arrays[0].path} has "
                f"{dim}: they are not one feature"
            )
    values = np.concatenate([array.values for array in arrays])
    if rows:
        listed = [read_ids(path, id_column=id_column) for path in rows]
        if len(rows) == len(arrays):
            for path, ids, array in zip(rows, listed, arrays, strict=True):
                if len(ids) != len(array.values):
                    raise BadCache(
                        f"{path}: {len(ids)} clip ids for the {len(array.values)} rows of "
                        f"{array.path}"
                    )
        joined = tuple(clip for ids in listed for clip in ids)
        if len(joined) != len(values):
            raise BadCache(f"{rows[0]}: {len(joined)} clip ids for {len(values)} rows")
        return values, joined
    if all(array.clip_ids is None for array in arrays):
        return values, None
    joined = ()
    for array in arrays:
        if array.clip_ids is None:
            raise BadCache(f"{array.path}: it names no clip ids, the other files do: give --rows")
        joined += array.clip_ids
    return values, joined


def import_feature(
    path: Path | str,
    name: str,
    modality: Modality,
    values: NDArray[Any],
    clip_ids: Sequence[str] | None = None,
    *,
    table: ClipTable | None = None,
    sources: Sequence[Path | str] = (),
    skip_unknown: bool = False,
    replace: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Imported:
    """Put an array into a cache as a vector feature; everything else in it stays.

    The cache is made where there is none. Its clips, labels and folds stay as they are.

    Parameters
    ----------
    path
        The cache.
    name, modality
        Of the feature; ``audio`` or ``video``.
    values
        Numbers (rows, dim). A row with a NaN is missing, as is a clip without a row.
    clip_ids
        One a row, each once. None: row i is clip i of `table`, or of the cache.
    table
        The clips. Not needed where the cache is there; if given, it must have the same
        clips, groups and labels, in any order.
    sources
        The files that the values are from: names and SHA-256 go into the feature's
        parameters.
    skip_unknown
        Leave out rows of clips that are not in the table.
    replace
        Whether a feature of that name, or its net of each fold, may give way.
    provenance
        JSON values; that of earlier runs stays in the cache's history.

    Raises
    ------
    MissingCache
        There is neither a cache nor a table.
    BadCache
        Ids that are unknown or there twice, a wrong number of rows, infinite or no
        numbers, no row at all, other clips than the cache's, or a name that is taken.
    CacheBusy
        Another writer holds the cache.
    """
    path = Path(path)
    where = f"{path}: {name}"
    held, taken = _existing(path, name)
    if held is None and table is None:
        raise MissingCache(f"{path}: there is no such cache: give a manifest to make it from")
    order = (table or held).clip_ids  # type: ignore[union-attr]
    if held is not None and table is not None:
        _refuse_other_clips(path, held, table)
    target = held or table
    assert target is not None

    numbers = _numbers(values, where)
    if clip_ids is None:
        if len(numbers) != len(order):
            raise BadCache(
                f"{where}: {len(numbers)} rows for {len(order)} clips: give the clip ids of the "
                "rows, by a column or --rows"
            )
        ids: Sequence[str] = order
    else:
        ids = clip_ids
    kept, skipped = _matched(ids, numbers, frozenset(order), where, skip_unknown)
    numbers, ids = numbers[kept], [ids[i] for i in kept.tolist()]
    there = np.logical_not(np.isnan(numbers).any(axis=1))
    incomplete = int((~there & ~np.isnan(numbers).all(axis=1)).sum())
    if not there.any():
        raise BadCache(f"{where}: no clip of the table has a row of numbers")
    rows = _single(numbers, there, ids, where)

    spec = FeatureSpec(
        name=name,
        modality=modality,
        kind="vector",
        dim=int(rows.shape[1]),
        extractor=EXTRACTOR,
        version=VERSION,
        params={
            "files": [
                {"name": Path(file).name, "sha256": content_digest(Path(file))} for file in sources
            ],
            # Other values, or the same ones for other clips, are another feature.
            "aligned": _digest(rows, there, ids),
        },
        protocol="imported",
    )
    if taken and spec.digest not in taken and not replace:
        raise BadCache(f"{where} is there already: choose another name, or replace it by --force")
    with CacheWriter(path, target, provenance=provenance) as writer:
        for i in np.flatnonzero(there).tolist():
            writer.put(spec, ids[i], spec.key(digest_of(["clip", ids[i]])), rows[i])
    return Imported(spec, len(target), int(there.sum()), incomplete, skipped)


def _existing(path: Path, name: str) -> tuple[ClipTable | None, frozenset[str]]:
    """The cache's clips, None without a cache, and the digests of a feature of that name."""
    if path.exists():
        with open_cache(path) as cache:
            taken = {spec.digest for spec in cache.specs if spec.name == name}
            return cache.table, frozenset(taken)
    if shard_paths(parts_folder(path)):
        # Its folds would be lost, and with them what each net may be tested on.
        raise BadCache(
            f"{path}: an extraction left it unfinished: let it end, or run "
            f"'mvemo cache repair {path}', then import"
        )
    return None, frozenset()


def _refuse_other_clips(path: Path, held: ClipTable, table: ClipTable) -> None:
    if set(held.clip_ids) != set(table.clip_ids):
        new = [clip for clip in table.clip_ids if clip not in set(held.clip_ids)]
        gone = [clip for clip in held.clip_ids if clip not in set(table.clip_ids)]
        raise BadCache(
            f"{path}: its clips are not the manifest's: {len(new)} are new"
            + (f" (first {new[0]!r})" if new else "")
            + f", {len(gone)} are gone"
            + (f" (first {gone[0]!r})" if gone else "")
            + ": import into another file"
        )
    if (held.task, held.classes) != (table.task, table.classes):
        raise BadCache(
            f"{path}: its task is {held.task} of {', '.join(held.classes)}, the manifest's "
            f"{table.task} of {', '.join(table.classes)}: import into another file"
        )
    row = {clip: i for i, clip in enumerate(held.clip_ids)}
    for i, clip in enumerate(table.clip_ids):
        j = row[clip]
        if held.groups[j] != table.groups[i] or not np.array_equal(held.labels[j], table.labels[i]):
            raise BadCache(
                f"{path}: clip {clip!r} has another label or group there than in the manifest: "
                "import into another file"
            )


def _numbers(values: NDArray[Any], where: str) -> NDArray[np.float64]:
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise BadCache(f"{where}: {values.dtype} was given, numbers are needed")
    if values.ndim != 2 or not values.shape[1]:
        raise BadCache(f"{where}: shape {values.shape}, needed is (rows, numbers)")
    return values.astype(np.float64)


def _matched(
    ids: Sequence[str],
    numbers: NDArray[np.float64],
    known: frozenset[str],
    where: str,
    skip_unknown: bool,
) -> tuple[NDArray[np.int64], int]:
    """Rows of known clips, and the number of the others."""
    if len(ids) != len(numbers):
        raise BadCache(f"{where}: {len(ids)} clip ids for {len(numbers)} rows")
    unknown = [clip for clip in ids if clip not in known]
    if unknown and not skip_unknown:
        raise BadCache(
            f"{where}: {len(unknown)} of {len(ids)} rows are of clips that the manifest lacks, "
            f"first {unknown[0]!r}; --skip-unknown leaves them out"
        )
    if len(unknown) == len(ids):
        raise BadCache(f"{where}: no row is of a clip of the manifest; first id {ids[0]!r}")
    seen: set[str] = set()
    twice = []
    kept = []
    for i, clip in enumerate(ids):
        if clip in known:
            if clip in seen:
                twice.append(clip)
            seen.add(clip)
            kept.append(i)
    if twice:
        raise BadCache(f"{where}: {len(twice)} rows are of a clip seen before, first {twice[0]!r}")
    return np.array(kept, dtype=np.int64), len(unknown)


def _single(
    numbers: NDArray[np.float64], there: NDArray[np.bool_], ids: Sequence[str], where: str
) -> NDArray[np.float32]:
    """The values as they are stored; rows that are not `there` stay NaN."""
    with np.errstate(over="ignore"):
        rows = numbers.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(rows).any(axis=1))
    if len(infinite):
        raise BadCache(
            f"{where}: {len(infinite)} rows hold infinite numbers, or such as float32 cannot "
            f"hold, first that of clip {ids[int(infinite[0])]!r}: say NaN where one is missing"
        )
    rows[~there] = np.nan
    return rows


def _digest(rows: NDArray[np.float32], there: NDArray[np.bool_], ids: Sequence[str]) -> str:
    """SHA-256 of clip ids and values, whatever order the rows came in."""
    state = hashlib.sha256()
    for i in sorted(np.flatnonzero(there).tolist(), key=lambda i: ids[i]):
        state.update(ids[i].encode("utf-8", "surrogatepass") + b"\0")
        state.update(np.ascontiguousarray(rows[i], dtype="<f4").data)
    return state.hexdigest()
