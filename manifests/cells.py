"""Parsing of table cells: lists of names, numbers, start and duration, Unicode text."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from mvemo.manifests.files import parse_json, shown
from mvemo.manifests.problems import Problems

# Eleven days: longer than any audio or video file.
MAX_SECONDS = 1e6
# Characters of no width: zero-width space, word joiner, byte-order mark.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")


def plain_text(cell: str) -> str:
    """Return a name in Unicode's form NFC, without invisible characters, for comparison.

    Examples
    --------
    >>> plain_text("Cafe\\u0301\\u200b") == "Caf\\u00e9"
    True
    """
    return cell if cell.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFC", cell))


def parse_names(cell: str, separator: str) -> list[str]:
    """Return the names in a cell, which is a separated list or a JSON list."""
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
    """Return the cell that `parse_names` reads back, as JSON only if a name needs it."""
    if any(separator in name for name in names) or (names and names[0].startswith("[")):
        return json.dumps(list(names), ensure_ascii=False)
    return (separator if separator == ";" else separator + " ").join(names)


def parse_number(cell: str, name: str, line: int, problems: Problems) -> float | None:
    """Return the finite number in a cell; otherwise add a problem of the line, return None."""
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
    """Return ``start`` and ``duration`` of a row in seconds; if empty, 0 and None.

    A value that no file can have is added as a problem of the line.
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
