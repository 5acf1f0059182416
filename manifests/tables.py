"""Tables (CSV, Parquet, Excel): reading, writing, cells, and matching of their clip names."""

from __future__ import annotations

import codecs
import csv
import gc
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from mvemo.manifests.cells import are_numbers, to_whole
from mvemo.manifests.errors import BadFile, BadText, MissingFile, Problem, Problems
from mvemo.manifests.files import shown, write_bytes
from mvemo.manifests.spreadsheets import CsvRow, excel_rows, parquet_rows
from mvemo.manifests.text_files import parse_json

MANIFEST_VERSION = "1"
# Columns of a manifest that cannot be targets or tags.
RESERVED = ("label", "path", "clip_id", "group", "start", "duration", "fold", "split")
# Suffixes of table files.
PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm")
TABLES = (".csv", ".tsv", *PARQUET, *EXCEL)
# A table with all of these columns was written by `mvemo predict`.
_OF_PREDICT = frozenset({"model", "notes", "error"})
_COMPARED = re.compile(r".+_(rank|score|value)|relative_quadrant")
_SETTING = re.compile(r"#\s*([A-Za-z]+)\s*:\s*(.*)$")
_VERSION = re.compile(r"#\s*mvemo\s+([a-z]+)\s+(\S+)\s*$")
# Excel's line above a table that states the separator of its cells.
_STATED = re.compile(r"\s*\"?sep=(.)\"?\s*$", re.IGNORECASE)
# The beginning of a cell that a spreadsheet would run as a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
# A number with a decimal comma.
_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.IGNORECASE)
# A number whose comma may separate thousands. In the same column as a number with a point or with
# three digits in a row, the comma is not read as a decimal comma.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_DOUBTFUL = re.compile(r"\.|\d{3}")
# Words for a missing value: in a column of labels, and in all other columns.
_NAN = {"", "nan", "#n/a", "<na>", "nat", "null", "na", "n/a", "n.a.", "#na"}
_MISSING = _NAN | {"none", "-", "--", "?"}
# Beginnings of a cell with a list in JSON, or in Python's form, which is refused.
LISTS = ("[", "{", "('", '("')
# Beginning of the name of a column with the settings of a manifest or fold file.
_SETTINGS = "mvemo: "
_NOW = getattr(os, "O_NONBLOCK", 0)
_QUOTED = re.compile('"[^"]*"')
# Characters of no width: zero-width space, word joiner, byte-order mark.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")


