"""Tables (CSV, Parquet, Excel): reading, writing, cells, and matching of their clip names."""

from __future__ import annotations

import codecs
import csv
import gc
import importlib
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mvemo.manifests.cells import are_numbers, to_whole
from mvemo.manifests.errors import BadManifest, MissingManifest, Problem, Problems
from mvemo.manifests.files import MakeError, parse_json, shown, write_bytes

MANIFEST_VERSION = "1"
# Columns of a manifest that cannot be targets or tags.
RESERVED = ("label", "path", "clip_id", "group", "start", "duration", "fold", "split")
# Suffixes of table files.
PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")
TABLES = (".csv", ".tsv", *PARQUET, *EXCEL)
# A table with all of these columns was written by `mvemo predict`.
_OF_PREDICT = frozenset({"model", "notes", "error"})
_SETTING = re.compile(r"#\s*([A-Za-z]+)\s*:\s*(.*)$")
_VERSION = re.compile(r"#\s*mvemo\s+([a-z]+)\s+(\S+)\s*$")
# Excel's line above a table that states the separator of its cells.
_STATED = re.compile(r"\s*\"?sep=(.)\"?\s*$", re.IGNORECASE)
# The beginning of a cell that a spreadsheet would run as a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
# A number with a decimal comma, or without decimals.
_COMMA = re.compile(r"\s*[+-]?\d+(?:,\d+)?(?:e[+-]?\d+)?\s*", re.IGNORECASE)
# Characters of no width: zero-width space, word joiner, byte-order mark.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")

CsvRow = tuple[int, list[str]]  # line and cells


class BadText(ValueError):
    """Error for a file that is not a table in text form: line (0 for the whole file), message."""


