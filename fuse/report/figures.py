"""Figures of one evaluation as SVG text for a page.

`Task.figures` names the figures of a task, and `draw_figures` draws them. The figures of training,
loss by epoch and learning curves, do not depend on the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.fuse.arrays import F64, Bools
from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.metrics.calibration import reliability
from mvemo.fuse.metrics.classification import rank_columns, roc_auc
from mvemo.fuse.report.drawing import (
    COLOURS,
    DASHES,
    FILL,
    GRID,
    INK,
    WIDE,
    Picture,
    bare,
    drawing,
    legend_below,
    matrix_figure,
    short,
)
from mvemo.fuse.report.text import fraction
from mvemo.fuse.results import ModelResult, Results, recommended_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Scatter plots of more targets than this would make the page too long.
_MANY_TARGETS = 6
# A page with more points than this as vectors would be slow to open.
_MANY_POINTS = 5000
# False positive rates of ROC curves.
_RATES = np.linspace(0.0, 1.0, 201)
# More curves than this cannot be told apart.
_MOST_CURVES = 12


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
    shown = recommended_model(results) if shown is None else shown
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


def roc_figure(results: Results) -> list[Picture]:
    """Draw the macro one-vs-rest ROC curve of each model from its pooled predictions.

    The curve of the recommended model is thick.
    """
    top = recommended_model(results)
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


# --- training


def loss_figures(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Picture]:
    """Draw training and validation loss by epoch: one figure per net, one colour per fold.

    `curves` maps ``net@fold`` to lists under ``epoch``, ``train_loss`` and ``val_loss``. A list
    that is absent, has another length or has no finite value is left out.
    """
    nets: dict[str, list[Mapping[str, Sequence[float]]]] = {}
    for key, curve in curves.items():
        net, _, fold = key.rpartition("@")
        nets.setdefault(net or fold, []).append(curve)
    return [Picture(_loss_figure(net, listed), head=net) for net, listed in nets.items()]


def _loss_figure(net: str, curves: Sequence[Mapping[str, Sequence[float]]]) -> str:
    with drawing(3.7, 2.8) as (figure, finish):
        from matplotlib.lines import Line2D

        ax = figure.add_subplot()
        longest = 1.0
        for i, curve in enumerate(curves):
            epochs = np.asarray(curve.get("epoch", ()), dtype=np.float64)
            colour = COLOURS[i % len(COLOURS)]
            for name, dash, width in (("train_loss", (0, (3, 1.5)), 1.0), ("val_loss", "-", 1.5)):
                losses = np.array(
                    [np.nan if v is None else v for v in curve.get(name, ())], dtype=np.float64
                )
                if len(losses) != len(epochs) or not np.isfinite(losses).any():
                    continue
                longest = max(longest, float(epochs.max()))
                # One epoch draws no line, so it gets a marker.
                marker = "." if len(losses) == 1 else ""
                ax.plot(epochs, losses, color=colour, ls=dash, lw=width, marker=marker)
                if name == "val_loss":
                    low = int(np.nanargmin(losses))
                    ax.plot(epochs[low], losses[low], "o", ms=4, color=colour, mew=0)
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="x", integer=True)
        ax.grid(**GRID)
        bare(ax)
        kinds = [
            Line2D([], [], color=INK, ls=(0, (3, 1.5)), lw=1.0, label="training"),
            Line2D([], [], color=INK, lw=1.5, marker="o", ms=4, label="validation, lowest"),
        ]
        figure.legend(handles=kinds, loc="outside lower center", ncols=2, frameon=False)
        what = "one net" if len(curves) == 1 else f"{len(curves)} nets, one colour each"
        return finish(f"Loss by epoch, {net} ({what})")


def learning_curve_figure(results: Results) -> str:
    """Draw the primary metric of each model against the number of training clips.

    A band shows one standard deviation over folds: for every curve if there are at most three,
    otherwise only for the recommended model.
    """
    task, curves = results.task, results.learning_curve
    factor = 100.0 if task.in_percent else 1.0
    top = recommended_model(results)
    one = top.name if top is not None and top.name in curves else next(iter(curves))
    single = {model.name for model in results.models if len(model.features) == 1}
    # More than three bands hide each other.
    banded = set(curves) if len(curves) <= 3 else {one}
    with drawing(WIDE, WIDE + 0.18 * len(curves)) as (figure, finish):
        ax = figure.add_subplot()
        for i, (name, points) in enumerate(curves.items()):
            colour, dash = COLOURS[i % len(COLOURS)], "--" if name in single else "-"
            _, clips, scores, deviation = np.array(points).T
            if name in banded:
                low, high = factor * (scores - deviation), factor * (scores + deviation)
                ax.fill_between(clips, low, high, color=colour, alpha=0.16, linewidth=0)
            style: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": 1.2}
            ax.plot(clips, factor * scores, marker="o", markersize=3, label=name, **style)
        ax.set_xlabel("training clips of a head (mean over folds)")
        ax.set_ylabel(f"{task.primary_title} (%)" if task.in_percent else task.primary_title)
        if task.in_percent:
            ax.set_ylim(bottom=0)
        ax.grid(**GRID)
        bare(ax)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return finish("Learning curves")
