"""Arrays that other programs made: rows of numbers, and the clip ids of the rows.

``.npy``, ``.npz``, HDF5 data sets and CSV are read; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.plain import PlainDataSets
from mvemo.manifests.arrays import DAMAGED, NpzFile, read_npy
from mvemo.manifests.csv_files import read_csv

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
# Where the ids of an .npz or HDF5 file's rows are looked for when no name is given.
ID_NAMES = ("clip_id", "clip_ids")
# What may differ between another program's names of clips and ours.
_FORMS: Mapping[str, Callable[[str], str]] = {
    "": str,
    "without ending": lambda name: str(PurePosixPath(name).with_suffix("")) if name else "",
    "without folder": lambda name: PurePosixPath(name).name,
    "without folder and ending": lambda name: PurePosixPath(name).stem,
}


@dataclass(frozen=True)
class ArrayRows:
    """The rows of one file.

    Parameters
    ----------
    path
        The file.
    dataset
        Which data set of it, where it may hold several.
    values
        float64 (rows, dim); NaN where a number is missing.
    clip_ids
        One a row, or None where the file names none.
    id_name
        Column of a CSV that holds them.
    columns
        Columns of a CSV that hold the numbers.
    """

    path: Path
    dataset: str | None
    values: NDArray[np.float64]
    clip_ids: tuple[str, ...] | None
    id_name: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class CsvColumns:
    """Which columns of a CSV are read as ids and as numbers.

    Parameters
    ----------
    names
        Id or path of each known clip to its id: a column that holds them is that of the ids.
    take, skip
        Patterns of names, as ``f*``, of the columns of numbers that are read, or left out.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    take: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


