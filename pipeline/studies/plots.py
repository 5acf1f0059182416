"""How studies draw: bars beside published marks, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvemo.fuse.report.drawing import COLOURS
from mvemo.fuse.report.published import LABEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PUBLISHED = "#6b4a9c"
_MAJORITY = "#555d66"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Parameters
    ----------
    label
        Beside it.
    value
        A fraction; NaN draws none.
    low, high
        Ends of its interval.
    published
        A printed figure to mark, None without one.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    published: float | None = None


def accuracy_bars(axes: Axes, bars: Sequence[Bar], majority: float | None) -> None:
    """Horizontal bars of accuracies in per cent, from the top."""
    for i, bar in enumerate(bars):
        if math.isfinite(bar.value):
            axes.barh(i, 100 * bar.value, height=0.6, color=COLOURS[0], alpha=0.85)
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            axes.plot([100 * bar.low, 100 * bar.high], [i, i], color="#10202e", linewidth=1.4)
    marked = [(100 * bar.published, i) for i, bar in enumerate(bars) if bar.published is not None]
    if marked:
        x, y = zip(*marked, strict=True)
        axes.plot(x, y, "D", color=_PUBLISHED, markersize=6, linestyle="none", label=LABEL)
    if majority is not None:
        axes.axvline(100 * majority, color=_MAJORITY, linestyle="--", label="majority baseline")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, % (line: 95 % interval over groups)")
    _legend(axes)


def accuracy_lines(
    axes: Axes,
    lines: Mapping[str, Mapping[float, float]],
    published: Mapping[str, Mapping[float, float]],
    majority: float | None,
    xlabel: str,
) -> None:
    """Accuracies in per cent over a quantity; published ones dashed."""
    for i, (name, points) in enumerate(lines.items()):
        xs = sorted(points)
        axes.plot(xs, [100 * points[x] for x in xs], "o-", color=COLOURS[i], label=name)
    for i, (name, points) in enumerate(published.items()):
        xs = sorted(points)
        axes.plot(
            xs,
            [100 * points[x] for x in xs],
            marker="D",
            markersize=4,
            linestyle=(0, (4, 2 + 2 * i)),
            color=_PUBLISHED,
            label=f"{name}, {LABEL}",
        )
    if majority is not None:
        axes.axhline(100 * majority, color=_MAJORITY, linestyle="--", label="majority baseline")
    axes.set_ylim(0, 100)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    _legend(axes)


def loss_lines(
    axes: Axes,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    published: float | None,
    since: float = 0.0,
) -> None:
    """Losses over iterations; a published level from an iteration on."""
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
    """Below the axes, where it covers nothing."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(  # type: ignore[call-arg]
            loc="outside lower center", ncols=2, frameon=False, fontsize=9
        )
