"""Figures of one evaluation as SVG text for a page.

`Task.figures` names the figures of a task, and `draw_figures` draws them. Figures of training
(loss by epoch, learning curves) do not depend on the task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.metrics.calibration import EDGES, reliability
from mvemo.fuse.metrics.scores import rank_columns, roc_auc
from mvemo.fuse.numeric import complete, mean_of_finite
from mvemo.fuse.report import score_tables, text
from mvemo.fuse.report.drawing import (
    COLOURS,
    DASHES,
    FILL,
    INK,
    WIDE,
    Drawing,
    Picture,
    collected_pdfs,
    drawing,
    matrix_figures,
    short,
    standalone,
)
from mvemo.fuse.results import ModelResult, Results, recommended_model
from mvemo.manifests.array_types import F64, Bools
from mvemo.manifests.files import write_bytes, write_text

# With more targets than this, scatter plots would make the page too long.
_MANY_TARGETS = 6
# With more points than this in vector form, a page would be slow to open.
_MANY_POINTS = 5000
# False positive rates at which ROC curves are evaluated.
_RATES = np.linspace(0.0, 1.0, 201)
# More curves than this cannot be distinguished.
_MOST_CURVES = 12
_DASHED = (0, (4, 2))
# True positive rates at `_RATES`, and the AUC.
Curve = tuple[F64, float]


def draw_figures(results: Results, shown: ModelResult | None = None) -> dict[str, list[Picture]]:
    """Draw the figures of the task.

    Parameters
    ----------
    results
        Results of one evaluation.
    shown
        Model for the figures of a single model; by default the recommended one. These
        figures are left out if no model made a prediction.

    Returns
    -------
    Mapping of a figure's name, such as ``roc`` or ``confusion``, to its pictures. In a notebook
    ``IPython.display.SVG(picture.svg)`` shows a picture.
    """
    shown = recommended_model(results) if shown is None else shown
    pictures = {}
    for name in results.task.figures:
        if name in OF_ALL:
            pictures[name] = OF_ALL[name](results)
        elif shown is not None:
            pictures[name] = OF_ONE[name](results, shown)
    return pictures


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write the figures of `draw_figures` as SVG and PDF files; return the files."""
    with collected_pdfs() as pages:
        pictures = draw_figures(results)
    named = [
        (f"{name}-{number}" if len(of_name) > 1 else name, picture)
        for name, of_name in pictures.items()
        for number, picture in enumerate(of_name, 1)
    ]
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for (name, picture), page in zip(named, pages, strict=True):
        files += [folder / f"{name}.svg", folder / f"{name}.pdf"]
        write_text(files[-2], standalone(picture.svg))
        write_bytes(files[-1], page)
    return files


# --- all models


def fold_figure(results: Results) -> list[Picture]:
    """Draw the primary metric per model and fold (dots), its mean (bar), and the baseline."""
    task, models = results.task, results.models
    factor, unit = (100.0, " (%)") if task.in_percent else (1.0, "")
    scores = [factor * results.primary_per_fold(model) for model in models]
    base = factor * results.primary_per_fold(results.baseline)
    with drawing(WIDE, 1.25 + 0.3 * max(len(models), 1)) as drawn:
        finite = base[np.isfinite(base)]
        if len(finite):
            ends = finite.min(), finite.max()
            drawn.ax.axvspan(*ends, color="#80808a", alpha=0.18, linewidth=0)
            label = f"{results.baseline.name} (band: its range over folds)"
            drawn.ax.axvline(finite.mean(), c=INK, ls=_DASHED, lw=1.2, label=label)
        if np.isfinite(ceiling := factor * results.ceiling_of()):
            drawn.ax.axvline(ceiling, c=COLOURS[1], ls=DASHES[1], lw=1.4, label=task.ceiling_name)
        for row, per_fold in enumerate(scores):
            values = per_fold[np.isfinite(per_fold)]
            # Small offsets keep equal scores from hiding each other.
            n = len(values)
            offsets = np.linspace(-0.2, 0.2, n) if n > 1 else np.zeros(n)
            colour = COLOURS[row % len(COLOURS)]
            style = {"markersize": 4.5, "alpha": 0.75, "clip_on": False}
            drawn.points(values, row + offsets, colour, **style)
            if n:
                drawn.line([values.mean()] * 2, [row - 0.36, row + 0.36], linewidth=2.2)
        _name_rows(drawn, [model.name for model in models])
        every = np.concatenate([base, *scores]) / factor
        every = every[np.isfinite(every)]
        low = np.floor(10 * every.min()) / 10 if len(every) else 0.0
        drawn.ax.set_xlim(factor * min(low, task.axis_from), factor)
        title = task.primary_title
        words = f"{title[0].upper()}{title[1:]} of each model in each fold"
        return [
            Picture(drawn.svg(words, f"{title} of a fold{unit}; bar: mean", grid="x", legend={}))
        ]


