"""Tables of studies, as text, JSON and CSV."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

from mvemo.fuse.report import text as tables
from mvemo.fuse.report.published import LABEL
from mvemo.manifests.tables import CsvWriter
from mvemo.manifests.text_table import align_columns

Cell = str | int | float | None
# Kinds of columns: fractions shown in per cent with two decimals; text; and numbers, integers
# with thousands separators and others with three decimals.
PERCENT = "percent"
TEXT = "text"
NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """Column of a table."""

    name: str  # header
    kind: str = TEXT  # PERCENT, TEXT or NUMBER
    published: bool = False  # True for published figures, measured on other data


@dataclass(frozen=True)
class Table:
    """Table of a study."""

    name: str  # short, for file names
    title: str  # contents, and the table of a paper that it follows
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]  # cells by column; None for a missing figure

    def cells(self) -> list[list[str]]:
        """Return all cells as text."""
        return [
            [shown(cell, column.kind) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    def text(self) -> str:
        """Format the table for the terminal, with published columns to the right of a bar."""
        rows = [[column.name for column in self.columns], *self.cells()]
        left = {i for i, column in enumerate(self.columns) if column.kind == TEXT}
        bar = next((i for i, column in enumerate(self.columns) if column.published), None)
        title = [self.title]
        if bar is not None:
            # Published columns come last, and they are never text.
            rows = [[*row[:bar], "|", *row[bar:]] for row in rows]
        header, *lines = ["  " + line for line in align_columns(rows, left)]
        if bar is not None:
            title.append(" " * header.index("|") + f"| {LABEL}")
        rule = "  " + "-" * (max(map(len, [header, *lines])) - 2)
        return "\n".join([*title, header, rule, *lines])

    def without_empty_figures(self) -> Table:
        """Return the table without published columns that have no figure in any row."""
        kept = [
            i
            for i, column in enumerate(self.columns)
            if not column.published or any(row[i] is not None for row in self.rows)
        ]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)

    def for_paper(self) -> tables.Table:
        """Return the table with each interval in the cell of its score, and the best score bold."""
        names = [column.name for column in self.columns]
        rows = [[tables.Cell(text) for text in texts] for texts in self.cells()]
        kept = [i for i, name in enumerate(names) if name not in ("low", "high")]
        if len(kept) < len(names):
            low = names.index("low")
            # A deviation may stand between a score and its interval.
            of = max(i for i in range(low) if not names[i].startswith("sd"))
            scores = [row[of] for row in self.rows]
            best = max((s for s in scores if isinstance(s, float) and s == s), default=None)
            for row, values in zip(rows, self.rows, strict=True):
                if _plain(values[of]) is not None:
                    below, strong = f"{row[low].text} to {row[low + 1].text}", values[of] == best
                    row[of] = tables.Cell(row[of].text, below=below, strong=strong)
        styles = [tables.TEXT if column.kind == TEXT else tables.NUMBER for column in self.columns]
        titles = [f"{c.name} ({LABEL})" if c.published else c.name for c in self.columns]
        head = [tables.Head(titles[i], styles[i]) for i in kept]
        return tables.table(head, [[row[i] for i in kept] for row in rows])

    def record(self) -> dict[str, Any]:
        """Return the table as JSON values; percentages as fractions, NaN and infinity as null."""
        return {
            "title": self.title,
            "columns": [
                {"name": c.name, "kind": c.kind, **({"published": LABEL} if c.published else {})}
                for c in self.columns
            ],
            "rows": [[_plain(cell) for cell in row] for row in self.rows],
        }

    def csv(self) -> str:
        """Format the table as CSV; published columns are marked in their names."""
        buffer = io.StringIO()
        writer = CsvWriter(buffer)
        writer.writerow([f"{c.name} ({LABEL})" if c.published else c.name for c in self.columns])
        writer.writerows(
            ["" if _plain(cell) is None else cell for cell in row] for row in self.rows
        )
        return buffer.getvalue()


def capital(text: str) -> str:
    """Return the text with its first letter in upper case, the rest unchanged."""
    return text[:1].upper() + text[1:]


def shown(cell: Cell, kind: str) -> str:
    """Format a cell as text; a dash for a missing figure."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, str):
        return cell
    if kind == PERCENT:
        return f"{100 * cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
