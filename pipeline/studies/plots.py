"""Plots of a study: scores of its rows, and losses of a training."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mvemo.fuse import Task
from mvemo.fuse.report import drawing
from mvemo.fuse.report.tables import LABEL
from mvemo.pipeline.studies.comparison import Compared, Draft, Plot, printed_figure

_PUBLISHED = "#6b4a9c"


def _plot(drawn: drawing.Drawing, name: str, title: str, x: str, y: str = "") -> Plot:
    """Return a drawn plot, with titles of the axes."""
    element = drawn.svg(title, x, y, legend={"ncols": 2})
    drawn.figure.set_facecolor("white")
    picture = drawing.Picture(element, head=title)
    svg = drawing.render(drawn.figure, "svg").decode()
    return Plot(name, picture, svg, drawing.render(drawn.figure, "png", 150))


def _baseline(task: Task, level: Callable[..., Any], value: float | None) -> None:
    if value is not None:
        label = f"baseline: {task.baseline_name}"
        level(_unit(task) * value, color=drawing.INK, linestyle="--", alpha=0.6, label=label)


def _unit(task: Task) -> float:
    return 100.0 if task.in_percent else 1.0


def _axis_title(task: Task) -> str:
    return f"{task.primary_title}, %" if task.in_percent else task.primary_title


def score_plot(draft: Draft) -> Plot:
    """Draw the primary metric: a bar for each row, or lines over the axis ``plot.x``."""
    return _score_lines(draft) if draft.file.plot.x else _score_bars(draft)


def _printed(draft: Draft, each: Compared, metric: str) -> float | None:
    """Return the published value of a row, as a fraction, that a plot marks."""
    kind = "percent", metric
    figures = [f for f in draft.file.published if (f.kind, f.metric) == kind]
    figures = [figure for figure in figures if figure.table != "counts"]
    return printed_figure(draft, figures, each.row, each.study)


def _score_bars(draft: Draft) -> Plot:
    """Draw horizontal bars, the first at the top."""
    task, bars = draft.task, []
    for each in draft.compared:
        label, values, nan = each.row.name, each.values(), math.nan
        if "training" in draft.file.measure.metrics:
            on_train = _printed(draft, each, "training")
            bars.append((f"{label}, training", each.train_score, nan, nan, on_train))
            label += ", test"
        score, low, high = (values.get(key, nan) for key in ("score", "low", "high"))
        bars.append((label, score, low, high, _printed(draft, each, "score")))
    unit = _unit(task)
    with drawing.drawing(6.4, 1.6 + 0.36 * len(bars)) as drawn:
        ax, marked = drawn.ax, []
        for i, (_, value, low, high, printed) in enumerate(bars):
            if math.isfinite(value):
                ax.barh(i, unit * value, height=0.6, color=drawing.COLOURS[0], alpha=0.85)
            if math.isfinite(low) and math.isfinite(high):
                drawn.line([unit * low, unit * high], [i, i], linewidth=1.4)
            if printed is not None and task.in_percent:
                marked.append((unit * printed, i))
        if marked:
            x, y = zip(*marked, strict=True)
            ax.plot(x, y, "D", color=_PUBLISHED, markersize=6, label=LABEL)
        base = (each.values()["baseline"] for each in draft.compared if each.results)
        _baseline(task, ax.axvline, next(base, None))
        ax.set_yticks(range(len(bars)), [bar[0] for bar in bars])
        ax.invert_yaxis()
        if task.in_percent:
            ax.set_xlim(0, 100)
        title = f"{_axis_title(task)} (line: 95 % interval over groups)"
        return _plot(drawn, draft.file.table.name, draft.text(draft.file.plot.title), title)


def _score_lines(draft: Draft) -> Plot:
    """Draw a line for each net and level; published values are dashed lines."""
    file, task = draft.file, draft.task
    spec, levels = file.plot, file.measure.level
    lines: dict[str, dict[float, float]] = {}
    printed: dict[str, dict[float, float]] = {}
    last: float | None = None  # baseline of the last row that has scores
    for each in draft.compared:
        row = each.row
        # The row's values except on the x axis.
        many = [a for a in row.values if a != spec.x and len(file.grid.get(a, ())) > 1]
        shown = [str(row.values[axis]) for axis in many or ["net"] if axis in row.values]
        x, label = float(row.values[spec.x]), ", ".join(file.names.get(v, v) for v in shown)
        for level in levels:
            line = f"{label}, {level}s" if len(levels) > 1 else label
            values = each.values(level)
            lines.setdefault(line, {})[x] = values.get("score", math.nan)
            last = values.get("baseline", last)
        known = _printed(draft, each, "score")
        if known is not None and task.in_percent:
            printed.setdefault(label, {})[x] = known
    with drawing.drawing(6.4, 4.6) as drawn:

        def line_of(points: dict[float, float], **style: Any) -> None:
            xs = sorted(points)
            drawn.line(xs, [_unit(task) * points[x] for x in xs], **style)

        for i, (label, points) in enumerate(lines.items()):
            line_of(points, marker="o", color=drawing.COLOURS[i], label=label)
        for i, (label, points) in enumerate(printed.items()):
            style = {"marker": "D", "markersize": 4, "linestyle": (0, (4, 2 + 2 * i))}
            line_of(points, color=_PUBLISHED, label=f"{label}, {LABEL}", **style)
        _baseline(task, drawn.ax.axhline, last)
        if task.in_percent:
            drawn.ax.set_ylim(0, 100)
        title, x_title = draft.text(spec.title), spec.axis or spec.x
        return _plot(drawn, file.table.name, title, x_title, _axis_title(task))


def loss_lines(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    published: float | None,
    since: float = 0.0,
) -> Plot:
    """Plot losses against iterations, and a published loss from iteration `since` onwards."""
    with drawing.drawing(6.4, 4.0) as drawn:
        longest = max(1.0, *(x for xs, _ in lines.values() for x in xs))
        for i, (label, (xs, ys)) in enumerate(lines.items()):
            drawn.line(xs, ys, color=drawing.COLOURS[i], label=label)
        if published is not None:
            start = since if since < longest else 0.0
            style = {"color": _PUBLISHED, "linestyle": "--", "label": f"{published:g}, {LABEL}"}
            drawn.line([start, longest], [published] * 2, **style)
        drawn.ax.set(xlim=(0, longest))
        drawn.ax.set_ylim(bottom=0)
        return _plot(drawn, "loss", title, "iterations (steps of the optimizer)", "loss")
