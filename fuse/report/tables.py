"""Tables of columns and cells: for pages, the terminal, CSV and JSON, LaTeX and Markdown."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import write_text
from mvemo.manifests.tables import CsvWriter
from mvemo.manifests.text_table import align_columns

# Mark of published values.
LABEL = "published, other data"
# Kinds of columns. PERCENT: fractions, shown in per cent with two decimals. NUMBER: integers with
# thousands separators, other numbers with three decimals. ID: text that a page may break anywhere.
# LINE: text that it keeps on one line.
TEXT, NUMBER, PERCENT, ID, LINE = "text", "number", "percent", "id", "line"
Value = str | int | float | None
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$"}
)


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    hint: str = ""  # text shown on mouse-over
    below: str = ""  # small text under the main text
    strong: bool = False  # True for bold text
    link: str = ""
    value: Value = None  # for CSV and JSON: the text, or the number that it shows


@dataclass(frozen=True)
class Column:
    """Column of a table."""

    title: str
    kind: str = NUMBER
    published: bool = False  # True for published values, measured on other data

    @property
    def is_number(self) -> bool:
        """Return True for a column whose cells are aligned to the right."""
        return self.kind in (NUMBER, PERCENT)

    @property
    def style(self) -> str:
        """Return the CSS classes of the cells in a page."""
        kind = "n" if self.is_number else "" if self.kind == TEXT else self.kind
        return f"{kind} other" if self.published else kind

    @property
    def marked(self) -> str:
        """Return the title, which says so if the values are published."""
        return f"{self.title} ({LABEL})" if self.published else self.title


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is the row's name."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()  # rows that stay at the bottom when sorting
    spans: tuple[tuple[Column, int], ...] = ()  # titles above others, with the number of columns
    best: int | None = None  # index of the highlighted row
    title: str = ""  # what the table contains
    name: str = ""  # for file names

    def __len__(self) -> int:
        """Return the number of rows without the foot; a table without rows is not shown."""
        return len(self.rows)

    def __str__(self) -> str:
        """Format the table for the terminal, with published columns to the right of a bar."""
        rows = [[column.title for column in self.columns]]
        rows += [[cell.text for cell in row] for row in (*self.rows, *self.foot)]
        left = {i for i, column in enumerate(self.columns) if not column.is_number}
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

    def record(self) -> dict[str, Any]:
        """Return the table as JSON values; percentages as fractions, NaN and infinity as null."""
        return {
            "title": self.title,
            "columns": [
                {"name": c.title, "kind": c.kind, **({"published": LABEL} if c.published else {})}
                for c in self.columns
            ],
            "rows": [[cell.value for cell in row] for row in (*self.rows, *self.foot)],
        }

    def csv(self) -> str:
        """Format the table as CSV; headers mark published columns."""
        buffer = io.StringIO()
        writer = CsvWriter(buffer)
        writer.writerow([column.marked for column in self.columns])
        writer.writerows([cell.value for cell in row] for row in (*self.rows, *self.foot))
        return buffer.getvalue()

    def without(self, dropped: Sequence[int]) -> Table:
        """Return the table without the columns of these indices."""
        kept = [i for i in range(len(self.columns)) if i not in dropped]
        parts = [[tuple(row[i] for i in kept) for row in part] for part in (self.rows, self.foot)]
        columns = tuple(self.columns[i] for i in kept)
        return replace(self, columns=columns, rows=tuple(parts[0]), foot=tuple(parts[1]))

    def with_intervals(self) -> Table:
        """Return the table with each interval in the cell of its score, and the best score bold."""
        titles, rows = [c.title for c in self.columns], [list(row) for row in self.rows]
        lows = [i for i, title in enumerate(titles) if title == "low"]
        for low in lows:
            # A column of standard deviations may stand between a score and its interval.
            of = max(i for i in range(low) if not titles[i].startswith("sd"))
            scores = [row[of].value for row in rows]
            best = max((s for s in scores if isinstance(s, float)), default=None)
            for row, score in zip(rows, scores, strict=True):
                if score is not None:
                    ends = f"{row[low].text} to {row[low + 1].text}"
                    below = ends if row[low].value is not None else ""
                    row[of] = replace(row[of], below=below, strong=score == best)
        folded = replace(self, rows=tuple(map(tuple, rows)))
        return folded.without([i for low in lows for i in (low, low + 1)])


def table(
    columns: Sequence[Column | str],
    rows: Sequence[Sequence[Value | Cell]],
    *,
    left: int = 1,
    n_foot: int = 0,
    **parts: Any,
) -> Table:
    """Build a table; the first `left` columns are text, and the last `n_foot` rows are its foot.

    `parts` are other fields of `Table`. None is a missing value.
    """
    heads = tuple(
        one if isinstance(one, Column) else Column(one, TEXT if i < left else NUMBER)
        for i, one in enumerate(columns)
    )
    cells = tuple(
        tuple(
            cell if isinstance(cell, Cell) else cell_of(cell, head.kind)
            for cell, head in zip(row, heads, strict=True)
        )
        for row in rows
    )
    n = len(cells) - n_foot
    return Table(heads, cells[:n], cells[n:], **parts)


def cell_of(value: Value, kind: str) -> Cell:
    """Return the cell of a value; a dash for a missing or infinite one."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Cell("-")
    if isinstance(value, str):
        return Cell(value, value=value)
    if kind == PERCENT:
        return Cell(f"{100 * value:.2f}", value=value)
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.3f}", value=value)