@dataclass(frozen=True)
class TableRows:
    """Content of a table file."""

    # Kind and version of the table, from its header (`stated_header`) or ``# mvemo KIND VERSION``.
    kind: str = ""
    version: str = ""
    # Settings of the header and of lines ``# key: value``: key in lower case -> (line, value).
    settings: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    rows: tuple[CsvRow, ...] = ()  # (line, cells), header first, without blank lines
    mark: str = ","  # separator of the cells in the file

    def setting(self, key: str, default: str) -> str:
        """Return the value of a setting, or the default if it is missing or empty."""
        return self.settings.get(key, (0, ""))[1] or default

    def line(self, key: str) -> int:
        """Return the line of a setting, or 0 if it is missing."""
        return self.settings.get(key, (0, ""))[0]

    @cached_property
    def header(self) -> list[str]:
        """Names of the columns; empty for an empty table."""
        return [plain_text(cell.strip()) for cell in self.rows[0][1]] if self.rows else []

    def cells(self, name: str) -> list[str]:
        """Return the cells of a column, except in short rows; empty if there is no such column."""
        if name in self.header and name not in self._columns:
            i = self.header.index(name)
            self._columns[name] = [row[i].strip() for _, row in self.rows[1:] if len(row) > i]
        return self._columns.get(name, [])

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """Cells by column, filled by `cells`."""
        return {}

    def points(self, cells: Sequence[str]) -> Sequence[str]:
        """Return the cells of a column of numbers with points instead of decimal commas.

        Commas that may separate thousands are kept, so that their cells are refused.
        """
        different = {*cells}
        commas = {cell for cell in different if "," in cell and _COMMA.fullmatch(cell)}
        if all(map(_THOUSANDS.fullmatch, commas)) and (
            self.mark == "," or any(_DOUBTFUL.search(c) for c in different if "," not in c)
        ):
            return cells
        return [cell.replace(",", ".") if cell in commas else cell for cell in cells]

    def with_points(self, names: Iterable[str]) -> tuple[TableRows, list[str]]:
        """Return the table with decimal points in some columns, and notes on mixed columns."""
        table, notes = self, []
        for name in names:
            cells = self.cells(name)
            new = {a: b for a, b in zip(cells, self.points(cells), strict=True) if a != b}
            if new:
                table = table.with_cells(name, new)
                if any("." in cell for cell in cells):
                    notes.append(f"{name!r} has decimal commas and points: both are read")
        return table, notes

    def with_cells(self, name: str, new: Mapping[str, str]) -> TableRows:
        """Return the table with replaced texts in a column; `new` maps old texts to new ones."""
        i, (head, *rows) = self.header.index(name), self.rows
        changed = [
            (line, [*row[:i], new.get(row[i].strip(), row[i]), *row[i + 1 :]] if row[i:] else row)
            for line, row in rows
        ]
        return replace(self, rows=(head, *changed))

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

    def renamed(self, columns: Mapping[str, str]) -> TableRows:
        """Return the table with renamed columns; `columns` maps our names to the file's."""
        if not columns:
            return self
        theirs, line = self.header, self.rows[0][0] if self.rows else 1
        # Another column that already has one of our names loses its name.
        names = ["" if name in {*columns, *columns.values()} else name for name in theirs]
        copied = []
        for ours, name in columns.items():
            if theirs.count(name) != 1:
                n = theirs.count(name) or "no"
                raise BadText(line, f"{n} column {name!r} for {ours}; the columns are {theirs}")
            i = theirs.index(name)
            if not names[i]:
                names[i] = ours
                continue
            copied.append(i)
            names.append(ours)
        rows = [*self.rows[1:]]
        if copied:
            # Rows that are too short are left to later checks.
            rows = [(n, [*row, *(row[i] for i in copied if row[i:])]) for n, row in rows]
        return replace(self, rows=((line, names), *rows))

    def with_path(self) -> TableRows:
        """Return the table with a column ``file`` renamed to ``path``, if there is no ``path``.

        In a table of `mvemo predict`, ``duration`` and ``--relative``'s columns lose their names.
        """
        is_named = "path" in self.header or "file" not in self.header
        table = self if is_named else self.renamed({"path": "file"})
        if self.kind or not {*self.header} >= _OF_PREDICT:
            return table
        (line, names), *rows = table.rows
        compared = filter(_COMPARED.fullmatch, names[names.index("notes") : names.index("error")])
        left_out = {*compared, *["duration"] * ("content" in names)}
        return replace(table, rows=((line, ["" if n in left_out else n for n in names]), *rows))


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> TableRows:
    """Read a table and rename its columns; raise `BadFile` or `MissingFile`."""
    with _reading(path):
        table = _load_table(path).renamed(columns or {})
        if not table.rows:
            raise BadText(0, "the table has no rows")
        return table


def collect_table(
    path: Path, problems: Problems, columns: Mapping[str, str] | None = None
) -> TableRows:
    """Read a table of clips; errors in its content are added to `problems`.

    In tables of mvemo, `TableRows.with_path` names the column of paths.
    """
    if path.is_dir():
        problems.add(0, "this is a folder: make a manifest of it with 'mvemo manifest scan'")
        return TableRows()
    with _reading(path):
        try:
            table = _load_table(path).renamed(columns or {})
            return table.with_path() if table.kind or table.predicted_by else table
        except BadText as error:
            problems.add(*error.args)
            return TableRows()


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file that are not blank, without blanks around them."""
    with _reading(path):
        return [*filter(None, map(str.strip, _read_text(path).splitlines()))]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such file") from None
    except OSError as problem:
        raise BadFile(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except BadText as problem:
        raise BadFile(str(Problem(path, *problem.args))) from None


def _load_table(path: Path) -> TableRows:
    """Read Parquet, Excel, or a CSV in Unicode with optional comment lines above its header."""
    if path.suffix.lower() in PARQUET:
        return _with_settings(TableRows(rows=tuple(parquet_rows(path))))
    if path.suffix.lower() in EXCEL:
        return _with_settings(TableRows(rows=tuple(excel_rows(path))))
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
    lines, line = lines[n_comments:], n_comments + 1
    if lines and (stated := _STATED.match(lines[0])):
        mark, lines, line = stated[1], lines[1:], line + 1
    else:
        header = _QUOTED.sub("", next(filter(str.strip, lines), ""))
        mark = max(",;\t", key=header.count)
    rows = tuple(_csv_rows(lines, line, mark))
    return _with_settings(TableRows(kind, version, settings, rows, mark))


def _with_settings(table: TableRows) -> TableRows:
    """Return the table with the settings of its header (`stated_header`), without their column."""
    header = table.header
    i = next((i for i, name in enumerate(header) if name.startswith(_SETTINGS)), -1)
    if i < 0:
        return table
    line = table.rows[0][0]
    try:
        facts = parse_json(header[i].removeprefix(_SETTINGS))
        (kind, version), *settings = facts.items()
    except (ValueError, AttributeError) as error:
        raise BadText(line, f"the settings {shown(header[i])} are not JSON: {error}") from None
    rows = tuple((number, [*cells[:i], *cells[i + 1 :]]) for number, cells in table.rows)
    stated = {key.lower(): (line, str(value)) for key, value in settings} | {**table.settings}
    return replace(table, kind=kind, version=str(version), settings=stated, rows=rows)


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark; keep line ends."""
    # A pipe without a writer is empty; reading it would wait for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NOW)) as file:
        os.set_blocking(file.fileno(), True)
        content = file.read()
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


