"""Rows of Parquet and Excel files, as texts like those of a CSV."""

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvemo.manifests.errors import BadText

CsvRow = tuple[int, list[str]]  # line and cells


def parquet_rows(path: Path) -> Iterator[CsvRow]:
    """Yield the rows of a Parquet file like those of a CSV, with the header as line 1."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        columns = parquet.ParquetFile(path).read().to_pydict()
    except ImportError:
        cure = "run 'pip install pyarrow', or save the table as CSV"
        raise BadText(0, f"reading Parquet needs pyarrow: {cure}") from None
    except (ValueError, NotImplementedError, MemoryError) as error:
        raise BadText(0, f"the file is not Parquet: {str(error).splitlines()[0]}") from None
    yield 1, list(columns)
    for number, row in enumerate(zip(*columns.values(), strict=True), start=2):
        yield number, [*map(_cell_of, row)]


def excel_rows(path: Path) -> Iterator[CsvRow]:
    """Yield the rows of an Excel file that are not blank; only one sheet may have cells."""
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError:
        cure = "run 'pip install openpyxl', or save the table as CSV"
        raise BadText(0, f"reading Excel needs openpyxl: {cure}") from None
    with path.open("rb") as file:
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = {
                sheet.title: _sheet_cells([*sheet.iter_rows(values_only=True)])
                for sheet in book.worksheets
            }
        except OSError:
            raise
        except Exception as error:  # openpyxl documents no errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadText(0, f"the file is not an Excel table: {reason}") from None
    filled = {name: rows for name, rows in sheets.items() if any(map(any, rows))}
    if len(filled) != 1:
        listed = ", ".join(map(repr, filled)) or "none"
        raise BadText(0, f"expected one sheet with cells, got {listed}: save the table as CSV")
    ((_, rows),) = filled.items()
    width = max(i + 1 for i, cell in enumerate(next(filter(any, rows))) if cell)
    for number, row in enumerate(rows, start=1):
        if any(row):
            n_cells = max(width, *(i + 1 for i, cell in enumerate(row) if cell))
            yield number, (row + [""] * n_cells)[:n_cells]


def _sheet_cells(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Return the cells of a sheet; among words, booleans are the words TRUE and FALSE."""
    filled = (row for row in rows if any(value is not None for value in row))
    next(filled, None)
    words = {i for row in filled for i, value in enumerate(row) if isinstance(value, str)}
    return [
        [
            str(value).upper() if isinstance(value, bool) and i in words else _cell_of(value)
            for i, value in enumerate(row)
        ]
        for row in rows
    ]


def _cell_of(value: Any) -> str:
    """Return a value of Parquet or Excel as a CSV cell: booleans as 0 and 1, lists as JSON."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)