# --- papers


@dataclass(frozen=True)
class TableStyle:
    """Options of the tables for a paper."""

    columns: tuple[str, ...] = ()  # titles of the columns to keep, besides texts; empty for all
    label: str = ""  # of LaTeX; with several tables, their number follows
    caption: str = ""  # instead of the title

    def apply(self, tables: Sequence[Table]) -> list[Table]:
        """Return the tables with these columns and this caption; raise for an unknown column."""
        titles = [column.title for table in tables for column in table.columns]
        for name in self.columns:
            if name not in titles:
                known = ", ".join(dict.fromkeys(filter(None, titles)))
                raise BadOption(f"--table-columns: unknown column {name!r}; expected {known}")
        styled = []
        for table in tables:
            dropped = [
                i
                for i, column in enumerate(table.columns)
                if self.columns and i and column.title not in self.columns
            ]
            has_any = len(dropped) < len(table.columns) - 1
            table = table.without(dropped) if has_any else table
            styled.append(replace(table, title=self.caption or table.title))
        return styled


def write_paper(
    tables: Sequence[Table],
    latex: Path | None,
    markdown: Path | None,
    style: TableStyle | None = None,
) -> None:
    """Write tables as LaTeX and as Markdown; None as path leaves out that format."""
    style = style or TableStyle()
    if latex is None and markdown is None:
        return
    styled = style.apply(tables)
    if markdown is not None:
        write_text(markdown, "\n".join(map(_markdown, styled)))
    if latex is not None:
        numbers = range(1, len(styled) + 1) if len(styled) > 1 else [""]
        labels = [style.label and f"{style.label}{number}" for number in numbers]
        write_text(latex, "\n".join(map(_latex, styled, labels)))


def _latex(t: Table, label: str) -> str:
    def line(cells: Sequence[Cell]) -> str:
        texts = (_whole(cell, _latex_text, "\\textbf{{{}}}") for cell in cells)
        return "    " + " & ".join(texts) + " \\\\"

    aligned = "".join("r" if column.is_number else "l" for column in t.columns)
    lines = ["% \\usepackage{booktabs}", "\\begin{table}", f"  \\caption{{{_latex_text(t.title)}}}"]
    lines += [f"  \\label{{{label}}}"] if label else []
    lines += [f"  \\begin{{tabular}}{{{aligned}}}", "    \\toprule"]
    lines += [line([Cell(c.marked) for c in t.columns]), "    \\midrule", *map(line, t.rows)]
    lines += ["    \\midrule", *map(line, t.foot)] if t.foot else []
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def _markdown(t: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        return f"| {' | '.join(_whole(c, _markdown_text, '**{}**') for c in cells)} |"

    rule = "|".join("---:" if column.is_number else "---" for column in t.columns)
    head = line([Cell(column.marked) for column in t.columns])
    lines = [_markdown_text(t.title), "", head, f"|{rule}|", *map(line, (*t.rows, *t.foot))]
    return "\n".join([*lines, ""])


def _whole(cell: Cell, escape: Callable[[str], str], bold: str) -> str:
    """Return a cell's text, bold if it is strong, followed by the text below it."""
    text = bold.format(escape(cell.text)) if cell.strong else escape(cell.text)
    return f"{text} [{escape(cell.below)}]" if cell.below else text


def _latex_text(text: str) -> str:
    text = re.sub(r"(?<=\d)-(?=\d)", "--", text.translate(_LATEX))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)
