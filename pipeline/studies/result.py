"""Result of a study: tables and plots as text, JSON, CSV, PNG, SVG and an HTML page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.fuse import Task
from mvemo.fuse.report import drawing
from mvemo.fuse.report import text as paper
from mvemo.fuse.report.findings import small_nets_text
from mvemo.fuse.report.published import LABEL
from mvemo.fuse.report.text import page_templates
from mvemo.manifests.files import replacing_together, write_bytes, write_json, write_text
from mvemo.manifests.labels import label_kind
from mvemo.manifests.tables import CsvWriter
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = str | int | float | None
# Kinds of columns. PERCENT: fractions, shown in per cent with two decimals. NUMBER: integers with
# thousands separators, and other numbers with three decimals.
PERCENT = "percent"
TEXT = "text"
NUMBER = "number"
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Column:
    """Column of a table."""

    name: str  # header
    kind: str = TEXT  # PERCENT, TEXT or NUMBER
    published: bool = False  # True for published values, measured on other data


@dataclass(frozen=True)
class Table:
    """Table of a study."""

    name: str  # short, for file names
    title: str  # what it contains, and the paper's table that it follows
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]  # cells by column; None for a missing value

    @property
    def names(self) -> list[str]:
        """Names of the columns; published columns are marked."""
        return [f"{c.name} ({LABEL})" if c.published else c.name for c in self.columns]

    def cells(self) -> list[list[str]]:
        """Return all cells as text."""
        return [
            [cell_text(cell, column.kind) for cell, column in zip(row, self.columns, strict=True)]
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

    def for_paper(self) -> paper.Table:
        """Return the table with each interval in the cell of its score, and the best score bold."""
        names = self.names
        rows = [[paper.Cell(text) for text in texts] for texts in self.cells()]
        kept = [i for i, name in enumerate(names) if name not in ("low", "high")]
        if len(kept) < len(names):
            low = names.index("low")
            # A column of standard deviations may stand between a score and its interval.
            of = max(i for i in range(low) if not names[i].startswith("sd"))
            scores = [_json_value(row[of]) for row in self.rows]
            best = max((s for s in scores if isinstance(s, float)), default=None)
            for row, value in zip(rows, scores, strict=True):
                if value is not None:
                    below = f"{row[low].text} to {row[low + 1].text}"
                    row[of] = paper.Cell(row[of].text, below=below, strong=value == best)
        styles = {TEXT: paper.TEXT}
        head = [paper.Head(names[i], styles.get(self.columns[i].kind, paper.NUMBER)) for i in kept]
        return paper.table(head, [[row[i] for i in kept] for row in rows])

    def record(self) -> dict[str, Any]:
        """Return the table as JSON values; percentages as fractions, NaN and infinity as null."""
        return {
            "title": self.title,
            "columns": [
                {"name": c.name, "kind": c.kind, **({"published": LABEL} if c.published else {})}
                for c in self.columns
            ],
            "rows": [[_json_value(cell) for cell in row] for row in self.rows],
        }

    def csv(self) -> str:
        """Format the table as CSV; headers mark published columns."""
        buffer = io.StringIO()
        writer = CsvWriter(buffer)
        writer.writerow(self.names)
        writer.writerows(map(_json_value, row) for row in self.rows)
        return buffer.getvalue()


def cell_text(cell: Cell, kind: str) -> str:
    """Format a cell as text; a dash for a missing or infinite value."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, str):
        return cell
    if kind == PERCENT:
        return f"{100 * cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"


