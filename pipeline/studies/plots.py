"""Plots of a study: scores of its rows, and losses of a training."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvemo.fuse import Task
from mvemo.fuse.report.drawing import (
    COLOURS,
    INK,
    Drawing,
    Picture,
    drawing,
    render,
)
from mvemo.fuse.report.tables import LABEL

_PUBLISHED = "#6b4a9c"
# A line of a plot: its points.
Points = Mapping[float, float]


@dataclass(frozen=True)
class Plot:
    """Plot of a study, for its page and as files."""

    name: str  # short, for file names
    picture: Picture
    svg: str
    png: bytes


@dataclass(frozen=True)
class Bar:
    """Bar in a plot of scores."""

    label: str
    value: float  # a fraction; NaN draws no bar
    low: float = math.nan  # lower end of the interval
    high: float = math.nan  # upper end of the interval
    published: float | None = None  # published value to mark


def _plot(drawn: Drawing, name: str, title: str, x: str, y: str = "") -> Plot:
    """Return a drawn plot, with titles of the axes."""
    element = drawn.svg(title, x, y, legend={"ncols": 2})
    drawn.figure.set_facecolor("white")
    picture = Picture(element, head=title)
    return Plot(
        name, picture, render(drawn.figure, "svg").decode(), render(drawn.figure, "png", 150)
    )


def _baseline(task: Task, level: Callable[..., Any], value: float | None) -> None:
    if value is not None:
        label = f"baseline: {task.baseline_name}"
        level(_unit(task) * value, color=INK, linestyle="--", alpha=0.6, label=label)


def _unit(task: Task) -> float:
    return 100.0 if task.in_percent else 1.0


def _axis_title(task: Task) -> str:
    return f"{task.primary_title}, %" if task.in_percent else task.primary_title


def score_bars(
    name: str, title: str, bars: Sequence[Bar], baseline: float | None, task: Task
) -> Plot:
    """Draw horizontal bars of a task's primary metric, the first at the top."""
    unit = _unit(task)
    with drawing(6.4, 1.6 + 0.36 * len(bars)) as drawn:
        ax, marked = drawn.ax, []
        for i, bar in enumerate(bars):
            if math.isfinite(bar.value):
                ax.barh(i, unit * bar.value, height=0.6, color=COLOURS[0], alpha=0.85)
            if math.isfinite(bar.low) and math.isfinite(bar.high):
                drawn.line([unit * bar.low, unit * bar.high], [i, i], linewidth=1.4)
            if bar.published is not None and task.in_percent:
                marked.append((unit * bar.published, i))
        if marked:
            x, y = zip(*marked, strict=True)
            ax.plot(x, y, "D", color=_PUBLISHED, markersize=6, label=LABEL)
        _baseline(task, ax.axvline, baseline)
        ax.set_yticks(range(len(bars)), [bar.label for bar in bars])
        ax.invert_yaxis()
        if task.in_percent:
            ax.set_xlim(0, 100)
        return _plot(drawn, name, title, f"{_axis_title(task)} (line: 95 % interval over groups)")


def score_lines(
    name: str,
    titles: tuple[str, str],
    lines: Mapping[str, Points],
    published: Mapping[str, Points],
    baseline: float | None,
    task: Task,
) -> Plot:
    """Plot a task's primary metric against a quantity; published values are dashed lines.

    `titles` are those of the plot and of the x axis.
    """
    with drawing(6.4, 4.6) as drawn:

        def line(points: Points, **style: Any) -> None:
            xs = sorted(points)
            drawn.line(xs, [_unit(task) * points[x] for x in xs], **style)

        for i, (label, points) in enumerate(lines.items()):
            line(points, marker="o", color=COLOURS[i], label=label)
        for i, (label, points) in enumerate(published.items()):
            style = {"marker": "D", "markersize": 4, "linestyle": (0, (4, 2 + 2 * i))}
            line(points, color=_PUBLISHED, label=f"{label}, {LABEL}", **style)
        _baseline(task, drawn.ax.axhline, baseline)
        if task.in_percent:
            drawn.ax.set_ylim(0, 100)
        return _plot(drawn, name, *titles, _axis_title(task))


def loss_lines(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    published: float | None,
    since: float = 0.0,
) -> Plot:
    """Plot losses against iterations, and a published loss from iteration `since` onwards."""
    with drawing(6.4, 4.0) as drawn:
        longest = max(1.0, *(x for xs, _ in lines.values() for x in xs))
        for i, (label, (xs, ys)) in enumerate(lines.items()):
            drawn.line(xs, ys, color=COLOURS[i], label=label)
        if published is not None:
            start = since if since < longest else 0.0
            style = {"color": _PUBLISHED, "linestyle": "--", "label": f"{published:g}, {LABEL}"}
            drawn.line([start, longest], [published] * 2, **style)
        drawn.ax.set(xlim=(0, longest))
        drawn.ax.set_ylim(bottom=0)
        return _plot(drawn, "loss", title, "iterations (steps of the optimizer)", "loss")