def read_array(
    source: str | Path,
    *,
    dataset: str | None = None,
    id_column: str | None = None,
    guess: bool = True,
    columns: CsvColumns = CsvColumns(),
) -> ArrayRows:
    """Read rows of numbers.

    Parameters
    ----------
    source
        ``.npy``; ``.npz``; HDF5 (``.h5``, ``.hdf5``); or a CSV. ``file.h5:name`` names the
        data set, too. A CSV has a header, and a row of numbers for each clip, empty cells
        where missing; without an id column it may have numbers alone, and no header.
    dataset
        Of an ``.npz`` or HDF5 file. Default: ``values``, or the only one of numbers.
    id_column
        What holds the clip ids: the CSV's column, or the data set beside the numbers.
        Default: ``clip_id`` (in ``.npz`` and HDF5 also ``clip_ids``), where it exists; in
        HDF5 first in the group of the numbers.
    guess
        Whether a text that may be the ids, under another name, is refused instead of passed
        over.
    columns
        Of a CSV. A column of text, or of whole numbers that are all different, is read as
        numbers only if it is asked for by name.

    Raises
    ------
    MissingCache
        There is no such file.
    BadCache
        It cannot be read, holds no such data set, or other things than rows of numbers.

    See Also
    --------
    import_feature : Puts the values into a cache.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "theirs.csv"
    >>> _ = path.write_text("clip_id,energy,tempo\\na,0.5,120\\nb,,90\\n")
    >>> array = read_array(path)
    >>> array.clip_ids, array.values.tolist()
    (('a', 'b'), [[0.5, 120.0], [nan, 90.0]])
    """
    path, named = split_source(source)
    dataset = named or dataset
    if not path.is_file():
        raise MissingCache(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        if dataset is not None:
            raise BadCache(f"{path}: a CSV has no data sets, and so no {dataset!r}")
        return _read_csv(path, id_column, columns)
    try:
        if suffix == ".npy":
            if dataset is not None:
                raise BadCache(f"{path}: an .npy file has no data sets, and so no {dataset!r}")
            if id_column is not None:
                raise BadCache(f"{path}: an .npy file has no ids {id_column!r}: give --rows")
            return ArrayRows(path, None, _matrix(read_npy(path), str(path)), None)
        if suffix == ".npz":
            with NpzFile(path) as arrays:
                return _from_mapping(path, arrays, list(arrays), dataset, id_column, guess)
        if suffix in HDF5:
            with h5py.File(path, "r") as file:
                found = PlainDataSets(file, path.stat().st_size)
                return _from_mapping(path, found, list(found), dataset, id_column, guess)
    except BadCache:
        raise
    except (ValueError, *DAMAGED) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise BadCache(f"{path}: cannot be read as an array: {what}") from None
    raise BadCache(f"{path}: ending {path.suffix!r} is none of .npy, .npz, {', '.join(HDF5)}, .csv")


def read_ids(path: Path | str, *, id_column: str | None = None) -> tuple[str, ...]:
    """The clip ids of a CSV, in the order of its rows.

    Parameters
    ----------
    path
        The CSV. With a header that has the column; or without, when `id_column` is a
        number or the file has one column.
    id_column
        Name of the column, or its number from 1 in a file without a header. Default:
        ``clip_id``.

    Raises
    ------
    MissingCache
        There is no such file.
    BadCache
        No such column, or an empty id.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("clip_id\\na\\nb\\n")
    >>> read_ids(path)
    ('a', 'b')
    """
    path = Path(path)
    lines = read_csv(path, error=BadCache, missing=MissingCache)
    name = id_column or "clip_id"
    head = [cell.strip() for cell in lines[0][1]]
    if name in head:
        column, body = head.index(name), lines[1:]
    elif name.isdecimal() and int(name) >= 1:
        column, body = int(name) - 1, lines
    elif id_column is None and len(head) == 1:
        column, body = 0, lines
    else:
        raise BadCache(
            f"{path}: no column {name!r}; there are {', '.join(head)}; of a file without a "
            "header, give the column's number, from 1"
        )
    ids = []
    for number, cells in body:
        if column >= len(cells) or not cells[column].strip():
            raise BadCache(f"{path}:{number}: no clip id in column {name}")
        ids.append(cells[column].strip())
    return tuple(ids)


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """``file.h5:name`` as the file and the data set's name; None where none is named."""
    text = str(source)
    front, mark, name = text.rpartition(":")
    # A colon may also be a part of the file's name, or of a drive's.
    if mark and name and Path(front).suffix.lower() in (*HDF5, ".npz") and not Path(text).exists():
        return Path(front), name
    return Path(text), None


def _from_mapping(
    path: Path,
    arrays: Mapping[str, Any],
    names: Sequence[str],
    dataset: str | None,
    ids: str | None,
    guess: bool,
) -> ArrayRows:
    """From an ``.npz`` or HDF5 file, both of which map names to arrays."""
    listing = ", ".join(names) or "none"
    if dataset is None:
        id_names = (ids,) if ids else ID_NAMES
        numeric = [n for n in names if n not in id_names and arrays[n].dtype.kind in "fiub"]
        if "values" in numeric:
            dataset = "values"
        elif len(numeric) == 1:
            dataset = numeric[0]
        else:
            raise BadCache(f"{path}: name the data set that holds the numbers; there are {listing}")
    dataset = dataset.strip("/")
    if dataset not in names:
        raise BadCache(f"{path}: no data set {dataset!r}; there are {listing}")
    values = _matrix(np.asarray(arrays[dataset][()]), f"{path}:{dataset}")
    if ids is not None and ids not in names:
        raise BadCache(f"{path}: no data set {ids!r} of clip ids; there are {listing}")
    # Ids beside the numbers, in their group, come before those of the whole file.
    group = dataset.rpartition("/")[0]
    likely = [f"{group}/{name}" for name in ID_NAMES if group] + list(ID_NAMES)
    id_name = ids or next((name for name in likely if name in names), None)
    if id_name is None:
        if guess:
            _refuse_unread_ids(path, arrays, names, dataset, len(values))
        return ArrayRows(path, dataset, values, None)
    listed = np.asarray(arrays[id_name][()])
    if listed.ndim != 1 or len(listed) != len(values):
        raise BadCache(
            f"{path}: ids {id_name!r} of shape {listed.shape} for {len(values)} rows of {dataset!r}"
        )
    texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in listed.tolist()]
    return ArrayRows(path, dataset, values, tuple(texts))


def _refuse_unread_ids(
    path: Path, arrays: Mapping[str, Any], names: Sequence[str], dataset: str, rows: int
) -> None:
    """Refuse to go by the order of rows where texts beside them may be their clip ids."""
    group = dataset.rpartition("/")[0]
    for name in sorted(names, key=lambda n: n.rpartition("/")[0] != group):
        listed = arrays[name]
        if name == dataset or listed.shape != (rows,) or listed.dtype.kind not in "OSUT":
            continue
        # As many different texts as rows: not classes, but names of something.
        if len(set(np.asarray(listed[()]).tolist())) == rows > 1:
            raise BadCache(
                f"{path}: data set {name!r} may be the clip ids of the rows: give --id-column "
                f"{name}, or --rows"
            )


def _matrix(array: NDArray[Any], where: str) -> NDArray[np.float64]:
    """float64 (rows, dim) of an array of numbers; one number a row may be (rows,)."""
    if array.dtype.kind not in "fiub":
        raise BadCache(f"{where}: {array.dtype} was found, numbers are needed")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise BadCache(
            f"{where}: shape {array.shape}, needed is (rows, numbers): one vector a clip, as the "
            "mean over its frames"
        )
    return array.astype(np.float64)


