"""Figures of one evaluation as SVG text for a page, by name.

`Task.figures` names the figures of a task; `draw_figures` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.calibration import reliability
from mvemo.fuse.report.drawing import (
    COLOURS,
    FILL,
    GRID,
    INK,
    WIDE,
    Picture,
    bare,
    drawing,
    rgb,
    short,
)
from mvemo.fuse.report.roc_figures import class_roc_figure, roc_figure
from mvemo.fuse.report.shown import recommended
from mvemo.fuse.results import ModelResult, Results

# From this number of classes on, counts in cells would not be legible.
_MANY_CLASSES = 16
# Scatter plots of more targets than this would make the page too long.
_MANY_TARGETS = 6
# A page with more points than this as vectors would be slow to open.
_MANY_POINTS = 5000


def draw_figures(results: Results, shown: ModelResult | None = None) -> dict[str, list[Picture]]:
    """Draw the figures of the task.

    Parameters
    ----------
    results
        Results of one evaluation.
    shown
        Model for the figures of a single model; by default the recommended one. If no model made
        a prediction, these figures are left out.

    Returns
    -------
    Mapping of a figure's name, such as ``roc`` or ``confusion``, to its pictures. In a notebook
    ``IPython.display.SVG(picture.svg)`` shows a picture.

    See Also
    --------
    mvemo.fuse.write_report : Write the page with all figures.
    """
    shown = recommended(results) if shown is None else shown
    pictures = {}
    for name in results.task.figures:
        if name in OF_ALL:
            pictures[name] = OF_ALL[name](results)
        elif shown is not None:
            pictures[name] = OF_ONE[name](results, shown)
    return pictures


# --- all models


def fold_figure(results: Results) -> list[Picture]:
    """Draw the primary metric per model and fold (dots), its mean (bar) and the baseline."""
    task, models = results.task, results.models
    factor, unit = (100.0, " (%)") if task.in_percent else (1.0, "")
    scores = [factor * results.primary_per_fold(model) for model in models]
    base = factor * results.primary_per_fold(results.baseline)
    with drawing(WIDE, 1.25 + 0.3 * max(len(models), 1)) as (figure, finish):
        ax = figure.add_subplot()
        finite = base[np.isfinite(base)]
        if len(finite):
            ax.axvspan(finite.min(), finite.max(), color="#80808a", alpha=0.18, linewidth=0)
            ax.axvline(
                finite.mean(),
                color=INK,
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                label=f"{results.baseline.name} (band: its range over folds)",
            )
        for row, per_fold in enumerate(scores):
            values = per_fold[np.isfinite(per_fold)]
            # Small offsets keep equal scores from hiding each other.
            offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
            ax.plot(
                values,
                row + offsets[: len(values)],
                linestyle="",
                marker="o",
                markersize=4.5,
                color=COLOURS[row % len(COLOURS)],
                alpha=0.75,
                markeredgewidth=0,
                clip_on=False,
            )
            if len(values):
                ax.plot([values.mean()] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=2.2)
        ax.set_yticks(range(len(models)), [short(model.name) for model in models])
        ax.set_ylim(max(len(models), 1) - 0.5, -0.5)
        lowest = _lowest(np.concatenate([base, *scores]) / factor, task.axis_from)
        ax.set_xlim(factor * lowest, factor)
        title = task.primary_title
        ax.set_xlabel(f"{title} of a fold{unit}; bar: mean")
        ax.grid(axis="x", **GRID)
        bare(ax)
        if ax.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", frameon=False)
        return [Picture(finish(f"{title[0].upper()}{title[1:]} of each model in each fold"))]


def _lowest(values: F64, usual: float) -> float:
    """Return the start of a score's axis: its usual start, or lower if a value is below it."""
    finite = values[np.isfinite(values)]
    low = float(np.floor(10 * finite.min()) / 10) if len(finite) else 0.0
    return min(low, usual)


def confusion_figures(results: Results) -> list[Picture]:
    """Draw the confusion matrix of every model."""
    return [
        Picture(matrix_figure(model.confusion, results.classes, model.name), head=model.name)
        for model in results.models
        if model.confusion is not None
    ]


# --- one model


def quadrant_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the confusion matrix of the quadrants of valence and arousal, if there is one."""
    if model.confusion is None:
        return []
    names = ("V+ A+", "V\u2212 A+", "V\u2212 A\u2212", "V+ A\u2212")
    return [Picture(matrix_figure(model.confusion, names, f"quadrants, {model.name}"))]


def output_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw a model's pooled ROC-AUC of each tag, and the chance level."""
    values = model.per_output["roc_auc"]
    with drawing(WIDE, 1.0 + 0.28 * len(values)) as (figure, finish):
        ax = figure.add_subplot()
        rows = np.arange(len(values))
        ax.barh(rows, np.nan_to_num(values), height=0.6, color=COLOURS[0])
        ax.axvline(0.5, color=INK, linestyle=(0, (4, 2)), linewidth=1.0)
        ax.set_yticks(rows, [short(name) for name in results.classes])
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("ROC-AUC, pooled; dashed: chance")
        ax.grid(axis="x", **GRID)
        bare(ax)
        return [Picture(finish(f"ROC-AUC of each tag, {model.name}"))]


