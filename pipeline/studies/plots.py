"""Plots of studies: bars with published marks, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvemo.fuse.report.drawing import COLOURS
from mvemo.fuse.report.published import LABEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mvemo.fuse.tasks.base import Task

_PUBLISHED = "#6b4a9c"
_BASELINE = "#555d66"


@dataclass(frozen=True)
class Bar:
    """Bar of a plot of scores."""

    label: str
    value: float  # a fraction; NaN draws no bar
    low: float = math.nan  # lower end of the interval
    high: float = math.nan  # upper end of the interval
    published: float | None = None  # published figure to mark


def score_bars(axes: Axes, bars: Sequence[Bar], baseline: float | None, task: Task) -> None:
    """Draw horizontal bars of a task's primary metric, the first at the top."""
    unit = 100 if task.in_percent else 1
    for i, bar in enumerate(bars):
        if math.isfinite(bar.value):
            axes.barh(i, unit * bar.value, height=0.6, color=COLOURS[0], alpha=0.85)
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            axes.plot([unit * bar.low, unit * bar.high], [i, i], color="#10202e", linewidth=1.4)
    marked = [
        (unit * bar.published, i)
        for i, bar in enumerate(bars)
        if bar.published is not None and task.in_percent
    ]
    if marked:
        x, y = zip(*marked, strict=True)
        axes.plot(x, y, "D", color=_PUBLISHED, markersize=6, linestyle="none", label=LABEL)
    if baseline is not None:
        label = f"baseline: {task.baseline_name}"
        axes.axvline(unit * baseline, color=_BASELINE, linestyle="--", label=label)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    if task.in_percent:
        axes.set_xlim(0, 100)
    axes.set_xlabel(f"{_axis_title(task)} (line: 95 % interval over groups)")
    _legend(axes)


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
    """Draw a task's primary metric over a quantity, with published figures dashed."""
    unit = 100 if task.in_percent else 1
    for i, (name, points) in enumerate(lines.items()):
        xs = sorted(points)
        axes.plot(xs, [unit * points[x] for x in xs], "o-", color=COLOURS[i], label=name)
    for i, (name, points) in enumerate(published.items()):
        xs = sorted(points)
        axes.plot(
            xs,
            [unit * points[x] for x in xs],
            marker="D",
            markersize=4,
            linestyle=(0, (4, 2 + 2 * i)),
            color=_PUBLISHED,
            label=f"{name}, {LABEL}",
        )
    if baseline is not None:
        label = f"baseline: {task.baseline_name}"
        axes.axhline(unit * baseline, color=_BASELINE, linestyle="--", label=label)
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
    """Draw losses over iterations, and a published level from iteration `since` on."""
    longest = 1.0
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        axes.plot(xs, ys, color=COLOURS[i], label=name)
        longest = max(longest, *xs) if xs else longest
    if published is not None:
        start = since if since < longest else 0.0
        axes.plot(
            [start, longest],
            [published, published],
            color=_PUBLISHED,
            linestyle="--",
            label=f"{published:g}, {LABEL}",
        )
    axes.set_xlim(0, longest)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("iterations (steps of the optimizer)")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Draw the legend below the axes, where it covers nothing."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(  # type: ignore[call-arg]
            loc="outside lower center", ncols=2, frameon=False, fontsize=9
        )
