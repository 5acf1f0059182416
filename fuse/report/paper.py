"""Tables as cells of text: for pages, and for papers as LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.fuse.errors import FuseError
from mvemo.manifests.files import write_text

# CSS classes of the page.
TEXT, NUMBER, ID, OTHER, LINE = "", "n", "id", "n other", "line"
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$"}
)


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    hint: str = ""  # text shown when hovering
    below: str = ""  # small line under the text
    strong: bool = False  # True for bold text
    link: str = ""


@dataclass(frozen=True)
class Head:
    """Title of a column and style of its cells."""

    title: str
    style: str = NUMBER


Heads = list[Head | str]  # a title without style is of numbers


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its name."""

    head: tuple[Head, ...]  # one per column
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()  # rows that stay at the bottom when sorting
    spans: tuple[tuple[Head, int], ...] = ()  # titles above, with column counts
    best: int | None = None  # index of the highlighted row


# Caption and table; strong cells mark the best row.
PaperTable = tuple[str, Table]


def table(
    head: Sequence[Head | str], rows: Iterable[Sequence[str | Cell]], n_foot: int = 0
) -> Table:
    """Build a table whose last `n_foot` rows are its foot."""
    heads = tuple(one if isinstance(one, Head) else Head(one) for one in head)
    cells = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    n = len(cells) - n_foot
    return Table(heads, cells[:n], cells[n:])


def write_paper(tables: Sequence[PaperTable], latex: Path | None, markdown: Path | None) -> None:
    """Write tables as LaTeX and as Markdown; a path of None leaves out that format."""
    for path, render in ((latex, _latex), (markdown, _markdown)):
        if path is not None:
            write_text(path, "\n".join(render(*one) for one in tables), error=FuseError)


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
    """Return a cell's text, in bold if it is strong, followed by the text below it."""
    text = bold.format(escape(cell.text)) if cell.strong else escape(cell.text)
    return f"{text} [{escape(cell.below)}]" if cell.below else text


def _latex_text(text: str) -> str:
    text = re.sub(r"(?<=\d)-(?=\d)", "--", text.translate(_LATEX))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)
