"""Text: numbers, lines of 79 columns, templates, and tables as text, LaTeX and Markdown."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvemo.fuse.results import ModelResult
from mvemo.fuse.tasks.base import Task
from mvemo.manifests.files import write_text
from mvemo.manifests.text_table import align_columns, escaped

if TYPE_CHECKING:
    import jinja2

WIDTH = 79
# CSS classes of cells in the page.
TEXT, NUMBER, ID, OTHER, LINE = "", "n", "id", "n other", "line"
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$"}
)


# --- numbers


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction as a percentage without the % sign; ``n/a`` for NaN."""
    return f"{100.0 * value:.{digits}f}" if np.isfinite(value) else "n/a"


def fraction(value: float, digits: int = 3) -> str:
    """Format a score; ``n/a`` for NaN, and no minus sign before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else "n/a"


def score_text(task: Task, value: float, sign: str = "") -> str:
    """Format a primary metric, or with ``sign="+"`` a difference, in the task's unit."""
    if not np.isfinite(value):
        return "n/a"
    digits, factor = (1, 100.0) if task.in_percent else (3, 1.0)
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}"


def interval_text(ends: tuple[float, float] | None, *, in_percent: bool = False) -> str:
    """Format a 95 % interval as ``63-81`` (percent) or as fractions; '' if there is none."""
    if ends is None or not np.isfinite(ends).all():
        return ""
    if in_percent:
        return f"{100 * ends[0]:.0f}-{100 * ends[1]:.0f}"
    return f"{fraction(ends[0])} to {fraction(ends[1])}"


def primary_interval_text(task: Task, model: ModelResult) -> str:
    """Format the interval of a model's primary metric; '' if there is none."""
    ends = model.intervals.get(task.primary_interval[0])
    return interval_text(ends, in_percent=task.in_percent)


def difference_text(task: Task, ends: tuple[float, float]) -> str:
    """Format the interval of a difference of the primary metric; '' if there is none."""
    if not np.isfinite(ends).all():
        return ""
    return f"{score_text(task, ends[0], '+')} to {score_text(task, ends[1], '+')}"


def p_text(p: float) -> str:
    if not np.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


# --- lines


def columns(
    body: Sequence[Sequence[str]], foot: Sequence[Sequence[str]] = (), *, left: int = 1
) -> list[str]:
    """Return the lines of a table with rules around `body[1:]`; `left` columns are text."""
    lines = align_columns([*body, *foot], left=range(left))
    rule = "-" * max(map(len, lines))
    above = [lines[0], rule, *lines[1 : len(body)]]
    return [*above, rule, *lines[len(body) :]] if foot else above


def wrap(text: str, mark: str = "") -> str:
    """Wrap text to the terminal's width, with `mark` at the start of each line."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_on_hyphens=False,
        break_long_words=False,
    )


def clean(text: str) -> str:
    """Escape control characters, which a terminal would execute."""
    return escaped(text)


# --- tables of cells: for pages, and for papers as LaTeX (booktabs) and Markdown


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    hint: str = ""  # text shown on mouse-over
    below: str = ""  # small text under the main text
    strong: bool = False  # True for bold text
    link: str = ""


@dataclass(frozen=True)
class Head:
    """Title of a column, and the style of its cells."""

    title: str
    style: str = NUMBER


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is the row's name."""

    head: tuple[Head, ...]  # one per column
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()  # rows that stay at the bottom when sorting
    spans: tuple[tuple[Head, int], ...] = ()  # titles above the head, with the number of columns
    best: int | None = None  # index of the highlighted row

    def __len__(self) -> int:
        """Return the number of rows without the foot; a table without rows is not shown."""
        return len(self.rows)


# Caption and table; strong cells mark the best row.
PaperTable = tuple[str, Table]


def table(
    head: Sequence[Head | str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    left: int = 1,
    n_foot: int = 0,
) -> Table:
    """Build a table; the first `left` columns are text, and the last `n_foot` rows are its foot."""
    heads = tuple(
        one if isinstance(one, Head) else Head(one, TEXT if i < left else NUMBER)
        for i, one in enumerate(head)
    )
    cells = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    n = len(cells) - n_foot
    return Table(heads, cells[:n], cells[n:])


def write_paper(tables: Sequence[PaperTable], latex: Path | None, markdown: Path | None) -> None:
    """Write tables as LaTeX and as Markdown; None as path leaves out that format."""
    for path, render in ((latex, _latex), (markdown, _markdown)):
        if path is not None:
            write_text(path, "\n".join(render(*one) for one in tables))


def _latex(caption: str, t: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        texts = (_whole(cell, _latex_text, "\\textbf{{{}}}") for cell in cells)
        return "    " + " & ".join(texts) + " \\\\"

    aligned = "".join("r" if NUMBER in head.style.split() else "l" for head in t.head)
    lines = ["% \\usepackage{booktabs}", "\\begin{table}", f"  \\caption{{{_latex_text(caption)}}}"]
    lines += [f"  \\begin{{tabular}}{{{aligned}}}", "    \\toprule"]
    lines += [line([Cell(head.title) for head in t.head]), "    \\midrule", *map(line, t.rows)]
    lines += ["    \\midrule", *map(line, t.foot)] if t.foot else []
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def _markdown(caption: str, t: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        return f"| {' | '.join(_whole(c, _markdown_text, '**{}**') for c in cells)} |"

    rule = "|".join("---:" if NUMBER in head.style.split() else "---" for head in t.head)
    head = line([Cell(head.title) for head in t.head])
    lines = [_markdown_text(caption), "", head, f"|{rule}|", *map(line, (*t.rows, *t.foot))]
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


@functools.cache
def page_templates(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder; they escape all text and refuse undefined names."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
