"""The comment lines above a manifest's or fold file's table, and cells of lists and numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.csv_files import BadText, CsvRow, iter_csv, read_text
from mvemo.manifests.errors import BadManifest, MissingManifest
from mvemo.manifests.files import parse_json, shown, write_bytes
from mvemo.manifests.problems import Problems

# Of a manifest's file.
MANIFEST_VERSION = "1"
# Eleven days: no file of sound or video is as long.
MAX_SECONDS = 1e6
# Columns of a manifest that are no target's or tag's.
RESERVED = ("label", "path", "clip_id", "group", "start", "duration", "fold", "split")
_SETTING = re.compile(r"#\s*([A-Za-z]+)\s*:\s*(.*)$")
_VERSION = re.compile(r"#\s*mvemo\s+([a-z]+)\s+(\S+)\s*$")


@dataclass(frozen=True)
class Table:
    """The parts of a CSV file.

    Parameters
    ----------
    kind, version
        Of the line ``# mvemo KIND VERSION``; empty where the file has none.
    settings
        The ``# key: value`` lines: key in lower case -> (line, value).
    rows
        The table with its header row first: (line, cells). Blank lines are left out.
    """

    kind: str
    version: str
    settings: dict[str, tuple[int, str]]
    rows: tuple[CsvRow, ...]

    def setting(self, key: str, default: str) -> str:
        """A setting's value; the default where it is missing or empty."""
        return self.settings.get(key, (0, ""))[1] or default

    def line(self, key: str) -> int:
        """A setting's line; 0 where it is missing."""
        return self.settings.get(key, (0, ""))[0]


def read_table(path: Path, problems: Problems) -> Table:
    """Read a CSV file with optional comment lines above its header.

    UTF-8, with or without a byte-order mark; comment lines may have been through a
    spreadsheet, which quotes them or fills them up with commas. What cannot be read
    is added to `problems`.

    Raises
    ------
    MissingManifest
        No such file.
    """
    if path.is_dir():
        problems.add(0, "this is a folder; `mvemo manifest scan` makes a manifest of it")
        return Table("", "", {}, ())
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise MissingManifest(f"{path}: no such file") from None
    except OSError as error:
        raise BadManifest(f"{path}: cannot be read: {error.strerror}") from None
    except BadText as error:
        problems.add(error.line, error.message)
        return Table("", "", {}, ())

    kind = version = ""
    settings: dict[str, tuple[int, str]] = {}
    lines: Iterator[str] = iter(io.StringIO(text, newline=""))
    n_comments = 0
    filled = False
    for text_line in lines:
        comment = _comment(text_line)
        if comment is None:
            lines = itertools.chain([text_line], lines)
            break
        n_comments += 1
        # A spreadsheet gives every line as many cells as the table has.
        filled |= text_line.rstrip().endswith(",") and n_comments == 1
        comment = comment.rstrip(", ") if filled else comment
        if first := _VERSION.match(comment):
            kind, version = first.groups()
        elif setting := _SETTING.match(comment):
            settings[setting[1].lower()] = (n_comments, setting[2].strip())

    rows: list[CsvRow] = []
    try:
        rows.extend(iter_csv(lines, first=n_comments + 1))
    except BadText as error:
        problems.add(error.line, error.message)
    return Table(kind, version, settings, tuple(rows))


def _comment(line: str) -> str | None:
    """The text of a comment line or blank line above the table; None for any other."""
    text = line.strip()
    if text.startswith('"#'):
        try:
            text = next(csv.reader([text]))[0].strip()
        except csv.Error:
            return None
    return text if text.startswith("#") or not text.strip(", ") else None


def parse_names(cell: str, separator: str) -> list[str]:
    """Names from a cell: separated, or a JSON list where names hold the separator.

    Raises
    ------
    ValueError
        The cell begins like a JSON list and is none, or has items that are not text.
    """
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
    """The inverse of `parse_names`, as plain as the names allow."""
    if any(separator in name for name in names) or (names and names[0].startswith("[")):
        return json.dumps(list(names), ensure_ascii=False)
    return (separator if separator == ";" else separator + " ").join(names)


def parse_number(cell: str, name: str, line: int, problems: Problems) -> float | None:
    """A finite number from a cell of a column; None, and a problem of the line, for any other."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    problems.add(line, f"{name} {shown(cell)} is not a number")
    return None


def parse_stretch(
    fields: Mapping[str, str], line: int, problems: Problems
) -> tuple[float, float | None]:
    """``start`` and ``duration`` of a row in seconds: 0 and None where there are none.

    One that no file can have is a problem of the line.
    """
    start, duration = 0.0, None
    if fields.get("start"):
        start = parse_number(fields["start"], "start", line, problems) or 0.0
        if start < 0:
            problems.add(line, f"start {fields['start']} is negative; seconds from 0")
        start = max(start, 0.0)
    if fields.get("duration"):
        duration = parse_number(fields["duration"], "duration", line, problems)
        if duration is not None and duration <= 0:
            problems.add(line, f"duration {fields['duration']} is not above 0 seconds")
    if start > MAX_SECONDS or (duration or 0.0) > MAX_SECONDS:
        name = "start" if start > MAX_SECONDS else "duration"
        most = f"{MAX_SECONDS:.0f} seconds, eleven days, at most"
        problems.add(line, f"{name} {fields[name]} is longer than any file: {most}")
    return start, duration


def write_table(path: Path, text: str) -> None:
    """Write a manifest or fold file in one step: whole, or not at all.

    Raises
    ------
    BadManifest
        The folder is missing or cannot be written, the disk is full, or a name is no text.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start : error.end]
        raise BadManifest(f"{path}: cannot be written as UTF-8 because of {bad!r}") from None
    write_bytes(path, content, error=BadManifest)