def _name_rows(drawn: Drawing, names: Sequence[str]) -> None:
    drawn.ax.set_yticks(range(len(names)), [short(name) for name in names])
    drawn.ax.set_ylim(max(len(names), 1) - 0.5, -0.5)


def roc_figure(results: Results) -> list[Picture]:
    """Draw the macro one-vs-rest ROC curve of each model; that of the recommended one is thick."""
    top = recommended_model(results)
    positive = results.task.indicators(results.y_true, len(results.classes))
    lines = []
    for i, model in enumerate(results.models):
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[1] if len(model.features) == 1 else "-",
            "linewidth": 2.4 if model is top else 1.4,
        }
        # The AUC belongs to the drawn curves; the model's score covers all repeats.
        lines.append((model.name, curves_of(positive, model.outputs), style))
    title = "ROC curve of each model, mean over classes; pooled AUC in the legend"
    caption = (
        "Each model: mean over classes of the one-vs-rest curves of the pooled predictions; the "
        "pooled AUC is next to the name."
    )
    if top is not None:
        caption += f" The thick curve is {top.name}."
    return [Picture(_draw_roc(lines, title), caption=caption)]


def confusion_figures(results: Results) -> list[Picture]:
    shown = score_tables.shown_classes(results)
    cells = np.ix_(shown, shown)
    confusions = {m.name: m.confusion[cells] for m in results.models if m.confusion is not None}
    svgs = matrix_figures(confusions, [results.classes[i] for i in shown])
    return [Picture(svg, head=name) for name, svg in zip(confusions, svgs, strict=True)]


# --- one model


