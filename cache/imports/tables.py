"""Reader of tables that other programs made: rows of numbers, and clip ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.manifests.tables import are_numbers, match_ids, read_table


@dataclass(frozen=True)
class ArrayRows:
    """Rows of one file.

    Parameters
    ----------
    path
        Path of the file.
    dataset
        Name of the data set, if the file may hold several.
    values
        Numbers, float64 (rows, dim); NaN for missing ones.
    clip_ids
        Clip id of each row, or None if the file has no ids.
    id_name
        Column of a table that holds the ids.
    columns
        Columns of a table that hold the numbers.
    """

    path: Path
    dataset: str | None
    values: NDArray[np.float64]
    clip_ids: tuple[str, ...] | None
    id_name: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableColumns:
    """Selection of the columns of a table that are read as ids and as numbers."""

    # Clip id by id and by path; a column that holds these names is the column of ids.
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
        Path of the CSV. It needs no header if `id_column` is a number or the file has only
        one column.
    id_column
        Name of the column, or its number from 1 in a file without a header. Default:
        ``clip_id``.

    Raises
    ------
    MissingCache
        The file does not exist.
    BadCache
        The column does not exist, or an id is empty.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("clip_id\\na\\nb\\n")
    >>> read_ids(path)
    ('a', 'b')
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
            f"{path}: no column {name!r}; there are {', '.join(head)}; of a file without a "
            "header, give the column's number, from 1"
        )
    ids = []
    for number, cells in body:
        if column >= len(cells) or not cells[column].strip():
            raise BadCache(f"{path}:{number}: no clip id in column {name}")
        ids.append(cells[column].strip())
    return tuple(ids)


def read_numbers(path: Path, id_column: str | None, columns: TableColumns) -> ArrayRows:
    """Read the rows of a table for `read_array`."""
    read = read_table(path, error=BadCache, missing=MissingCache, columns=columns.renamed)
    lines, head = read.rows, read.header
    numbered = id_column is not None and id_column not in head and id_column.isdecimal()
    body = lines if numbered or are_numbers(head) else lines[1:]
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
    """Return the columns of numbers: those requested, or all if none looks like ids or labels."""
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
        # If ids are known, a column of whole numbers is accepted unless its name looks like an id.
        like_id = id_name is None or name.casefold().rpartition("_")[2] in ("", "id", "index", "no")
        different = len(cells) > 2 and len(set(cells)) == len(cells)
        if like_id and different and all(cell.isdecimal() for cell in cells):
            raise BadCache(
                f"{path}: column {name!r} holds whole numbers that are all different, as ids do: "
                f"{cure}, or give --id-column {name} if it names the clips"
            )
    return tuple(chosen)


def _is_number(cell: str) -> bool:
    return not cell or are_numbers([cell])
