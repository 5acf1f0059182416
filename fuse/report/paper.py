"""Tables of reports, comparisons and studies for a paper: LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mvemo.fuse.errors import FuseError
from mvemo.fuse.report.banners import banners
from mvemo.fuse.report.published import LABEL
from mvemo.fuse.report.shown import best, without_twin
from mvemo.fuse.report.summary import describe
from mvemo.fuse.report.tables import NUMBER, OTHER, Cell, Head, Table, has_intervals, scores_table
from mvemo.fuse.report.text import p_text
from mvemo.fuse.results import Results
from mvemo.manifests.files import write_text

# Caption and table; strong cells mark the best row.
PaperTable = tuple[str, Table]
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$"}
)


def write_paper(tables: Sequence[PaperTable], latex: Path | None, markdown: Path | None) -> None:
    """Write tables as LaTeX and as Markdown; a path of None leaves out that format."""
    for path, render in ((latex, _latex), (markdown, _markdown)):
        if path is not None:
            write_text(path, "\n".join(render(*one) for one in tables), error=FuseError)


def results_tables(results: Results) -> list[PaperTable]:
    """Return the table of scores, with the corrected test of each fusion."""
    results = without_twin(results)
    top, scores = best(results), scores_table(results, None)
    p, fused = {}, any(model.features for model in results.models)
    for c in results.comparisons:
        # Fusions are tested against their best feature, other models against the best model.
        if fused or top is None or top.name in (c.model, c.reference):
            p[c.reference if not fused and top and c.model == top.name else c.model] = c.p_holm
    rows = []
    for row in (*scores.rows, *scores.foot):
        name = row[0].text
        strong = top is not None and name == top.name
        cells = [replace(cell, strong=cell.strong and strong) for cell in row]
        cells += [Cell(p_text(p[name]) if name in p else "")] if p else []
        rows.append(tuple(cells))
    head = [
        replace(head, title=f"{head.title} ({LABEL})") if head.style == OTHER else head
        for head in (*scores.head, *([Head("p")] if p else []))
    ]
    n = len(scores.rows)
    caption = (
        "".join(f"{banner.title}: {banner.text} " for banner in banners(results))
        + f"{results.name}: {describe(results)}. Min, mean and max: {results.task.primary_title}"
        + f"{', %' if results.task.in_percent else ''} over folds"
        + ("; in brackets: 95 % interval over groups." if has_intervals(results) else ".")
    )
    if p:
        rival = "the best single feature in it" if fused else "the best model"
        caption += f" p: corrected test against {rival}, with Holm's correction."
    return [(caption, Table(tuple(head), tuple(rows[:n]), tuple(rows[n:])))]


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
