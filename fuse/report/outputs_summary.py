"""What the table and the page say of an evaluation of tags or of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.report.published import published_r2
from mvemo.fuse.report.summary import (
    best,
    compare_fusion,
    count,
    describe,
    fraction,
    one_split,
    over_folds,
    percent,
    spread,
)
from mvemo.fuse.report.text import clean, columns, footnotes, wrap
from mvemo.fuse.results import ModelResult, Results

# Score names as column heads, in the order of the per-output tables.
HEADS = {
    "roc_auc": "AUC",
    "average_precision": "AP",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "r2": "R2",
    "ccc": "CCC",
    "rmse": "RMSE",
}


@dataclass(frozen=True)
class Cell:
    """A pooled score as text, with its interval where there is one.

    Parameters
    ----------
    title
        Of its column.
    value
        Three digits, or ``n/a``.
    interval
        ``low to high``, or empty.
    """

    title: str
    value: str
    interval: str


@dataclass(frozen=True)
class FarClip:
    """A clip that a model is far off on.

    Parameters
    ----------
    clip_id, group
        As in the manifest.
    true, predicted
        Tags that it has and was given, or its values and the predicted ones, as text.
    off
        How far.
    """

    clip_id: str
    group: str
    true: str
    predicted: str
    off: float


def pooled_cells(results: Results, model: ModelResult) -> list[Cell]:
    """The pooled scores of a model's line in the main table."""
    if results.task.name == "multilabel":
        rows = [
            (f"{kind} {HEADS[name]}", model.scores[f"{name}_{kind}"], f"{name}_{kind}")
            for kind in ("macro", "micro")
            for name in ("f1", "roc_auc", "average_precision")
        ]
    else:
        rows = [
            (f"{HEADS[name]} {output}", float(model.per_output[name][i]), f"{name}:{i}")
            for name in ("r2", "ccc", "rmse")
            for i, output in enumerate(results.classes)
        ]
    if "quadrant_accuracy" in model.scores:
        rows.append(("quadrants", model.scores["quadrant_accuracy"], "quadrant_accuracy"))
    return [Cell(title, fraction(v), interval_text(model, key)) for title, v, key in rows]


def interval_text(model: ModelResult, key: str) -> str:
    """``low to high``; empty where there is no such interval."""
    ends = model.intervals.get(key)
    if ends is None or not np.isfinite(ends).all():
        return ""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def summarise_outputs(results: Results) -> str:
    """A paragraph in plain words for a reader who looks at nothing else."""
    names = ", ".join(results.classes)
    what = "probabilities of the tags" if results.task.name == "multilabel" else "values of"
    if one_split(results):
        tested = int((results.folds >= 0).sum())
        text = [
            f"{count(tested, 'clip')} of {len(results.clip_ids)} were held out; {what} {names} "
            "were predicted by models that were trained on the others; no group of clips is on "
            "both sides."
        ]
    else:
        text = [
            f"For each of {count(len(results.clip_ids), 'clip')}, {what} {names} were predicted "
            f"by models that were trained on the other {results.k - 1} of {results.k} folds; no "
            "group of clips is in two folds."
        ]
    if results.leaky:
        text.append("The nets under them, however, saw clips that they are scored on.")
    top = best(results)
    if top is None:
        text.append("No model made a prediction.")
        return " ".join(text)
    held = spread(results.primary_per_fold(top))
    title = results.task.primary_title
    over = "" if results.task.name == "multilabel" else ", mean over dimensions,"
    of_fold = ""
    if results.k > 1:
        of_fold = f" in a fold on average ({fraction(held.min)} to {fraction(held.max)})"
    base = fraction(spread(results.primary_per_fold(results.baseline)).mean)
    text.append(
        f"The {title}{over} of the best model, {top.name}, is {fraction(held.mean)}{of_fold}; that "
        f"of a prediction from the training labels alone ({results.baseline.name}) is {base}."
    )
    if "quadrant_accuracy" in top.scores:
        share, of_baseline = (m.scores["quadrant_accuracy"] for m in (top, results.baseline))
        text.append(
            f"It puts {percent(share)} % of the clips into the right quadrant of valence and "
            f"arousal, the baseline {percent(of_baseline)} %."
        )
    if results.permuted:
        text.append("As labels were shuffled, no model should do better than that baseline.")
    else:
        text.append(compare_fusion(results))
    if partly_predicted(results):
        text.append(
            "Clips that a model could not predict, because features are missing, are left out of "
            "its scores."
        )
    return " ".join(part for part in text if part)


def furthest_clips(results: Results, model: ModelResult, limit: int = 20) -> list[FarClip]:
    """The clips that a model is furthest off on (`distances`), the worst first."""
    there = np.flatnonzero(model.valid)
    true, said = results.y_true[there].astype(np.float64), model.outputs[there]
    off = distances(results, model)[there]
    found = []
    for i in np.argsort(-off, kind="stable")[:limit].tolist():
        row = int(there[i])
        if results.task.needs_inner:
            held = [n for n, y in zip(results.classes, results.y_true[row], strict=True) if y]
            words = [n for n, y in zip(results.classes, model.y_pred[row], strict=True) if y]
            texts = (", ".join(held) or "none", ", ".join(words) or "none")
        else:
            texts = tuple(  # type: ignore[assignment]
                ", ".join(f"{n} {v:.3g}" for n, v in zip(results.classes, values, strict=True))
                for values in (true[i], said[i])
            )
        found.append(FarClip(results.clip_ids[row], results.groups[row], *texts, off=float(off[i])))
    return found