def _json_value(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


@dataclass(frozen=True)
class Plot:
    """Plot of a study."""

    name: str  # short, for file names
    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (6.4, 3.6)  # width and height in inches


@dataclass(frozen=True)
class StudyResult:
    """Tables, plots and notes of a study."""

    name: str  # name of the command
    title: str
    tables: Sequence[Table]  # in the order of the page
    plots: Sequence[Plot]  # in the order of the page
    notes: Sequence[str] = ()  # sentences for the reader
    data: Mapping[str, Any] = field(default_factory=dict)  # loss curves for the JSON file
    sources: Sequence[str] = ()  # citations of the published values
    division: str = ""  # how clips are split; "" for the study's folds

    def text(self) -> str:
        """Format tables and notes for the terminal."""
        return "\n\n".join([*(table.text() for table in self.tables), *self.notes])


def write_study(study: Study, result: StudyResult, settings: Mapping[str, Any], out: Path) -> None:
    """Write NAME.json, NAME.html, a CSV for each table, and a PNG and an SVG for each plot."""
    facts, origin = _facts(study, result.division), provenance(settings=settings)
    failures = dict(sorted(study.failures.items()))
    notes = [*banners(study), *study.notes, *result.notes]
    record = {
        "study": result.name,
        "title": result.title,
        "data": facts,
        "permuted_labels": study.permuted,
        "tables": {table.name: table.record() for table in result.tables},
        "notes": notes,
        "failures": failures,
        **({"curves": result.data} if result.data else {}),
        "sources": result.sources,
        "provenance": origin,
    }
    with replacing_together(out) as new:
        pictures = []
        for plot in result.plots:
            svg, png = render(plot)
            write_bytes(new / f"{result.name}-{plot.name}.svg", svg)
            write_bytes(new / f"{result.name}-{plot.name}.png", png)
            pictures.append((plot.title, base64.b64encode(svg).decode()))
        for table in result.tables:
            write_text(new / f"{result.name}-{table.name}.csv", table.csv())
        write_json(new / f"{result.name}.json", record)
        page = (
            page_templates(TEMPLATES)
            .get_template("study.html")
            .render(
                result=result,
                facts=facts,
                notes=notes,
                label=LABEL,
                pictures=pictures,
                failures=failures,
                origin=origin,
                settings=json.dumps(settings, indent=1, ensure_ascii=False),
            )
        )
        write_text(new / f"{result.name}.html", page)


def write_papers(
    study: Study, result: StudyResult, latex: Path | None, markdown: Path | None
) -> None:
    """Write the tables as LaTeX and Markdown, with warnings and notes in their captions."""
    facts = " ".join([*banners(study), *result.notes])
    tables = [(f"{table.title}. {facts}", table.for_paper()) for table in result.tables]
    paper.write_paper(tables, latex, markdown)


def without_empty_figures(result: StudyResult, of_user: Sequence[str] = ()) -> StudyResult:
    """Remove empty published columns and say so in a note; `of_user` names a user's columns."""
    tables, empty = [], set()
    for table in result.tables:
        kept = []
        for i, column in enumerate(table.columns):
            if column.published and all(row[i] is None for row in table.rows):
                empty.add(column.name)
            else:
                kept.append(i)
        rows = [[row[i] for i in kept] for row in table.rows]
        tables.append(replace(table, columns=[table.columns[i] for i in kept], rows=rows))
    notes = [f"{name}: no row matches its 'where'." for name in of_user if name in empty]
    if empty - set(of_user):
        notes.append(
            "Published values are shown only next to scores with the papers' classes and nets "
            "(profile paper); J22's values need segments of the published length, too."
        )
    return replace(result, tables=tables, notes=(*result.notes, *notes)) if notes else result


def banners(study: Study) -> list[str]:
    """Return warnings about the data and the nets that a reader needs before any score."""
    sentences = []
    if study.permuted:
        sentences.append(
            "The labels were shuffled as a check: every score should be near the baseline or "
            "below it."
        )
    if study.manifest.synthetic:
        sentences.append("The clips are synthetic (generated data).")
    if study.small_nets:
        sentences.append(small_nets_text(list(study.small_nets)))
    if study.manifest.predicted_by:
        sentences.append(f"The labels are predictions by {study.manifest.predicted_by}.")
    return sentences


def render(plot: Plot) -> tuple[bytes, bytes]:
    """Render a plot as SVG and as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "mvemo", "text.parse_math": False}
    ):
        figure = Figure(figsize=plot.size, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        plot.draw(axes)
        axes.set_title(plot.title, fontsize=10, loc="left")
        drawing.bare(axes)
        return drawing.render_svg(figure).encode(), drawing.render_png(figure)


def _facts(study: Study, division: str) -> dict[str, Any]:
    manifest = study.manifest
    counts = label_kind(manifest.task).counts(manifest.labels, manifest.classes)
    n_folds = len(set(study.folds().tolist())) if study.runs else 0
    runs = f"{study.runs} run{'s' if study.runs != 1 else ''}"
    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "clips": len(manifest),
        "groups": len(set(manifest.groups)),
        "folds": n_folds,
        "division": division or f"{n_folds} folds that keep groups whole, {runs}",
        "runs": study.runs,
        "task": manifest.task,
        "labels": dict(zip(manifest.classes, counts, strict=True)),
        "synthetic": manifest.synthetic,
    }


_PUBLISHED = "#6b4a9c"


@dataclass(frozen=True)
class Bar:
    """Bar in a plot of scores."""

    label: str
    value: float  # a fraction; NaN draws no bar
    low: float = math.nan  # lower end of the interval
    high: float = math.nan  # upper end of the interval
    published: float | None = None  # published value to mark


def score_bars(axes: Axes, bars: Sequence[Bar], baseline: float | None, task: Task) -> None:
    """Draw horizontal bars of a task's primary metric, the first at the top."""
    unit = 100 if task.in_percent else 1
    marked = []
    for i, bar in enumerate(bars):
        if math.isfinite(bar.value):
            axes.barh(i, unit * bar.value, height=0.6, color=drawing.COLOURS[0], alpha=0.85)
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            axes.plot([unit * bar.low, unit * bar.high], [i, i], color="#10202e", linewidth=1.4)
        if bar.published is not None and task.in_percent:
            marked.append((unit * bar.published, i))
    if marked:
        x, y = zip(*marked, strict=True)
        axes.plot(x, y, "D", color=_PUBLISHED, markersize=6, linestyle="none", label=LABEL)
    if baseline is not None:
        axes.axvline(unit * baseline, **_baseline_style(task))
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    if task.in_percent:
        axes.set_xlim(0, 100)
    axes.set_xlabel(f"{_axis_title(task)} (line: 95 % interval over groups)")
    _legend(axes)


def _baseline_style(task: Task) -> dict[str, Any]:
    return {"color": "#555d66", "linestyle": "--", "label": f"baseline: {task.baseline_name}"}


def _axis_title(task: Task) -> str:
    return f"{task.primary_title}, %" if task.in_percent else task.primary_title


def score_lines(
    axes: Axes,
    lines: Mapping[str, Mapping[float, float]],
    published: Mapping[str, Mapping[float, float]],
    baseline: float | None,
    xlabel: str,
    task: Task,
) -> None:
    """Plot a task's primary metric against a quantity; published values are dashed lines."""
    unit = 100 if task.in_percent else 1

    def plot(points: Mapping[float, float], **style: Any) -> None:
        xs = sorted(points)
        axes.plot(xs, [unit * points[x] for x in xs], **style)

    for i, (name, points) in enumerate(lines.items()):
        plot(points, marker="o", color=drawing.COLOURS[i], label=name)
    for i, (name, points) in enumerate(published.items()):
        style = {"marker": "D", "markersize": 4, "linestyle": (0, (4, 2 + 2 * i))}
        plot(points, color=_PUBLISHED, label=f"{name}, {LABEL}", **style)
    if baseline is not None:
        axes.axhline(unit * baseline, **_baseline_style(task))
    if task.in_percent:
        axes.set_ylim(0, 100)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(_axis_title(task))
    axes.grid(alpha=0.3)
    _legend(axes)


def loss_lines(
    axes: Axes,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    published: float | None,
    since: float = 0.0,
) -> None:
    """Plot losses against iterations, and a published loss from iteration `since` onwards."""
    longest = 1.0
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        axes.plot(xs, ys, color=drawing.COLOURS[i], label=name)
        longest = max(longest, *xs) if xs else longest
    if published is not None:
        start = since if since < longest else 0.0
        label = f"{published:g}, {LABEL}"
        axes.plot([start, longest], [published] * 2, "--", color=_PUBLISHED, label=label)
    axes.set_xlim(0, longest)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("iterations (steps of the optimizer)")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Draw the legend below the axes, where it covers nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.figure.legend(  # type: ignore[call-arg]
            loc="outside lower center", ncols=2, frameon=False, fontsize=9
        )
