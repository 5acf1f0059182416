"""CSV files, read with line numbers and written safely for spreadsheets."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CsvRow = tuple[int, list[str]]
# Excel's line above a table that states the separator of its cells.
_STATED = re.compile(r"\s*\"?sep=(.)\"?\s*$", re.IGNORECASE)
# The beginning of a cell that a spreadsheet would run as a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class CsvWriter:
    """Writer of CSV rows that are safe to open in a spreadsheet.

    A spreadsheet could run text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end
    as a formula. Such text is written after an apostrophe, which `iter_csv` removes. Numbers are
    not changed.

    Examples
    --------
    >>> import io
    >>> text = io.StringIO()
    >>> CsvWriter(text).writerow(["=1+1", "-0.5", -1, "a"])
    >>> text.getvalue(), list(iter_csv([text.getvalue()]))
    ("'=1+1,-0.5,-1,a\\n", [(1, ['=1+1', '-0.5', '-1', 'a'])])
    """

    def __init__(self, file: Any) -> None:
        self._writer = csv.writer(file, lineterminator="\n")

    def writerow(self, row: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow([_harmless(c) if isinstance(c, str) else c for c in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write several rows."""
        for row in rows:
            self.writerow(row)


def _harmless(cell: str) -> str:
    if not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


class BadText(ValueError):
    """Error for a file that is not text or not a table; line 0 means the whole file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte-order mark; keep its line ends."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise BadText(line, problem) from None
    if "\0" in text:
        raise BadText(text.count("\n", 0, text.index("\0")) + 1, "a zero byte; not a text file")
    if not text.strip():
        raise BadText(0, "the file is empty")
    return text


def iter_csv(lines: Iterable[str], first: int = 1) -> Iterator[CsvRow]:
    """Yield line number and cells of each row that is not blank.

    Cells are separated by commas, or by semicolons or tabs if the first row has no comma outside
    of quotes. A first line ``sep=;``, as Excel writes it, states the separator.
    """
    lines = iter(lines)
    before = list(_to_first_row(lines))
    stated = _STATED.match(before[-1]) if before else None
    if stated:
        first += len(before)
        before = list(_to_first_row(lines))
    mark = stated[1] if stated else _separator(before[-1]) if before else ","
    reader = csv.reader(itertools.chain(before, lines), strict=True, delimiter=mark)
    start = 0
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                if "'" in "".join(cells):
                    cells = [c[1:] if c[:1] == "'" and _FORMULA.match(c) else c for c in cells]
                yield first + start, cells
            start = reader.line_num
    except csv.Error as error:
        raise BadText(first + start, f"not CSV from here on: {error}") from None


def _to_first_row(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines up to the first that is not blank."""
    for line in lines:
        yield line
        if line.strip():
            return


def _separator(header: str) -> str:
    """Return the separator of the cells in a header, ignoring quoted text."""
    header = re.sub('"[^"]*"', "", header)
    if "," in header:
        return ","
    return next((mark for mark in ";\t" if mark in header), ",")