def quadrant_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the confusion matrix of valence-arousal quadrants, if there is one."""
    if model.confusion is None:
        return []
    names = ("V+ A+", "V\u2212 A+", "V\u2212 A\u2212", "V+ A\u2212")
    return [Picture(*matrix_figures({f"quadrants, {model.name}": model.confusion}, names))]


def class_roc_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the pooled one-vs-rest ROC curves of the most common classes, and their mean."""
    positive = results.task.indicators(results.y_true, len(results.classes))
    columns = np.sort(np.argsort(-positive.sum(axis=0), kind="stable")[:_MOST_CURVES])
    curves = curves_of(positive[:, columns], model.outputs[:, columns])
    noun = results.task.output_nouns[0]
    lines = []
    for c, (column, curve) in enumerate(zip(columns, curves, strict=True)):
        dash = DASHES[c // len(COLOURS) % 3]
        style = {"color": COLOURS[c % len(COLOURS)], "linestyle": dash, "linewidth": 1.1}
        lines.append((results.classes[column], [curve], style))
    lines.append(("mean", curves, {"color": INK, "linewidth": 2.4}))
    svg = _draw_roc(lines, f"ROC curve of each {noun}, {model.name}")
    which = "" if len(columns) == len(results.classes) else f" of the {len(columns)} most common"
    return [Picture(svg, caption=f"{model.name}: each {noun}{which} against the rest.")]


def curves_of(positive: Bools, scores: F64) -> list[Curve]:
    """Return per column the true positive rates at `_RATES` and the AUC, or empty and NaN."""
    valid = complete(scores)
    areas = roc_auc(positive[valid], scores[valid])
    curves: list[Curve] = []
    for truth, score, area in zip(positive[valid].T, scores[valid].T, areas, strict=True):
        if truth.all() or not truth.any():
            curves.append((np.empty(0), float("nan")))
            continue
        ranking = rank_columns(truth[:, None], score[:, None])
        hits, misses = ranking.hits[ranking.ends], (ranking.n_clips - ranking.hits)[ranking.ends]
        # At a vertical step, np.interp returns the upper end; each curve starts at (0, 0).
        false_rate, true_rate = misses / misses[-1], hits / hits[-1]
        rates = np.interp(_RATES, np.append(0.0, false_rate), np.append(0.0, true_rate))
        rates[0] = 0.0
        curves.append((rates, float(area)))
    return curves


def _draw_roc(lines: Sequence[tuple[str, Sequence[Curve], Any]], title: str) -> str:
    """Draw the mean of the curves of each (name, curves, style), with their mean AUC."""
    # The legend has up to two columns.
    with drawing(WIDE, 3.9 + 0.22 * -(-len(lines) // 2)) as drawn:
        for name, curves, style in lines:
            defined = [curve for curve, _ in curves if len(curve)]
            if defined:
                area = text.fraction(mean_of_finite(np.array([area for _, area in curves])))
                label = f"{short(name)}  {area}"
                drawn.ax.plot(_RATES, np.mean(defined, axis=0), label=label, **style)
        drawn.line([0, 1], [0, 1], linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.6)
        drawn.ax.set(xlim=(-0.01, 1.0), ylim=(0.0, 1.01), aspect="equal")
        longest = max(map(len, drawn.ax.get_legend_handles_labels()[1]), default=0)
        legend = {"ncols": 2 if longest <= 24 else 1, "handlelength": 1.6, "columnspacing": 1.2}
        return drawn.svg(title, "false positive rate", "true positive rate", legend=legend)


def output_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw a model's pooled ROC-AUC of each tag, and the chance level."""
    worst = np.argsort(np.nan_to_num(model.per_output["roc_auc"]), kind="stable")
    shown = np.sort(worst[: score_tables.MANY_CLASSES])
    values = model.per_output["roc_auc"][shown]
    with drawing(WIDE, 1.0 + 0.28 * len(values)) as drawn:
        drawn.ax.barh(range(len(values)), np.nan_to_num(values), height=0.6, color=COLOURS[0])
        drawn.ax.axvline(0.5, color=INK, linestyle=_DASHED, linewidth=1.0)
        _name_rows(drawn, [results.classes[i] for i in shown])
        drawn.ax.set_xlim(0, 1)
        each = "each tag" if len(shown) == len(results.classes) else f"the {len(shown)} worst tags"
        title = f"ROC-AUC of {each}, {model.name}"
        return [Picture(drawn.svg(title, "ROC-AUC, pooled; dashed: chance", grid="x"))]


def scatter_figures(results: Results, model: ModelResult) -> list[Picture]:
    """Draw predicted against true values, one figure per target."""
    valid = model.valid
    labels, outputs = results.y_true[valid].T, model.outputs[valid].T
    n_clips = int(valid.sum())
    pictures = []
    for name, true, predicted in zip(
        results.classes[:_MANY_TARGETS], labels, outputs, strict=False
    ):
        both = np.concatenate([true, predicted])
        low, high = (both.min(), both.max()) if n_clips else (0.0, 1.0)
        margin = 0.04 * (high - low or 1.0)
        ends = (low - margin, high + margin)
        size = 3.2 if n_clips < 2000 else 1.6
        with drawing(WIDE, WIDE) as drawn:
            drawn.line(ends, ends, linestyle=_DASHED)
            style = {"markersize": size, "alpha": 0.5, "rasterized": n_clips > _MANY_POINTS}
            drawn.points(true, predicted, COLOURS[0], **style)
            drawn.ax.set(xlim=ends, ylim=ends, aspect="equal")
            title = f"Predicted against true {name}, {model.name}"
            svg = drawn.svg(title, f"true {short(name)}", f"predicted {short(name)}")
        pictures.append(Picture(svg))
    return pictures


def reliability_figure(results: Results, model: ModelResult) -> list[Picture]:
    """Draw the share of correct predictions against the stated probability, in bins."""
    task = results.task
    bins = reliability(results.y_true, model.outputs)
    filled = bins.count > 0
    left, width, share = EDGES[:-1][filled], np.diff(EDGES)[filled], bins.accuracy[filled]
    size = 12 + 160 * bins.count[filled] / max(int(bins.count.sum()), 1)
    with drawing(WIDE, 0.9 * WIDE) as drawn:
        drawn.line([0, 1], [0, 1], linewidth=0.8, linestyle=(0, (4, 3)))
        drawn.ax.bar(left, share, width=width, align="edge", color=FILL, alpha=0.35)
        drawn.ax.scatter(bins.confidence[filled], share, s=size, color=FILL, zorder=3)
        drawn.ax.set(xlim=(0, 1), ylim=(0, 1.02))
        labels = f"probability of {task.probability_of}", f"share that {task.right_words}"
        svg = drawn.svg(f"Reliability of {model.name}", *labels)
    caption = (
        f"{model.name}: by stated probability, the share of {task.probable_words} that "
        f"{task.right_words}. On the diagonal, the two are equal."
    )
    return [Picture(svg, caption=caption)]


OF_ALL = {"folds": fold_figure, "roc": roc_figure, "confusion": confusion_figures}
OF_ONE = {
    "class_roc": class_roc_figure,
    "per_output": output_figure,
    "scatter": scatter_figures,
    "quadrants": quadrant_figure,
    "reliability": reliability_figure,
}


# --- training


def loss_figures(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Picture]:
    """Draw training and validation loss by epoch, one figure per net; keys are ``net@fold``."""
    nets: dict[str, list[Mapping[str, Sequence[float]]]] = {}
    for key, curve in curves.items():
        net, _, fold = key.rpartition("@")
        nets.setdefault(net or fold, []).append(curve)
    return [Picture(_loss_figure(net, listed), head=net) for net, listed in nets.items()]


def _loss_figure(net: str, curves: Sequence[Mapping[str, Sequence[float]]]) -> str:
    training: Any = {"linestyle": (0, (3, 1.5)), "linewidth": 1.0}
    with drawing(3.7, 2.8) as drawn:
        # Lines without points are the samples of the legend.
        drawn.line([], [], label="training", **training)
        sample = {"marker": "o", "markersize": 4, "label": "validation, lowest"}
        drawn.line([], [], linewidth=1.5, **sample)
        for i, curve in enumerate(curves):
            epochs = np.asarray(curve.get("epoch", ()), dtype=np.float64)
            colour = COLOURS[i % len(COLOURS)]
            for name, style in (("train_loss", training), ("val_loss", {"linewidth": 1.5})):
                # None becomes NaN.
                losses = np.array(curve.get(name, ()), dtype=np.float64)
                if len(losses) != len(epochs) or not np.isfinite(losses).any():
                    continue
                # A single epoch has no line, so it is drawn as a marker.
                marker = "." if len(losses) == 1 else ""
                drawn.line(epochs, losses, color=colour, marker=marker, **style)
                if name == "val_loss":
                    low = np.nanargmin(losses)
                    drawn.points(epochs[low], losses[low], colour, markersize=4)
        drawn.ax.set_ylim(bottom=0)
        drawn.ax.locator_params(axis="x", integer=True)
        what = "one net" if len(curves) == 1 else f"{len(curves)} nets, one colour each"
        return drawn.svg(f"Loss by epoch, {net} ({what})", "epoch", "loss", legend={"ncols": 2})


def layer_figures(results: Results) -> list[Picture]:
    """Draw the learned weights of an encoder's layers: means over folds (bars), folds (dots)."""
    pictures = []
    for name, choice in results.layers.items():
        weights = choice.weights[complete(choice.weights)]
        with drawing(WIDE, 2.4) as drawn:
            drawn.ax.bar(choice.layers, weights.mean(axis=0) if len(weights) else 0.0, color=FILL)
            for of_fold in weights:
                drawn.points(choice.layers, of_fold, COLOURS[1], markersize=3, alpha=0.7)
            drawn.line(
                choice.layers, np.full(len(choice.layers), 1 / len(choice.layers)), ls=_DASHED
            )
            drawn.ax.locator_params(axis="x", integer=True)
            drawn.ax.set_ylim(bottom=0)
            svg = drawn.svg(f"Weights of the layers of {name}", "layer", "weight")
        best = ", ".join("none" if layer is None else str(layer) for layer in choice.best)
        caption = "Bar: mean over folds; dot: a fold; dashed: equal weights."
        pictures.append(Picture(svg, name, f"{caption} Best single layer of each fold: {best}."))
    return pictures


def learning_curve_figure(results: Results) -> str:
    """Draw the mean and deviation of the primary metric against the number of clips."""
    task, curves = results.task, results.learning_curve
    factor = 100.0 if task.in_percent else 1.0
    top = recommended_model(results)
    one = top.name if top is not None and top.name in curves else next(iter(curves))
    single = {model.name for model in results.models if len(model.features) == 1}
    # More than three bands would hide each other.
    banded = set(curves) if len(curves) <= 3 else {one}
    with drawing(WIDE, WIDE + 0.18 * len(curves)) as drawn:
        for i, (name, points) in enumerate(curves.items()):
            colour, dash = COLOURS[i % len(COLOURS)], "--" if name in single else "-"
            _, clips, scores, deviation = np.array(points).T
            if name in banded:
                low, high = factor * (scores - deviation), factor * (scores + deviation)
                drawn.ax.fill_between(clips, low, high, color=colour, alpha=0.16, linewidth=0)
            style: Any = {"color": colour, "linestyle": dash, "linewidth": 1.2}
            drawn.ax.plot(clips, factor * scores, marker="o", markersize=3, label=name, **style)
        if task.in_percent:
            drawn.ax.set_ylim(bottom=0)
        x = "training clips of a head (mean over folds)"
        y = task.primary_title + " (%)" * task.in_percent
        return drawn.svg("Learning curves", x, y, legend={"ncols": 2})