def _csv_rows(lines: Sequence[str], first: int, mark: str) -> Iterator[CsvRow]:
    """Yield line number and cells of each row that is not blank."""
    reader = csv.reader(lines, strict=True, delimiter=mark)
    start = width = 0
    guarded = any("'" in line for line in lines)
    try:
        for cells in reader:
            width = width or len(cells)
            end = reader.line_num
            if end - start > 1 and _join_rows(lines[start:end], mark, width):
                place = f"a quoted cell reaches from here to line {first + end - 1}"
                cure = "delete stray quotes, or double those inside a cell"
                raise BadText(first + start, f"{place}, over what look like rows: {cure}")
            if any(map(str.strip, cells)):
                yield first + start, [*map(unguarded, cells)] if guarded else cells
            start = end
    except csv.Error as error:
        raise BadText(first + start, f"the file is not CSV from this line on: {error}") from None


def _join_rows(lines: Sequence[str], mark: str, width: int) -> bool:
    """Return True if most lines of a quoted cell look like rows that stray quotes have joined."""
    filled = [line for line in lines if line.strip()]
    alike = 0
    for line in filled:
        plain = _QUOTED.sub("", line)
        of_row = width in (line.count(mark) + 1, plain.count(mark) + 1)
        # A blank follows the commas of sentences.
        alike += of_row and not (mark == "," and ", " in plain)
    return width > 1 and 2 * alike > len(filled)


# --- writing


def unguarded(cell: str) -> str:
    """Return a cell without the apostrophe that `CsvWriter` put before a formula."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


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


def stated_header(
    columns: Sequence[str], kind: str, version: str, settings: Mapping[str, object]
) -> list[str]:
    """Return the header of a manifest or fold file; the name of its last column has the settings.

    The cells of this column are empty. It stays when other programs filter or sort the rows.
    """
    facts = {kind: version, **settings}
    return [*columns, _SETTINGS + json.dumps(facts, ensure_ascii=False, default=str)]


def write_table(
    path: Path,
    kind: str,
    version: str,
    settings: Mapping[str, object],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Write a manifest or fold file atomically; the first of the rows is the header."""
    buffer, (head, *others) = io.StringIO(), rows
    CsvWriter(buffer).writerow(stated_header(head, kind, version, settings))
    CsvWriter(buffer).writerows([*row, ""] for row in others)
    try:
        write_bytes(path, buffer.getvalue().encode())
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        raise BadFile(f"{path}: cannot be written because {bad!r} is not UTF-8") from None


def plain_text(cell: str) -> str:
    """Return a name for comparison: in Unicode form NFC, without invisible characters."""
    return cell if cell.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFC", cell))


def bare_name(name: str) -> str:
    """Return a name for comparison: in lower case, without marks between its words."""
    return re.sub(r"[\W_]", "", name.casefold())


def words_of(name: str) -> list[str]:
    """Return the words of a column's name in lower case."""
    return re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())


def is_missing(cell: str, label: bool = False) -> bool:
    """Return True if a cell is empty or a word for a missing value, such as ``NaN`` or ``#N/A``.

    A label may be called ``None``, so in a column of labels fewer words count.
    """
    return cell.casefold() in (_NAN if label else _MISSING)


def parse_names(cell: str, separator: str) -> list[str]:
    """Return the names in a cell: separated, in a JSON list, or Label Studio's choices."""
    if cell.startswith(LISTS):
        try:
            names = parse_json(cell)
        except ValueError as error:
            raise ValueError(f"{shown(cell)} is not a JSON list: {error}") from None
        if isinstance(names, dict):
            names = names.get("choices")
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list):
            raise ValueError(f"{shown(cell)} has no list of 'choices'")
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{shown(cell)} has items that are not text: put them in quotes")
        return [name.strip() for name in names]
    return [name for name in (part.strip() for part in cell.split(separator)) if name]


def format_names(names: Sequence[str], separator: str) -> str:
    """Return a cell for `parse_names`; a JSON list if a name has the separator or a bracket."""
    if any(separator in name for name in names) or (names and names[0].startswith(LISTS)):
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
