"""A study's result: tables and figures, as text, JSON, CSV, PNG, SVG and one page."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.fuse.report.published import LABEL
from mvemo.manifests.files import write_bytes, write_json, write_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.studies.core import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = str | int | float | None
# Column kinds whose cells are fractions, shown as per cent.
PERCENT = "percent"
TEXT = "text"
NUMBER = "number"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name
        Header.
    kind
        ``text``; ``percent``, of fractions, shown with two decimals; ``number``, integers
        with their digits and others with three decimals.
    published
        Whether its cells are printed figures, measured on other data.
    """

    name: str
    kind: str = TEXT
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table and what to know of it.

    Parameters
    ----------
    name
        Short, for file names.
    title
        What it shows, and which table of a paper it is made after.
    columns
        From the left.
    rows
        Cells by column; None where there is no figure.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def cells(self) -> list[list[str]]:
        """All cells as text."""
        return [
            [shown(cell, column.kind) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    def text(self) -> str:
        """For the terminal; published columns lie to the right of a bar."""
        lines = [[column.name for column in self.columns], *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        out = [self.title]
        bar = next((i for i, c in enumerate(self.columns) if c.published), None)
        if bar is not None:
            out.append(" " * (2 + sum(widths[:bar]) + 2 * bar) + f"| {LABEL}")
        for n, line in enumerate(lines):
            parts = []
            for i, (value, column) in enumerate(zip(line, self.columns, strict=True)):
                mark = "| " if i == bar else ""
                left = column.kind == TEXT
                parts.append(mark + (value.ljust(widths[i]) if left else value.rjust(widths[i])))
            out.append(("  " + "  ".join(parts)).rstrip())
            if n == 0:
                out.append(
                    "  " + "-" * (sum(widths) + 2 * (len(widths) - 1) + 2 * (bar is not None))
                )
        return "\n".join(out)

    def record(self) -> dict[str, Any]:
        """As JSON values; percentages stay fractions, and what is not finite is null."""
        return {
            "title": self.title,
            "columns": [
                {"name": c.name, "kind": c.kind, **({"published": LABEL} if c.published else {})}
                for c in self.columns
            ],
            "rows": [[_plain(cell) for cell in row] for row in self.rows],
        }

    def csv(self) -> str:
        """Header and rows; published columns say so in their names."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([f"{c.name} ({LABEL})" if c.published else c.name for c in self.columns])
        writer.writerows(
            ["" if _plain(cell) is None else cell for cell in row] for row in self.rows
        )
        return buffer.getvalue()


@dataclass(frozen=True)
class Plot:
    """A figure.

    Parameters
    ----------
    name
        Short, for file names.
    title
        What it shows.
    draw
        Draws it on axes.
    size
        Width and height in inches.
    """

    name: str
    title: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (6.4, 3.6)


@dataclass(frozen=True)
class StudyResult:
    """All that a study found.

    Parameters
    ----------
    name
        Of the command.
    title
        What was studied.
    tables, plots
        In the order of the page.
    notes
        Sentences that the reader needs.
    data
        More JSON values: curves, for example.
    sources
        What the published figures are from.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def text(self) -> str:
        """Tables and notes for the terminal."""
        return "\n\n".join([*(table.text() for table in self.tables), *self.notes])


def write_study(study: Study, result: StudyResult, settings: Mapping[str, Any], out: Path) -> None:
    """Write ``NAME.json``, ``NAME.html``, and a CSV for each table, a PNG and SVG for each plot.

    Parameters
    ----------
    study
        What was run.
    result
        What it found.
    settings
        JSON values that the study depended on.
    out
        Folder; made where it is absent. Other files in it stay.

    Raises
    ------
    BadOption
        A file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        facts = _facts(study)
        notes = [*banners(study), *result.notes]
        made = provenance(settings=dict(settings))
        record = {
            "study": result.name,
            "title": result.title,
            "data": facts,
            "permuted_labels": study.permuted,
            "tables": {table.name: table.record() for table in result.tables},
            "notes": notes,
            "failures": dict(sorted(study.failures.items())),
            **({"curves": dict(result.data)} if result.data else {}),
            "sources": list(result.sources),
            "provenance": made,
        }
        pictures = []
        for plot in result.plots:
            svg, png = render(plot)
            write_bytes(out / f"{result.name}-{plot.name}.svg", svg)
            write_bytes(out / f"{result.name}-{plot.name}.png", png)
            pictures.append(
                (plot.title, "data:image/svg+xml;base64," + base64.b64encode(svg).decode())
            )
        for table in result.tables:
            write_text(out / f"{result.name}-{table.name}.csv", table.csv())
        write_json(out / f"{result.name}.json", record)
        page = _page(result, facts, notes, made, pictures, study.failures)
        write_text(out / f"{result.name}.html", page)
    except OSError as error:
        raise BadOption(f"{error.filename or out}: cannot be written: {error.strerror}") from None


def banners(study: Study) -> list[str]:
    """What must be known before any figure is read."""
    said = []
    if study.permuted:
        said.append(
            "Labels were shuffled: this is a check, and every accuracy should be near the "
            "majority baseline or below."
        )
    if study.manifest.synthetic:
        said.append("The clips are generated data.")
    return said


def render(plot: Plot) -> tuple[bytes, bytes]:
    """A plot as SVG and as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "mvemo", "text.parse_math": False}
    ):
        figure = Figure(figsize=plot.size, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        plot.draw(axes)
        axes.set_title(plot.title, fontsize=10, loc="left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        written = []
        for kind, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 150})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **extra)  # type: ignore[arg-type]
            written.append(buffer.getvalue())
    return written[0], written[1]


def shown(cell: Cell, kind: str) -> str:
    """A cell as text; a dash where there is no figure."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, str):
        return cell
    if kind == PERCENT:
        return f"{100 * cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _facts(study: Study) -> dict[str, Any]:
    manifest = study.manifest
    counts = dict.fromkeys(manifest.classes, 0)
    for clip in manifest.clips:
        counts[str(clip.label[0])] += 1
    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "clips": len(manifest),
        "groups": len(set(manifest.groups)),
        "folds": len(set(study.folds().tolist())),
        "runs": study.runs,
        "clips of each class": counts,
        "synthetic": manifest.synthetic,
    }


def _page(
    result: StudyResult,
    facts: Mapping[str, Any],
    notes: Sequence[str],
    made: Mapping[str, Any],
    pictures: Sequence[tuple[str, str]],
    failures: Mapping[str, str],
) -> str:
    """One page that loads nothing; all text is escaped."""
    import jinja2

    template = resources.files("mvemo.pipeline.studies").joinpath("templates/study.html")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        result=result,
        facts=facts,
        notes=notes,
        label=LABEL,
        pictures=pictures,
        failures=sorted(failures.items()),
        command=made["command"],
        versions=made["versions"],
        settings=json.dumps(made["settings"], indent=1, ensure_ascii=False),
    )
