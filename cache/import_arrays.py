"""Reader of arrays that other programs made: rows of numbers, and the clip ids of the rows.

The formats are ``.npy``, ``.npz``, HDF5, CSV and Parquet. Nothing is unpickled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.untrusted import data_set, data_set_names
from mvemo.manifests.array_files import DAMAGED, NpzFile, read_npy
from mvemo.manifests.cells import are_numbers, to_numbers
from mvemo.manifests.tables import TABLES, match_ids, read_table

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
# Default names of the data set with the clip ids of an .npz or HDF5 file.
ID_NAMES = ("clip_id", "clip_ids")
# Last words in the names of columns with ids.
_ID_WORDS = frozenset(("", "id", "index", "no", "nr", "number"))


@dataclass(frozen=True)
class ArrayRows:
    """Rows of one file.

    Parameters
    ----------
    path, dataset
        Path of the file, and name of the data set if the file may hold several.
    values
        Numbers, (rows, dim), of the type in the file; float64 for tables. NaN for missing numbers.
    clip_ids
        Clip id of each row, or None if the file has no ids.
    id_name, columns
        Columns of a table that hold the ids and the numbers.
    """

    path: Path
    dataset: str | None
    values: NDArray[Any]
    clip_ids: tuple[str, ...] | None
    id_name: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableColumns:
    """Selection of the columns of a table that are read as ids and as numbers."""

    # Id or path -> clip id; the column that holds these ids or paths is the column of ids.
    names: Mapping[str, str] = field(default_factory=dict)
    take: tuple[str, ...] = ()  # patterns of the columns of numbers to read, such as ``f*``
    skip: tuple[str, ...] = ()  # patterns of the columns to leave out
    renamed: Mapping[str, str] = field(default_factory=dict)  # new name -> name in the file


ALL_COLUMNS = TableColumns()


def read_ids(path: Path | str, *, id_column: str | None = None) -> tuple[str, ...]:
    """Return the clip ids of a CSV, in the order of its rows.

    Parameters
    ----------
    path
        Path of the CSV. A file without a header needs a number as `id_column`, or one column.
    id_column
        Name of the column, or its number from 1. Default: ``clip_id``.

    Raises
    ------
    MissingCache
        The file does not exist.
    BadCache
        The column does not exist, or an id is empty.
    """
    path = Path(path)
    table = read_table(path, error=BadCache, missing=MissingCache)
    lines, head = table.rows, table.header
    name = id_column or "clip_id"
    if name in head:
        column, body = head.index(name), lines[1:]
    elif name.isdecimal() and int(name) >= 1:
        column, body = int(name) - 1, lines
    elif id_column is None and len(head) == 1:
        column, body = 0, lines
    else:
        raise BadCache(
            f"{path}: has no column {name!r}; the columns are {', '.join(head)}; if the file has "
            "no header, give the column's number, from 1"
        )
    ids = []
    for number, cells in body:
        if column >= len(cells) or not cells[column].strip():
            raise BadCache(f"{path}:{number}: column {name} has no clip id")
        ids.append(cells[column].strip())
    return tuple(ids)


def _read_numbers(path: Path, id_column: str | None, columns: TableColumns) -> ArrayRows:
    """Read the rows of a table for `read_array`."""
    read = read_table(path, error=BadCache, missing=MissingCache, columns=columns.renamed)
    lines, head = read.rows, read.header
    numbered = id_column is not None and id_column not in head and id_column.isdecimal()
    body = lines if numbered or are_numbers(head) else lines[1:]
    names = [str(i + 1) for i in range(len(head))] if body is lines else head
    if id_column is not None and id_column not in names:
        raise BadCache(f"{path}: has no column {id_column!r}; the columns are {', '.join(names)}")
    for number, cells in body:
        if len(cells) != len(head):
            raise BadCache(
                f"{path}:{number}: the row has {len(cells)} cells, the first line {len(head)}"
            )
    table = {name: [row[i].strip() for _, row in body] for i, name in enumerate(names)}
    id_name = id_column or ("clip_id" if "clip_id" in table else _column_of_ids(table, columns))
    for (number, _), clip in zip(body, table.get(id_name or "", ()), strict=False):
        if not clip:
            raise BadCache(f"{path}:{number}: column {id_name} has no clip id")
    chosen = _value_columns(path, table, id_name, columns)
    values = np.empty((len(body), len(chosen)))
    for j, name in enumerate(chosen):
        for (number, _), cell in zip(body, table[name], strict=True):
            if not _is_number(cell):
                hint = "" if id_name else ": give --id-column if it is a clip id"
                raise BadCache(f"{path}:{number}: {cell!r} is not a number{hint}")
        values[:, j] = to_numbers([cell or "nan" for cell in table[name]])
    if not values.size:
        raise BadCache(f"{path}: holds no numbers")
    ids = None if id_name is None else tuple(table[id_name])
    return ArrayRows(path, None, values, ids, id_name, chosen)


def _column_of_ids(table: Mapping[str, Sequence[str]], columns: TableColumns) -> str | None:
    """Return the first column in which most cells name a clip, or None."""
    known = frozenset(columns.names.values())
    for i, (name, cells) in enumerate(table.items()):
        if known and (i == 0 or not _is_number(cells[0] if cells else "")):
            matched, _ = match_ids(cells, columns.names)
            if 2 * sum(clip in known for clip in matched) > len(cells):
                return name
    return None


def _value_columns(
    path: Path, table: Mapping[str, Sequence[str]], id_name: str | None, columns: TableColumns
) -> tuple[str, ...]:
    """Return the requested columns, or all; raise BadCache if one looks like ids or text."""
    matches = {
        pattern: {name for name in table if fnmatchcase(name, pattern)}
        for pattern in (*columns.take, *columns.skip)
    }
    for pattern, names in matches.items():
        if not names:
            listing = ", ".join(table)
            raise BadCache(f"{path}: no column matches {pattern!r}; the columns are {listing}")
    taken = set[str]().union(*(matches[p] for p in columns.take)) if columns.take else {*table}
    left_out = {id_name}.union(*(matches[p] for p in columns.skip))
    chosen = tuple(name for name in table if name in taken - left_out)
    for name in () if columns.take else chosen:
        cells = [cell for cell in table[name] if cell]
        # If ids are known, a column of whole numbers is refused only if its name looks like an id.
        like_id = id_name is None or name.casefold().rpartition("_")[2] in _ID_WORDS
        different = len(cells) > 2 and len(set(cells)) == len(cells)
        if cells and 2 * sum(map(_is_number, cells)) < len(cells):
            problem = f"holds text, such as {cells[0]!r}"
        elif like_id and different and all(cell.isdecimal() for cell in cells):
            problem = "holds different whole numbers, like a column of ids"
        else:
            continue
        raise BadCache(
            f"{path}: column {name!r} {problem}: name the columns of numbers with --columns, or "
            f"leave this one out with --skip-columns, or give --id-column {name} if it names the "
            "clips"
        )
    return chosen


def _is_number(cell: str) -> bool:
    return cell.casefold() in ("", "nan") or are_numbers([cell])


def read_array(
    source: str | Path,
    *,
    dataset: str | None = None,
    id_column: str | None = None,
    guess: bool = True,
    columns: TableColumns = ALL_COLUMNS,
) -> ArrayRows:
    """Read rows of numbers.

    Parameters
    ----------
    source
        Path of an ``.npy``, ``.npz``, HDF5 (``.h5``, ``.hdf5``) or table file (CSV, Parquet).
        ``file.h5:name`` also names the data set. A table has a header, and a row of numbers
        per clip with empty cells for missing values; without an id column, it may consist of
        numbers only, without a header.
    dataset
        Data set of an ``.npz`` or HDF5 file. Default: ``values``, or the only numeric one.
    id_column
        Column or data set with the clip ids. Default: ``clip_id`` (in ``.npz`` and HDF5 also
        ``clip_ids``) if it exists; in HDF5, the group of the numbers is searched first.
    guess
        If True, refuse a file without clip ids if another data set of texts may hold them.
    columns
        Columns of a table. A column of text, or of whole numbers that are all different, must
        be requested by name.

    Raises
    ------
    MissingCache
        The file does not exist.
    BadCache
        The file cannot be read, lacks the data set, or does not hold rows of numbers.

    Examples
    --------
    >>> _ = Path("theirs.csv").write_text("clip_id,energy,tempo\\na,0.5,120\\nb,,90\\n")
    >>> array = read_array("theirs.csv")
    >>> array.clip_ids, array.values.tolist()
    (('a', 'b'), [[0.5, 120.0], [nan, 90.0]])
    """
    path, named = split_source(source)
    dataset = named or dataset
    if not path.is_file():
        raise MissingCache(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        if dataset is not None:
            raise BadCache(f"{path}: a table has no data sets: leave out {dataset!r}")
        return _read_numbers(path, id_column, columns)
    try:
        if suffix == ".npy":
            if dataset is not None:
                raise BadCache(f"{path}: an .npy file has no data sets: leave out {dataset!r}")
            if id_column is not None:
                raise BadCache(f"{path}: an .npy file has no clip ids {id_column!r}: give --rows")
            return ArrayRows(path, None, _matrix(read_npy(path), str(path)), None)
        if suffix == ".npz":
            with NpzFile(path) as arrays:
                names = list(arrays)
                return _from_mapping(path, arrays.__getitem__, names, dataset, id_column, guess)
        if suffix in HDF5:
            with h5py.File(path, "r") as file:
                get = partial(data_set, file, size=path.stat().st_size)
                names = data_set_names(file)
                return _from_mapping(path, get, names, dataset, id_column, guess)
    except BadCache:
        raise
    except (ValueError, *DAMAGED) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise BadCache(f"{path}: cannot be read as an array: {what}") from None
    known = ", ".join((".npy", ".npz", *HDF5, *TABLES))
    raise BadCache(f"{path}: unknown suffix {path.suffix!r}: expected one of {known}")


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """Split ``file.h5:name`` into the file and the name of the data set, or None."""
    text = str(source)
    front, mark, name = text.rpartition(":")
    # A colon may also be part of the file's name or of a drive.
    if mark and name and Path(front).suffix.lower() in (*HDF5, ".npz") and not Path(text).exists():
        return Path(front), name
    return Path(text), None


def _from_mapping(
    path: Path,
    get: Callable[[str], Any],
    names: Sequence[str],
    dataset: str | None,
    ids: str | None,
    guess: bool,
) -> ArrayRows:
    """Read the rows of an ``.npz`` or HDF5 file; `get` returns the array of a name."""
    listing = ", ".join(names) or "none"
    if dataset is None:
        id_names = (ids,) if ids else ID_NAMES
        numeric = [n for n in names if n not in id_names and get(n).dtype.kind in "fiub"]
        if "values" not in numeric and len(numeric) != 1:
            raise BadCache(
                f"{path}: it is unclear which data set holds the numbers: name one of {listing}"
            )
        dataset = "values" if "values" in numeric else numeric[0]
    dataset = dataset.strip("/")
    for name, what in ((dataset, ""), (ids, " of clip ids")):
        if name is not None and name not in names:
            raise BadCache(f"{path}: has no data set {name!r}{what}; the data sets are {listing}")
    values = _matrix(np.asarray(get(dataset)[()]), f"{path}:{dataset}")
    # Ids in the group of the numbers take precedence over ids of the whole file.
    group = dataset.rpartition("/")[0]
    likely = [f"{group}/{name}" for name in ID_NAMES if group] + list(ID_NAMES)
    id_name = ids or next((name for name in likely if name in names), None)
    if id_name is None:
        # Data sets of the same group come first.
        others = sorted(names, key=lambda n: n.rpartition("/")[0] != group)
        for name in others if guess else ():
            if name != dataset and _may_be_ids(get(name), len(values)):
                raise BadCache(
                    f"{path}: data set {name!r} may hold the clip ids of the rows: give "
                    f"--id-column {name}, or --rows"
                )
        return ArrayRows(path, dataset, values, None)
    listed = np.asarray(get(id_name)[()])
    if listed.ndim != 1 or len(listed) != len(values):
        raise BadCache(
            f"{path}: clip ids {id_name!r}: expected shape ({len(values)},) for the rows of "
            f"{dataset!r}, got {listed.shape}"
        )
    texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in listed.tolist()]
    return ArrayRows(path, dataset, values, tuple(texts))


def _may_be_ids(listed: Any, rows: int) -> bool:
    """Return True for an array with a different text per row, which may be names of clips."""
    if listed.shape != (rows,) or listed.dtype.kind not in "OSUT":
        return False
    return len(set(np.asarray(listed[()]).tolist())) == rows > 1


def _matrix(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return an array of numbers as (rows, dim); (rows,) becomes (rows, 1)."""
    if array.dtype.kind not in "fiub":
        raise BadCache(f"{where}: expected numbers, got {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise BadCache(
            f"{where}: expected shape (rows, numbers), got {array.shape}: give one vector per "
            "clip, such as the mean over its frames"
        )
    return array