@dataclass(frozen=True)
class Table:
    """Content of a table file."""

    kind: str = ""  # KIND of the line ``# mvemo KIND VERSION``, or empty
    version: str = ""  # VERSION of that line, or empty
    # Lines ``# key: value``: key in lower case -> (line, value).
    settings: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    rows: tuple[CsvRow, ...] = ()  # (line, cells), header first, without blank lines

    def setting(self, key: str, default: str) -> str:
        """Return the value of a setting, or the default if it is missing or empty."""
        return self.settings.get(key, (0, ""))[1] or default

    def line(self, key: str) -> int:
        """Return the line of a setting, or 0 if it is missing."""
        return self.settings.get(key, (0, ""))[0]

    @property
    def header(self) -> list[str]:
        """Names of the columns; empty for an empty table."""
        return [plain_text(cell.strip()) for cell in self.rows[0][1]] if self.rows else []

    def cells(self, name: str, most: int = 0) -> list[str]:
        """Return the cells of a column, except in short rows; empty if there is no such column.

        If `most` is given, only about as many cells are returned, from all over the column.
        """
        header = self.header
        if name not in header:
            return []
        i = header.index(name)
        step = -(-len(self.rows) // most) if most else 1
        return [cells[i].strip() for _, cells in self.rows[1::step] if cells[i:]]

    def full_rows(self, problems: Problems) -> Iterator[CsvRow]:
        """Yield the rows below the header; report rows with another number of cells."""
        width = len(self.header)
        for line, cells in self.rows[1:]:
            if len(cells) == width:
                yield line, cells
            else:
                problems.add(line, f"the row has {len(cells)} cells, the header {width}")

    @property
    def predicted_by(self) -> str:
        """Models that predicted the labels; empty if `mvemo predict` did not write the table."""
        names = self.header
        if self.kind or not {*names} >= _OF_PREDICT or "" in names[names.index("model") :][1:2]:
            return ""  # the predicted column lost its name because another column is the label
        models = filter(None, self.cells("model"))
        return ", ".join(sorted({name.rpartition("/")[0] or name for name in models}))

    def renamed(self, columns: Mapping[str, str]) -> Table:
        """Return the table with renamed columns; `columns` maps our names to the file's."""
        if not columns:
            return self
        theirs = self.header
        # Another column that already has one of our names loses its name.
        names = ["" if name in {*columns, *columns.values()} else name for name in theirs]
        copied = []
        for ours, name in columns.items():
            if theirs.count(name) != 1:
                n = theirs.count(name) or "no"
                raise BadText(1, f"{n} column {name!r} for {ours}; the columns are {theirs}")
            i = theirs.index(name)
            if names[i]:
                copied.append(i)
                names.append(ours)
            else:
                names[i] = ours
        (line, _), *rows = self.rows
        if copied:
            # Rows that are too short are left to later checks.
            rows = [(n, [*row, *(row[i] for i in copied if row[i:])]) for n, row in rows]
        return replace(self, rows=((line, names), *rows))

    def with_path(self) -> Table:
        """Return the table with a column ``file`` renamed to ``path``, if there is no ``path``.

        In a table of `mvemo predict`, the column ``duration`` loses its name.
        """
        renamed = {}
        if "path" not in self.header and "file" in self.header:
            renamed["path"] = "file"
        if not self.kind and {*self.header} >= _OF_PREDICT | {"content", "duration"}:
            renamed[""] = "duration"
        return self.renamed(renamed)


# --- reading


def read_table(
    path: Path,
    *,
    error: MakeError,
    missing: MakeError | None = None,
    columns: Mapping[str, str] | None = None,
) -> Table:
    """Read a table, rename its columns (`Table.renamed`), and raise the caller's errors."""
    with _reading(path, error, missing):
        table = _load_table(path).renamed(columns or {})
        if not table.rows:
            raise BadText(0, "the table has no rows")
        return table


def collect_table(
    path: Path, problems: Problems, columns: Mapping[str, str] | None = None
) -> Table:
    """Read a table of clips; errors in its content are added to `problems`."""
    if path.is_dir():
        problems.add(0, "this is a folder: make a manifest of it with 'mvemo manifest scan'")
        return Table()
    with _reading(path, BadManifest, MissingManifest):
        try:
            return _load_table(path).renamed(columns or {})
        except BadText as error:
            problems.add(*error.args)
            return Table()


def read_lines(path: Path, *, error: MakeError) -> list[str]:
    """Return the lines of a UTF-8 file that are not blank, without blanks around them."""
    with _reading(path, error):
        return [line.strip() for line in _read_text(path).splitlines() if line.strip()]


@contextmanager
def _reading(path: Path, error: MakeError, missing: MakeError | None = None) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise (missing or error)(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except BadText as problem:
        raise error(str(Problem(path, *problem.args))) from None


def _load_table(path: Path) -> Table:
    """Read Parquet, Excel, or a CSV in Unicode with optional comment lines above its header."""
    if path.suffix.lower() in PARQUET:
        return Table(rows=tuple(_parquet_rows(path)))
    if path.suffix.lower() in EXCEL:
        return Table(rows=tuple(_excel_rows(path)))
    kind = version = ""
    settings = {}
    lines = list(io.StringIO(_read_text(path), newline=""))
    # A spreadsheet adds commas to every line, up to the number of columns.
    filled = lines[0].rstrip().endswith(",")
    n_comments = 0
    while n_comments < len(lines) and (comment := _comment(lines[n_comments])) is not None:
        n_comments += 1
        comment = comment.rstrip(", ") if filled else comment
        if first := _VERSION.match(comment):
            kind, version = first.groups()
        elif setting := _SETTING.match(comment):
            settings[setting[1].lower()] = (n_comments, setting[2].strip())
    mark, lines, line = _find_mark(lines[n_comments:], n_comments + 1)
    rows = tuple(_csv_rows(lines, line, mark))
    return Table(kind, version, settings, rows if kind or mark == "," else _with_points(rows))


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark; keep line ends."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        name = "UTF-16" if wide else "UTF-8"
        bad = f"byte {content[error.start]:#04x} is not {name}; save the file as UTF-8"
        raise BadText(content.count(b"\n", 0, error.start) + 1, bad) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadText(line, "the line has a zero byte; this is not a text file")
    if not text.strip():
        raise BadText(0, "the file is empty")
    return text


def _comment(line: str) -> str | None:
    """Return the text of a comment line or blank line; None for any other line."""
    text = line.strip()
    if text.startswith('"#'):
        with suppress(csv.Error):
            text = next(csv.reader([text]))[0].strip()
    return text if text.startswith("#") or not text.strip(", ") else None


def _find_mark(lines: list[str], first: int) -> tuple[str, list[str], int]:
    """Return the separator of the cells, the lines below a line that states it, and the first."""
    if lines and (stated := _STATED.match(lines[0])):
        return stated[1], lines[1:], first + 1
    header = re.sub('"[^"]*"', "", next(filter(str.strip, lines), ""))
    return max(",;\t", key=header.count), lines, first


def _csv_rows(lines: Sequence[str], first: int, mark: str) -> Iterator[CsvRow]:
    """Yield line number and cells of each row that is not blank."""
    reader = csv.reader(lines, strict=True, delimiter=mark)
    start = 0
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                if "'" in "".join(cells):
                    cells = [c[1:] if c[:1] == "'" and _FORMULA.match(c) else c for c in cells]
                yield first + start, cells
            start = reader.line_num
    except csv.Error as error:
        raise BadText(first + start, f"the file is not CSV from this line on: {error}") from None


def _with_points(rows: tuple[CsvRow, ...]) -> tuple[CsvRow, ...]:
    """Write numbers with a point where all cells of a column are numbers with a decimal comma."""
    width = len(rows[0][1]) if rows else 0
    for i in range(width):
        cells = (row[i] for _, row in rows[1:] if row[i:] and row[i].strip())
        if all(map(_COMMA.fullmatch, cells)):
            for _, row in rows[1:]:
                if row[i:]:
                    row[i] = row[i].replace(",", ".")
    return rows


def _parquet_rows(path: Path) -> Iterator[CsvRow]:
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


def _excel_rows(path: Path) -> Iterator[CsvRow]:
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
                sheet.title: [[*map(_cell_of, row)] for row in sheet.iter_rows(values_only=True)]
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


def _cell_of(value: Any) -> str:
    """Return a value of Parquet or Excel as a CSV cell: booleans as 0 and 1, lists as JSON."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


# --- writing


class CsvWriter:
    """Writer of CSV rows; text like a formula gets an apostrophe, which `read_table` drops."""

    def __init__(self, file: Any) -> None:
        self._writer = csv.writer(file, lineterminator="\n")

    def writerow(self, row: Iterable[Any]) -> None:
        cells = list(row)
        for i, cell in enumerate(cells):
            if isinstance(cell, str) and _FORMULA.match(cell) and not are_numbers([cell]):
                cells[i] = f"'{cell}"
        self._writer.writerow(cells)

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def write_table(
    path: Path, first: str, settings: Mapping[str, object], rows: Iterable[Iterable[Any]]
) -> None:
    """Write a manifest or fold file atomically: line `first`, settings and rows."""
    buffer = io.StringIO()
    for line in (first, *(f"{key}: {value}" for key, value in settings.items())):
        buffer.write(f"# {line}\n")
    CsvWriter(buffer).writerows(rows)
    try:
        write_bytes(path, buffer.getvalue().encode(), error=BadManifest)
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        raise BadManifest(f"{path}: cannot be written because {bad!r} is not UTF-8") from None


# --- cells


def plain_text(cell: str) -> str:
    """Return a name for comparison: in Unicode form NFC, without invisible characters.

    Examples
    --------
    >>> plain_text("Cafe\\u0301\\u200b") == "Caf\\u00e9"
    True
    """
    return cell if cell.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFC", cell))


def parse_names(cell: str, separator: str) -> list[str]:
    """Return the names in a cell, which are separated or in a JSON list."""
    if cell.startswith("["):
        try:
            names = parse_json(cell)
        except ValueError as error:
            raise ValueError(f"{shown(cell)} is not a JSON list: {error}") from None
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{shown(cell)} has items that are not text: put them in quotes")
        return [name.strip() for name in names]
    return [name for name in (part.strip() for part in cell.split(separator)) if name]


def format_names(names: Sequence[str], separator: str) -> str:
    """Return a cell for `parse_names`; a JSON list only if a name contains the separator or `[`."""
    if any(separator in name for name in names) or (names and names[0].startswith("[")):
        return json.dumps(list(names), ensure_ascii=False)
    return (separator if separator == ";" else separator + " ").join(names)


# Ways in which another program's clip names may differ from ours, and functions that undo them.
_FORMS: Mapping[str, Callable[[str], str]] = {
    "": str,
    "without ending": lambda name: str(PurePosixPath(name).with_suffix("")) if name else "",
    "without folder": lambda name: PurePosixPath(name).name,
    "without folder and ending": lambda name: PurePosixPath(name).stem,
    "as whole numbers": lambda name: _whole(name),
    "as whole numbers in file names": lambda name: _whole(PurePosixPath(name).stem),
}


def _whole(text: str) -> str:
    """Return a whole number without leading zeros and decimals; any other text unchanged."""
    with suppress(ValueError):
        return str(to_whole(text))
    return text


def match_ids(ids: Sequence[str], names: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Match texts to clips: return the clip id (or text) for each text, and the kind of match.

    `names` maps ids and paths to clip ids. A text without a match is returned unchanged.
    """
    most, matched, how = 0, tuple(ids), ""
    for kind, form in _FORMS.items():
        clips: dict[str, set[str]] = {}
        for name, clip in names.items():
            clips.setdefault(form(_plain_path(name)), set()).add(clip)
        found = [clips.get(form(_plain_path(text)), set()) for text in ids]
        n = sum(len(clip) == 1 for clip in found)
        # A few texts may match by chance, such as 7 and Sad/7.mp4.
        if n > most and (not kind or 2 * n > len(ids)):
            most, how = n, kind
            pairs = zip(found, ids, strict=True)
            matched = tuple(min(clip) if len(clip) == 1 else text for clip, text in pairs)
    return matched, how


def _plain_path(name: str) -> str:
    return plain_text(name).replace("\\", "/")


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection, which takes a third of the time to read a large table."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
