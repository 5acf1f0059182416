"""Reader of arrays that other programs made: rows of numbers, and the clip ids of the rows.

The formats are ``.npy``, ``.npz``, HDF5, CSV and Parquet. Nothing is unpickled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.clip_columns import ID_NAMES, find_ids, is_label, names_clips, texts_of
from mvemo.cache.errors import BadCache
from mvemo.cache.table import ClipTable
from mvemo.cache.untrusted import data_set, data_set_names
from mvemo.manifests.array_files import DAMAGED, NpzFile, read_npy
from mvemo.manifests.cells import are_numbers, to_numbers
from mvemo.manifests.errors import MissingFile, MvemoError
from mvemo.manifests.tables import TABLES, match_ids, read_table
from mvemo.manifests.text_table import listed

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
# Last words in the names of columns with ids.
_ID_WORDS = frozenset(("", "id", "index", "no", "nr", "number"))


@dataclass(frozen=True)
class FileRows:
    """Rows of one file."""

    path: Path
    dataset: str | None  # name of the data set if the file may hold several
    values: NDArray[Any]  # (rows, dim), of the type in the file; NaN for missing numbers
    clip_ids: tuple[str, ...] | None  # clip id of each row; None if the file has no ids
    # Columns of a table (or data set) that hold the ids and the numbers, and columns that were not
    # read, because they state labels, folds or groups.
    id_name: str | None = None
    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableColumns:
    """Selection of the columns of a table that are read as ids and as numbers."""

    # Id or path -> clip id, in the order of the clips; a column of such texts is one of ids.
    names: Mapping[str, str] = field(default_factory=dict)
    take: tuple[str, ...] = ()  # patterns of the columns of numbers to read, such as ``f*``
    skip: tuple[str, ...] = ()  # patterns of the columns to leave out
    renamed: Mapping[str, str] = field(default_factory=dict)  # new name -> name in the file
    table: ClipTable | None = None  # clips whose labels are no features


ALL_COLUMNS = TableColumns()


def read_ids(path: Path | str, *, id_column: str | None = None) -> tuple[str, ...]:
    """Return the clip ids of a CSV, in the order of its rows.

    `id_column` is the name of the column, or its number from 1; default: ``clip_id``. A file
    without a header needs a number, or one column.
    """
    path = Path(path)
    table = read_table(path)
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
            f"{path}: has no column {name!r}; the columns are {listed(head)}; if the file has "
            "no header, give the column's number, from 1"
        )
    ids = []
    for number, cells in body:
        if column >= len(cells) or not cells[column].strip():
            raise BadCache(f"{path}:{number}: column {name} has no clip id")
        ids.append(cells[column].strip())
    return tuple(ids)


def _read_numbers(path: Path, id_column: str | None, columns: TableColumns) -> FileRows:
    """Read the rows of a table for `read_array`."""
    read = read_table(path, columns=columns.renamed)
    lines, head = read.rows, read.header
    for number, row in lines:
        if (n := len(row)) != len(head):
            raise BadCache(f"{path}:{number}: the row has {n} cells, the first line {len(head)}")
    cells = [[row[i].strip() for _, row in lines] for i in range(len(head))]
    numbered = id_column is not None and id_column not in head and id_column.isdecimal()
    names = head
    if numbered or _is_row(path, cells, columns):
        names = [str(i + 1) for i in range(len(head))]
    first = int(names is head)
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadCache(f"{path}: {names.count(twice[0])} columns are named {twice[0]!r}")
    table = {name: column[first:] for name, column in zip(names, cells, strict=True)}
    rows = [number for number, _ in lines[first:]]
    return numbers_of(path, table, id_column, columns, rows, read.points)


def _is_row(path: Path, cells: Sequence[Sequence[str]], columns: TableColumns) -> bool:
    """Return True if the first cells of a table's columns are a row of numbers, not a header."""
    head = [column[0] for column in cells]
    if not any(cell and _is_number(cell) for cell in head):
        return False
    below = {str(i): column[1:] for i, column in enumerate(cells)}
    for name in find_ids(str(path), below, columns.names, skipped=below)[:1]:
        cell, others = head[int(name)], [h for i, h in enumerate(head) if i != int(name)]
        numbers = are_numbers(others) and not all(map(str.isdigit, others))
        is_clip = match_ids([cell], columns.names)[0][0] in columns.names.values()
        return is_clip or (bool(cell) and numbers)
    filled = [*filter(None, head)]
    # pandas numbers the columns.
    return are_numbers(head) and filled != [str(i) for i in range(len(filled))]