def scatter_figures(results: Results, model: ModelResult) -> list[Picture]:
    """Draw predicted against true values of each target."""
    return [
        Picture(_scatter_figure(results.y_true[:, i], model.outputs[:, i], name, model.name))
        for i, name in enumerate(results.classes[:_MANY_TARGETS])
    ]


def _scatter_figure(y_true: F64, y_pred: F64, target: str, model: str) -> str:
    """Draw predicted against true values of one target, each float64 (clips,)."""
    valid = np.isfinite(y_pred)
    true, predicted = y_true[valid], y_pred[valid]
    with drawing(WIDE, WIDE) as (figure, finish):
        ax = figure.add_subplot()
        both = np.concatenate([true, predicted])
        low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
        margin = 0.04 * (high - low or 1.0)
        ends = (low - margin, high + margin)
        ax.plot(ends, ends, color=INK, linestyle=(0, (4, 2)), linewidth=1.0)
        ax.plot(
            true,
            predicted,
            linestyle="",
            marker="o",
            markersize=3.2 if len(true) < 2000 else 1.6,
            alpha=0.5,
            markeredgewidth=0,
            color=COLOURS[0],
            rasterized=len(true) > _MANY_POINTS,
        )
        ax.set_xlim(*ends)
        ax.set_ylim(*ends)
        ax.set_aspect("equal")
        ax.set_xlabel(f"true {short(target)}")
        ax.set_ylabel(f"predicted {short(target)}")
        ax.grid(**GRID)
        bare(ax)
        return finish(f"Predicted against true {target}, {model}")


def reliability_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the share of right predictions against the stated probability, in bins."""
    task = results.task
    bins = reliability(results.y_true, model.outputs)
    filled = bins.count > 0
    with drawing(WIDE, 0.9 * WIDE) as (figure, finish):
        ax = figure.add_subplot()
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.bar(
            bins.edges[:-1][filled],
            bins.accuracy[filled],
            width=np.diff(bins.edges)[filled],
            align="edge",
            color=FILL,
            alpha=0.35,
        )
        size = 12 + 160 * bins.count[filled] / max(int(bins.count.sum()), 1)
        ax.scatter(bins.confidence[filled], bins.accuracy[filled], s=size, color=FILL, zorder=3)
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
        ax.set_xlabel(f"probability of {task.probability_of}")
        ax.set_ylabel(f"share that {task.right_words}")
        ax.grid(**GRID)
        svg = finish(f"Reliability of {model.name}")
    caption = (
        f"{model.name}: of the {task.probable_words} given a probability, the share that "
        f"{task.right_words}. On the diagonal, probabilities can be taken at their word."
    )
    return [Picture(svg, caption=caption)]


OF_ALL: Mapping[str, Callable[[Results], list[Picture]]] = {
    "folds": fold_figure,
    "roc": roc_figure,
    "confusion": confusion_figures,
}
OF_ONE: Mapping[str, Callable[[Results, ModelResult], list[Picture]]] = {
    "class_roc": class_roc_figure,
    "per_output": output_figure,
    "scatter": scatter_figures,
    "quadrants": quadrant_figure,
    "reliability": reliability_figure,
}


# --- parts


def matrix_figure(confusion: Ints, classes: Sequence[str], name: str) -> str:
    """Draw a confusion matrix (rows true, columns predicted), coloured by shares of rows."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    n = len(classes)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    cell = 0.46 if n <= 8 else max(3.7 / n, 0.12)
    size = 9 if n <= 8 else 7
    with drawing(1.15 + cell * n, 1.2 + cell * n) as (figure, finish):
        ax = figure.add_subplot()
        cells = [Rectangle((j - 0.5, i - 0.5), 1, 1) for i in range(n) for j in range(n)]
        colours = [(*rgb(FILL), round(float(s), 3)) for s in share.ravel()]
        ax.add_collection(
            PatchCollection(cells, facecolors=colours, edgecolors=(0.5, 0.5, 0.55, 0.35))
        )
        if n < _MANY_CLASSES:
            for i, j in np.ndindex(n, n):
                ax.text(
                    j,
                    i,
                    str(int(confusion[i, j])),
                    ha="center",
                    va="center_baseline",
                    fontsize=size,
                    # On paler cells the page's own ink is easier to read.
                    color="#ffffff" if share[i, j] > 0.75 else INK,
                )
        if n < 2 * _MANY_CLASSES:
            names = [short(c, 14) for c in classes]
            ax.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(n), names)
            ax.tick_params(length=0, labelsize=size)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
        ax.set_xlim(-0.5, n - 0.5)
        ax.set_ylim(n - 0.5, -0.5)
        ax.set_aspect("equal")
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        for side in ax.spines.values():
            side.set_visible(False)
        return finish(f"Confusion matrix, {name}")