def match_ids(ids: Sequence[str], names: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Find the clips that texts name, by id or path, with or without folder and ending.

    Parameters
    ----------
    ids
        Of another program's rows.
    names
        Id or path of a clip to its id.

    Returns
    -------
    Clip ids, one for each text, the text itself where it names no clip; and what was left out
    of the texts to match them, as ``without ending``, empty for nothing.

    Examples
    --------
    >>> match_ids(["Sad/1.mp4", "Sad/2.mp4"], {"1": "1", "2": "2"})
    (('1', '2'), 'without folder and ending')
    """
    best: tuple[int, tuple[str, ...], str] = (0, tuple(ids), "")
    for how, form in _FORMS.items():
        clips: dict[str, set[str]] = {}
        for name, clip in names.items():
            clips.setdefault(form(name), set()).add(clip)
        found = [clips.get(form(text), set()) for text in ids]
        n = sum(len(clip) == 1 for clip in found)
        # A few may fit by chance, as 7 fits Sad/7.mp4.
        if n > best[0] and (not how or 2 * n > len(ids)):
            matched = (min(c) if len(c) == 1 else t for c, t in zip(found, ids, strict=True))
            best = (n, tuple(matched), how)
    return best[1], best[2]


def _read_csv(path: Path, id_column: str | None, columns: CsvColumns) -> ArrayRows:
    lines = read_csv(path, error=BadCache, missing=MissingCache)
    head = [cell.strip() for cell in lines[0][1]]
    numbered = id_column is not None and id_column not in head and id_column.isdecimal()
    body = lines if numbered or _numbers(head) else lines[1:]
    names = [str(i + 1) for i in range(len(head))] if body is lines else head
    if id_column is not None and id_column not in names:
        raise BadCache(f"{path}: no column {id_column!r}; there are {', '.join(names)}")
    for number, cells in body:
        if len(cells) != len(head):
            raise BadCache(f"{path}:{number}: {len(cells)} cells, the first line has {len(head)}")
    table = {name: [row[i].strip() for _, row in body] for i, name in enumerate(names)}
    id_name = id_column or ("clip_id" if "clip_id" in table else _column_of_ids(table, columns))
    for (number, _), clip in zip(body, table.get(id_name or "", ()), strict=False):
        if not clip:
            raise BadCache(f"{path}:{number}: no clip id in column {id_name}")
    chosen = _value_columns(path, table, id_name, columns)
    values = np.empty((len(body), len(chosen)))
    for j, name in enumerate(chosen):
        for i, cell in enumerate(table[name]):
            if not _is_number(cell):
                hint = "" if id_name else "; give --id-column if it is a clip id"
                raise BadCache(f"{path}:{body[i][0]}: {cell!r} is no number{hint}")
            values[i, j] = float(cell) if cell else np.nan
    if not values.size:
        raise BadCache(f"{path}: it holds no numbers")
    ids = None if id_name is None else tuple(table[id_name])
    return ArrayRows(path, None, values, ids, id_name, chosen)


def _column_of_ids(table: Mapping[str, Sequence[str]], columns: CsvColumns) -> str | None:
    """Return the first column of which most cells name a clip; None for none."""
    known = frozenset(columns.names.values())
    for i, (name, cells) in enumerate(table.items()):
        if known and (i == 0 or not _is_number(cells[0] if cells else "")):
            matched, _ = match_ids(cells, columns.names)
            if 2 * sum(clip in known for clip in matched) > len(cells):
                return name
    return None


def _value_columns(
    path: Path, table: Mapping[str, Sequence[str]], id_name: str | None, columns: CsvColumns
) -> tuple[str, ...]:
    """Return the columns of numbers: those asked for, or all if none looks like ids or labels."""
    for pattern in (*columns.take, *columns.skip):
        if not any(fnmatchcase(name, pattern) for name in table):
            raise BadCache(f"{path}: no column fits {pattern!r}; there are {', '.join(table)}")
    chosen = [
        name
        for name in table
        if name != id_name
        and (not columns.take or any(fnmatchcase(name, p) for p in columns.take))
        and not any(fnmatchcase(name, p) for p in columns.skip)
    ]
    if columns.take:
        return tuple(chosen)
    cure = "name the columns of numbers with --columns, or leave others out with --skip-columns"
    for name in chosen:
        cells = [cell for cell in table[name] if cell]
        if cells and 2 * sum(map(_is_number, cells)) < len(cells):
            raise BadCache(
                f"{path}: column {name!r} holds text, as {cells[0]!r}: {cure}, or give "
                f"--id-column {name} if it names the clips"
            )
        # Beside a column of ids a number may well be whole, unless it is called an id itself.
        like_id = id_name is None or name.casefold().rpartition("_")[2] in ("", "id", "index", "no")
        different = len(cells) > 2 and len(set(cells)) == len(cells)
        if like_id and different and all(cell.isdecimal() for cell in cells):
            raise BadCache(
                f"{path}: column {name!r} holds whole numbers that are all different, as ids do: "
                f"{cure}, or give --id-column {name} if it names the clips"
            )
    return tuple(chosen)


def _is_number(cell: str) -> bool:
    return not cell or _numbers([cell])


def _numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells if cell])
    except ValueError:
        return False
