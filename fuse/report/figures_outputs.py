"""Figures of tags and dimensions as SVG text; see `mvemo.fuse.report.figures`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.report.figures import (
    COLOURS,
    GRID,
    INK,
    WIDE,
    bare,
    curves_of,
    drawing,
    fold_figure,
    roc_of_each,
    short,
)
from mvemo.fuse.results import ModelResult, Results

# More curves than these cannot be told apart.
MOST_CURVES = 12


def primary_figure(results: Results) -> str:
    """The headline score of each model in each fold, and the baseline's."""
    models = [(m.name, results.primary_per_fold(m)) for m in results.models]
    every = np.concatenate([results.primary_per_fold(results.baseline), *(v for _, v in models)])
    held = every[np.isfinite(every)]
    low = float(np.floor(10 * held.min()) / 10) if len(held) else 0.0
    return fold_figure(
        models,
        results.primary_per_fold(results.baseline),
        score=results.task.primary_title,
        baseline=results.baseline.name,
        limits=(min(low, 0.0 if results.task.name == "regression" else 0.4), 1.0),
    )


def scatter_figure(
    true: NDArray[np.float64], predicted: NDArray[np.float64], dimension: str, model: str
) -> str:
    """Predicted against true values of one dimension, float64 (clips,) each."""
    there = np.isfinite(predicted)
    with drawing(WIDE, WIDE) as (figure, finish):
        ax = figure.add_subplot()
        both = np.concatenate([true[there], predicted[there]])
        low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
        margin = 0.04 * (high - low or 1.0)
        ends = (low - margin, high + margin)
        ax.plot(ends, ends, color=INK, linestyle=(0, (4, 2)), linewidth=1.0)
        ax.plot(
            true[there],
            predicted[there],
            linestyle="",
            marker="o",
            markersize=3.2 if there.sum() < 2000 else 1.6,
            alpha=0.5,
            markeredgewidth=0,
            color=COLOURS[0],
            # A page with tens of thousands of vector points would be slow to open.
            rasterized=bool(there.sum() > 5000),
        )
        ax.set_xlim(*ends)
        ax.set_ylim(*ends)
        ax.set_aspect("equal")
        ax.set_xlabel(f"true {short(dimension)}")
        ax.set_ylabel(f"predicted {short(dimension)}")
        ax.grid(**GRID)
        bare(ax)
        return finish(f"Predicted against true {dimension}, {model}")


def output_figure(results: Results, model: ModelResult) -> str:
    """A model's headline score of each tag, pooled, with that of the baseline."""
    values = model.per_output["roc_auc"]
    with drawing(WIDE, 1.0 + 0.28 * len(values)) as (figure, finish):
        ax = figure.add_subplot()
        rows = np.arange(len(values))
        ax.barh(rows, np.nan_to_num(values), height=0.6, color=COLOURS[0])
        if results.task.name == "multilabel":
            ax.axvline(0.5, color=INK, linestyle=(0, (4, 2)), linewidth=1.0)
        ax.set_yticks(rows, [short(name) for name in results.classes])
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("ROC-AUC, pooled; dashed: chance")
        ax.grid(axis="x", **GRID)
        bare(ax)
        return finish(f"ROC-AUC of each tag, {model.name}")


def tag_roc_figure(results: Results, model: ModelResult) -> str:
    """ROC curve of each tag (thin) and their mean (thick), pooled; of many the commonest."""
    order = np.argsort(-results.y_true.sum(axis=0), kind="stable")[:MOST_CURVES]
    shown = np.sort(order)
    curves = curves_of(results.y_true[:, shown] == 1, model.outputs[:, shown])
    return roc_of_each(
        [results.classes[i] for i in shown.tolist()],
        curves,
        mean_of_finite(np.array([area for _, area in curves])),
        f"ROC curve of each tag, {model.name}",
    )