def distances(results: Results, model: ModelResult) -> NDArray[np.float64]:
    """float64 (clips,): how far predictions are off; NaN where there is none.

    Tags: the log loss, mean over them. Dimensions: the root mean squared error, each in
    units of its labels' standard deviation.
    """
    true, said = results.y_true.astype(np.float64), model.outputs
    if results.task.name == "multilabel":
        right = np.where(true == 1, said, 1.0 - said)
        off = -np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean(axis=1)
    else:
        scale = true.std(axis=0)
        off = np.sqrt(np.square((said - true) / np.where(scale > 0, scale, 1.0)).mean(axis=1))
    return np.asarray(off, dtype=np.float64)


def furthest_groups(
    results: Results, model: ModelResult, limit: int = 15
) -> list[tuple[str, int, float]]:
    """Groups of two clips or more by their mean distance: name, clips, distance."""
    off = distances(results, model)
    there = np.isfinite(off)
    names, code = np.unique(np.array(results.groups, dtype=np.str_), return_inverse=True)
    clips = np.bincount(code)
    held = np.bincount(code[there], minlength=len(names))
    mean = np.bincount(code[there], off[there], len(names)) / np.maximum(held, 1)
    order = [i for i in np.argsort(-mean, kind="stable").tolist() if clips[i] > 1 and held[i]]
    return [(str(names[i]), int(clips[i]), float(mean[i])) for i in order[:limit]]


def scored_how(results: Results) -> str:
    """The main table's columns in words."""
    title = results.task.primary_title
    text = f"min, mean, max: {title} over {over_folds(results)}"
    if results.task.name == "multilabel":
        text += (
            ", mean over tags. F1, AUC and AP (average precision): pooled over folds; decisions "
            "by thresholds fitted inside the training folds."
        )
    else:
        text += ", mean over dimensions. R2, CCC and RMSE of each dimension: pooled over folds."
    centre = quadrant_centre(results)
    if centre is not None:
        v, a = centre
        text += f" Quadrants about valence {v:g}, arousal {a:g}: share of clips in the right one."
    return text


def quadrant_centre(results: Results) -> tuple[float, float] | None:
    """Valence and arousal of the neutral point; None where there are no quadrants."""
    quadrants = results.task.facts().get("quadrants")
    return None if quadrants is None else quadrants["centre"]


def published_beside(results: Results) -> str:
    """Printed figures to read beside these; empty where there are none, or labels shuffled."""
    if results.task.name != "regression" or results.permuted:
        return ""
    return published_r2(results.classes)


def format_output_table(results: Results, warnings: Sequence[tuple[str, str]]) -> str:
    """The scores of all models as text.

    Parameters
    ----------
    results
        Of `evaluate_outputs`.
    warnings
        Title and text of each banner.
    """
    lines = [wrap(f"{title}: {text}", mark="! ") for title, text in warnings]
    lines.append(wrap(f"{clean(results.name)}: {describe(results)}"))
    lines.append("")
    n_clips = len(results.clip_ids)
    partial = partly_predicted(results)

    def row(model: ModelResult) -> list[str]:
        held = spread(results.primary_per_fold(model))
        cells = [clean(model.name), *(fraction(v) for v in (held.min, held.mean, held.max))]
        cells += [cell.value for cell in _shown(results, model)]
        return [*cells, f"{int(model.valid.sum())}/{n_clips}"] if partial else cells

    header = ["model", "min", "mean", "max"]
    header += [clean(cell.title) for cell in _shown(results, results.baseline)]
    if partial:
        header.append("clips")
    lines += columns([header, *(row(m) for m in results.models)], [row(results.baseline)])
    lines.append("")
    lines.append(wrap(scored_how(results)))
    beside = published_beside(results)
    if beside:
        lines.append(wrap(beside))
    top = best(results)
    if top is not None and interval_text(top, "primary"):
        pooled = "" if results.task.name == "multilabel" else "pooled "
        lines.append(
            wrap(
                f"{clean(top.name)}, {pooled}{results.task.primary_title}: 95 % interval "
                f"{interval_text(top, 'primary')} (group bootstrap)."
            )
        )
    statement = "" if results.permuted else compare_fusion(results)
    if statement:
        lines.append(wrap(statement))
    return "\n".join([*lines, *footnotes(results)])


def partly_predicted(results: Results) -> bool:
    """Whether a model did not predict every clip that is tested."""
    tested = results.folds >= 0
    return any(not m.valid[tested].all() for m in results.models)


def _shown(results: Results, model: ModelResult) -> list[Cell]:
    """Of the pooled scores those that fit a terminal."""
    cells = pooled_cells(results, model)
    if results.task.name == "multilabel":
        return [c for c in cells if not c.title.startswith("micro A")]
    return [c for c in cells if not c.title.startswith(("CCC", "RMSE"))]
