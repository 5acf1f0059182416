"""Numbers in the cells of a table, read in the same way for all tables.

A number is what `float` accepts in ASCII without an underscore: digits with an optional sign,
decimal point and exponent (``3.1``, ``-.5``, ``12e1``), or ``nan`` and ``inf`` in any case. Blanks
around it do not count. ``1_000``, ``100_1``, ``٣``, ``1,5`` and ``0x1F`` are text. ``nan`` is a
missing number, like an empty cell where a number may be missing; infinity and a number too large
for a float are read as infinite, and refused wherever a finite number is needed.

Numbers are read last: a cell is first compared with clip ids, and labels, groups and ids always
stay the text that was written (``007``, ``12e1``, ``3.1``).
"""

import math
import re
from collections.abc import Sequence
from contextlib import suppress

from mvemo.manifests.errors import Report
from mvemo.manifests.files import shown

# A whole number, also as pandas writes it in a column with missing values: ``3.0``.
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*")


def to_number(cell: str) -> float:
    """Return the number in a cell; raise ValueError for any other text."""
    with suppress(ValueError):
        if "_" not in cell and cell.isascii():
            return float(cell)
    raise ValueError(f"{shown(cell)} is not a number")


def to_numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers in cells, all at once for speed; raise ValueError for any other text."""
    joined = "".join(cells)
    if "_" not in joined and joined.isascii():
        with suppress(ValueError):
            return [*map(float, cells)]
    return [*map(to_number, cells)]


def to_whole(cell: str) -> int:
    """Return the whole number in a cell, such as ``3`` or ``3.0``; raise ValueError for others."""
    if found := _WHOLE.fullmatch(cell):
        return int(found[1])
    raise ValueError(f"{shown(cell)} is not a whole number")


def are_numbers(cells: Sequence[str]) -> bool:
    """Return True if all cells that are not empty are numbers, and at least one is not NaN."""
    try:
        return any(value == value for value in to_numbers([cell for cell in cells if cell]))
    except ValueError:
        return False


def parse_number(cell: str, name: str, report: Report) -> float:
    """Return the finite number in a cell; report any other content and return NaN."""
    with suppress(ValueError):
        if math.isfinite(value := to_number(cell)):
            return value
    report(f"{name} {shown(cell)} is not a number")
    return math.nan