def numbers_of(
    path: Path,
    table: Mapping[str, Any],
    id_column: str | None,
    columns: TableColumns,
    lines: Sequence[int],
    points: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> FileRows:
    """Return the ids and the numbers in the columns of a table; `lines` are the rows' line numbers.

    `points` replaces decimal commas in the texts of a column.
    """
    if id_column is None and "clip_id" in columns.renamed:
        id_column = "clip_id"
    if id_column is not None and id_column not in table:
        raise BadCache(f"{path}: has no column {id_column!r}; the columns are {listed([*table])}")
    labels = {name for name in table if is_label(name, columns.table)} - {*columns.take}
    skipped = _matching(path, columns.skip, table) | labels
    found: tuple[str, ...] = (id_column,) if id_column is not None else ()
    found = found or find_ids(str(path), table, columns.names, columns.take, skipped)
    found = found or ("clip_id",) * ("clip_id" in table)
    ids = tuple(texts_of(table[found[0]])) if found else None
    if ids and "" in ids:
        raise BadCache(f"{path}:{lines[ids.index('')]}: column {found[0]} has no clip id")
    if points is not None:
        table = {n: cells if n in found else points(cells) for n, cells in table.items()}
    # pandas numbers the rows in a column without a name.
    counts = {n for n in table if found and names_clips(n) and not names_clips(n, table[n])}
    chosen = _value_columns(path, table, found, columns, skipped | counts)
    values = np.empty((len(lines), len(chosen)))
    for j, name in enumerate(chosen):
        values[:, j] = _as_numbers(path, table[name], lines, bool(found))
    if not values.size:
        raise BadCache(f"{path}: holds no numbers")
    left_out = tuple(name for name in table if name in labels - {*found})
    return FileRows(path, None, values, ids, found[0] if found else None, chosen, left_out)


def read_frame(
    frame: Any, clip_ids: Sequence[Any] | None = None, columns: TableColumns = ALL_COLUMNS
) -> FileRows:
    """Return the rows of a data frame of pandas or Polars.

    Its index, each level of it and each column is compared with the names of the clips, unless
    `clip_ids` has the ids of the rows.
    """
    where = Path("data frame")
    table = {str(name): np.asarray(frame[name]) for name in frame.columns}
    if len(table) != len(frame.columns) or any(v.ndim > 1 for v in table.values()):
        raise BadCache(f"{where}: several columns have one name: rename them")
    index = getattr(frame, "index", None)
    levels: dict[str, Any] = {}
    for i in range(getattr(index, "nlevels", 0)):
        name = str(index.names[i] or f"index level {i}")  # type: ignore[union-attr]
        values = index.get_level_values(i)  # type: ignore[union-attr]
        levels[f"index {name}" if name in table else name] = np.asarray(values)
    columns = replace(columns, skip=tuple(levels))
    lines = range(1, len(frame) + 1)
    if clip_ids is not None:
        return numbers_of(where, {**levels, **table, "": clip_ids}, "", columns, lines)
    rows = numbers_of(where, {**levels, **table}, None, columns, lines)
    if rows.clip_ids is None and levels:
        texts = texts_of(next(iter(levels.values())))
        counted = texts == [str(i) for i in range(len(frame))]
        if not counted or {*match_ids(texts, columns.names)[0]} & {*columns.names.values()}:
            raise BadCache(
                f"{where}: it is unclear if its index names the clips: pass clip_ids, or "
                "frame.to_numpy() if the rows have the order of the clips"
            )
    return rows


def _as_numbers(path: Path, cells: Any, lines: Sequence[int], has_ids: bool) -> NDArray[Any]:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        return cells
    texts = texts_of(cells)
    try:
        return np.array(to_numbers([cell or "nan" for cell in texts]))
    except ValueError:
        for number, cell in zip(lines, texts, strict=True):
            if not _is_number(cell):
                hint = "" if has_ids else ": give --id-column if it is a clip id"
                raise BadCache(f"{path}:{number}: {cell!r} is not a number{hint}") from None
        raise


def _matching(path: Path, patterns: Sequence[str], table: Mapping[str, Any]) -> set[str]:
    """Return the columns that match any of the patterns, each of which must match one."""
    matched = [{n for n in table if n == p or fnmatchcase(n, p)} for p in patterns]
    if not all(matched):
        bad = patterns[matched.index(set())]
        raise BadCache(f"{path}: no column matches {bad!r}; the columns are {listed([*table])}")
    return set[str]().union(*matched)


def _value_columns(
    path: Path,
    table: Mapping[str, Any],
    ids: Sequence[str],
    columns: TableColumns,
    left_out: set[str],
) -> tuple[str, ...]:
    """Return the requested columns, or all; raise BadCache if one looks like ids or text."""
    taken = _matching(path, columns.take, table) if columns.take else {*table}
    chosen = tuple(name for name in table if name in taken - left_out - {*ids})
    for name in () if columns.take else chosen:
        column = table[name]
        kind = column.dtype.kind if isinstance(column, np.ndarray) else ""
        # Whole numbers with a missing one have a floating-point type, and may be ids.
        if kind == "b" or (kind == "f" and (np.isfinite(column) & (column % 1 != 0)).any()):
            continue
        cells = texts_of(column)
        filled = [cell for cell in cells if cell]
        # If ids are known, a column of whole numbers is refused only if its name looks like an id.
        like_id = not ids or name.casefold().rpartition("_")[2] in _ID_WORDS
        different = len(filled) > 2 and len(set(filled)) == len(filled)
        if filled and 2 * sum(map(_is_number, filled)) < len(filled):
            problem = f"holds text, such as {filled[0]!r}"
        elif like_id and different and all(_is_number(c) and float(c) % 1 == 0 for c in filled):
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
) -> FileRows:
    """Read rows of numbers.

    `source` is an ``.npy``, ``.npz``, HDF5 (``.h5``, ``.hdf5``) or table file (CSV, Parquet), or
    ``file.h5:name`` for a data set. A table has a header, and a row of numbers per clip with
    empty cells for missing values; without an id column, it may consist of numbers only.

    `dataset` and `id_column` are by default ``values``, or the only numeric data set, and
    ``clip_id`` or any that names the clips; in HDF5, the group of the numbers is searched first.
    With `guess`, a file without clip ids is refused if another data set of texts may hold them.

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
        raise MissingFile(f"{path}: no such file")
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
            return FileRows(path, None, _matrix(read_npy(path), str(path)), None)
        if suffix == ".npz":
            with NpzFile(path) as arrays:
                mapping = _Mapping(path, arrays.__getitem__, [*arrays], columns)
                return mapping.read(dataset, id_column, guess)
        if suffix in HDF5:
            with h5py.File(path, "r") as file:
                get = partial(data_set, file, size=path.stat().st_size)
                mapping = _Mapping(path, get, data_set_names(file), columns)
                return mapping.read(dataset, id_column, guess)
    except MvemoError:
        raise
    except DAMAGED as error:
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


@dataclass(frozen=True)
class _Mapping:
    """Arrays of an ``.npz`` or HDF5 file; `get` returns the array of a name."""

    path: Path
    get: Callable[[str], Any]
    names: Sequence[str]
    columns: TableColumns

    def read(self, dataset: str | None, ids: str | None, guess: bool) -> FileRows:
        dataset = (dataset or self._dataset(ids)).strip("/")
        for name, what in ((dataset, ""), (ids, " of clip ids")):
            if name is not None and name not in self.names:
                known = listed(self.names)
                raise BadCache(f"{self.path}: has no data set {name!r}{what}; there are {known}")
        values = _matrix(np.asarray(self.get(dataset)[()]), f"{self.path}:{dataset}")
        id_name = ids or (self._id_name(dataset, len(values)) if guess else None)
        texts = None
        if id_name is not None:
            listed_ids = np.asarray(self.get(id_name)[()])
            if listed_ids.size != len(values) or len(listed_ids) != len(values):
                raise BadCache(
                    f"{self.path}: clip ids {id_name!r}: expected shape ({len(values)},) for the "
                    f"rows of {dataset!r}, got {listed_ids.shape}"
                )
            texts = tuple(texts_of(listed_ids.ravel()))
        return FileRows(self.path, dataset, values, texts, id_name)

    def _dataset(self, ids: str | None) -> str:
        """Return the data set with the numbers, which is neither one of ids nor one of labels."""
        others = [n for n in self.names if n not in ((ids,) if ids else ID_NAMES)]
        numeric = [n for n in others if self.get(n).dtype.kind in "fiub"]
        if "values" in numeric:
            return "values"
        if len(numeric) > 1:
            facts = {n for n in numeric if self.get(n).shape[1:] in ((), (1,)) and names_clips(n)}
            numeric = [n for n in numeric if n not in facts]
        numeric = [n for n in numeric if not is_label(n.rpartition("/")[2], self.columns.table)]
        if len(numeric) == 1:
            return numeric[0]
        text = f"{self.path}: it is unclear which data set holds the numbers: name one of"
        raise BadCache(f"{text} {listed(self.names) or 'none'}")

    def _id_name(self, dataset: str, rows: int) -> str | None:
        """Return the data set with the clip ids of the rows of another, None if there is none."""
        # Ids in the group of the numbers take precedence over ids of the whole file.
        group = dataset.rpartition("/")[0]
        others = sorted(self.names, key=lambda n: n.rpartition("/")[0] != group)
        lists = {n: self.get(n) for n in others if n != dataset}
        cells = {
            n: np.asarray(v[()]).ravel()
            for n, v in lists.items()
            if v.shape in ((rows,), (rows, 1)) and v.dtype.kind in "OSUTifu"
        }
        labels = {n for n in cells if is_label(n.rpartition("/")[2], self.columns.table)}
        found = find_ids(str(self.path), cells, self.columns.names, skipped=labels)
        likely = [f"{group}/{name}" for name in ID_NAMES if group] + [*ID_NAMES]
        if named := [*found, *(name for name in likely if name in self.names)]:
            return named[0]
        for name, values in cells.items():
            # Names of clips are different texts, or numbers if the data set's name says so.
            if len({*texts_of(values)}) == rows > 1 and (
                values.dtype.kind in "OSUT" or (values.dtype.kind in "iu" and names_clips(name))
            ):
                raise BadCache(
                    f"{self.path}: data set {name!r} may hold the clip ids of the rows: give "
                    f"--id-column {name}, or --rows"
                )
        return None


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
