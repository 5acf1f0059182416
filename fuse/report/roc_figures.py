"""ROC curves of all models, and of the classes or tags of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvemo.fuse.arrays import F64, Bools
from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.metrics.ranking import rank_columns, roc_auc
from mvemo.fuse.report.drawing import (
    COLOURS,
    DASHES,
    GRID,
    INK,
    WIDE,
    Picture,
    bare,
    drawing,
    legend_below,
    short,
)
from mvemo.fuse.report.shown import recommended
from mvemo.fuse.report.text import fraction
from mvemo.fuse.results import ModelResult, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATES = np.linspace(0.0, 1.0, 201)
# More curves than this cannot be told apart.
_MOST_CURVES = 12


def roc_figure(results: Results) -> list[Picture]:
    """Draw the macro one-vs-rest ROC curve of each model from its pooled predictions.

    The curve of the recommended model is thick.
    """
    top = recommended(results)
    with drawing(WIDE, 3.9 + 0.22 * -(-len(results.models) // 2)) as (figure, finish):
        ax = figure.add_subplot()
        for i, model in enumerate(results.models):
            positive = results.task.indicators(results.y_true, len(results.classes))
            drawn = [each for each in curves_of(positive, model.outputs) if len(each[0])]
            if not drawn:
                continue
            curves, areas = zip(*drawn, strict=True)
            ax.plot(
                _RATES,
                np.mean(curves, axis=0),
                color=COLOURS[i % len(COLOURS)],
                linestyle=DASHES[1] if len(model.features) == 1 else "-",
                linewidth=2.4 if model is top else 1.4,
                # The AUC of the drawn curve; the model's own score covers all repeats.
                label=f"{short(model.name)}  {fraction(mean_of_finite(np.array(areas)))}",
            )
        _roc_axes(ax)
        legend_below(figure, ax)
        svg = finish("ROC curve of each model, mean over classes; pooled AUC in the legend")
    caption = (
        "Every model: mean over classes of the one-vs-rest curves, of the pooled predictions; "
        "pooled AUC beside the name."
    )
    if top is not None:
        caption += f" Thick: {top.name}."
    return [Picture(svg, caption=caption)]


def class_roc_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the pooled one-vs-rest ROC curve of each class or tag (thin) and their mean (thick).

    If there are too many, only the commonest are drawn.
    """
    positive = results.task.indicators(results.y_true, len(results.classes))
    columns = np.sort(np.argsort(-positive.sum(axis=0), kind="stable")[:_MOST_CURVES])
    names = [results.classes[i] for i in columns.tolist()]
    curves = curves_of(positive[:, columns], model.outputs[:, columns])
    noun = results.task.output_nouns[0]
    with drawing(WIDE, 3.9 + 0.22 * -(-(len(names) + 1) // 2)) as (figure, finish):
        ax = figure.add_subplot()
        for c, (curve, area) in enumerate(curves):
            if len(curve):
                ax.plot(
                    _RATES,
                    curve,
                    color=COLOURS[c % len(COLOURS)],
                    linestyle=DASHES[c // len(COLOURS) % 3],
                    linewidth=1.1,
                    label=f"{short(names[c])}  {fraction(area)}",
                )
        defined = [curve for curve, _ in curves if len(curve)]
        if defined:
            mean = mean_of_finite(np.array([area for _, area in curves]))
            ax.plot(
                _RATES,
                np.mean(defined, axis=0),
                color=INK,
                linewidth=2.4,
                label=f"mean  {fraction(mean)}",
            )
        _roc_axes(ax)
        legend_below(figure, ax)
        svg = finish(f"ROC curve of each {noun}, {model.name}")
    which = "" if len(columns) == len(results.classes) else f" of the {len(columns)} commonest"
    return [Picture(svg, caption=f"{model.name}: each {noun}{which} against the rest.")]


def curves_of(positive: Bools, scores: F64) -> list[tuple[F64, float]]:
    """Return true positive rates at evenly spaced false positive rates, and the AUC, per column.

    A column that is true everywhere or nowhere gives an empty curve and NaN.
    """
    valid = complete(scores)
    areas = roc_auc(positive[valid], scores[valid])
    curves: list[tuple[F64, float]] = []
    for truth, score, area in zip(positive[valid].T, scores[valid].T, areas, strict=True):
        if truth.all() or not truth.any():
            curves.append((np.empty(0), float("nan")))
            continue
        ranking = rank_columns(truth[:, None], score[:, None])
        hits, misses = ranking.hits[ranking.ends], (ranking.n_clips - ranking.hits)[ranking.ends]
        # At a vertical step np.interp takes the upper end; each curve starts in (0, 0).
        false_rate, true_rate = misses / misses[-1], hits / hits[-1]
        rates = np.interp(_RATES, np.append(0.0, false_rate), np.append(0.0, true_rate))
        rates[0] = 0.0
        curves.append((rates, float(area)))
    return curves


def _roc_axes(ax: Axes) -> None:
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.6)
    ax.set_xlim(-0.01, 1.0)
    ax.set_ylim(0.0, 1.01)
    ax.set_aspect("equal")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.grid(**GRID)
    bare(ax)
