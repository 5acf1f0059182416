"""What the table and the page say of an evaluation of tags or of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.headline import TITLES
from mvemo.fuse.outputs import OutputResult, OutputResults
from mvemo.fuse.summary import count, fraction, percent, spread
from mvemo.fuse.tables import clean, columns, wrap

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


def best_output(models: Sequence[OutputResult]) -> OutputResult | None:
    """The highest mean headline; of equals the one of fewest features, then the first."""
    held = [m for m in models if np.isfinite(spread(m.headline_per_fold).mean)]
    if not held:
        return None
    return min(held, key=lambda m: (-spread(m.headline_per_fold).mean, len(m.features)))


def pooled_cells(results: OutputResults, model: OutputResult) -> list[Cell]:
    """The pooled scores of a model's line in the main table."""
    if results.task == "multilabel":
        rows = [
            (f"{kind} {HEADS[name]}", held[name], f"{name}_{kind}")
            for kind, held in (("macro", model.macro), ("micro", model.micro))
            for name in ("f1", "roc_auc", "average_precision")
        ]
    else:
        rows = [
            (f"{HEADS[name]} {output}", float(model.pooled[name][i]), f"{name}_{output}")
            for name in ("r2", "ccc", "rmse")
            for i, output in enumerate(results.classes)
        ]
    if model.quadrant_accuracy is not None:
        rows.append(("quadrants", model.quadrant_accuracy, "quadrant_accuracy"))
    return [Cell(title, fraction(v), interval_text(model, key)) for title, v, key in rows]


def interval_text(model: OutputResult, key: str) -> str:
    """``low to high``; empty where there is no such interval."""
    ends = model.intervals.get(key)
    if ends is None or not np.isfinite(ends).all():
        return ""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def describe_outputs(results: OutputResults) -> str:
    """One line: data, folds, protocol."""
    one = "tag" if results.task == "multilabel" else "dimension"
    return (
        f"{results.k}-fold cross-validation of {count(len(results.models), 'model')} on "
        f"{count(len(results.clip_ids), 'clip')} in {count(len(set(results.groups)), 'group')}, "
        f"{count(len(results.classes), one)}, protocol {results.protocol}"
    )


def summarise_outputs(results: OutputResults) -> str:
    """A paragraph in plain words for a reader who looks at nothing else."""
    names = ", ".join(results.classes)
    what = "probabilities of the tags" if results.task == "multilabel" else "values of"
    text = [
        f"For each of {count(len(results.clip_ids), 'clip')}, {what} {names} were predicted by "
        f"models that were trained on the other {results.k - 1} of {results.k} folds; no group "
        "of clips is in two folds."
    ]
    if results.leaky:
        text.append("The nets under them, however, saw clips that they are scored on.")
    top = best_output(results.models)
    if top is None:
        text.append("No model made a prediction.")
        return " ".join(text)
    held = spread(top.headline_per_fold)
    title = TITLES[results.headline]
    over = "" if results.task == "multilabel" else ", mean over dimensions,"
    base = fraction(spread(results.baseline.headline_per_fold).mean)
    text.append(
        f"The {title}{over} of the best model, {top.name}, is {fraction(held.mean)} in a fold on "
        f"average ({fraction(held.min)} to {fraction(held.max)}); that of a prediction from the "
        f"training labels alone ({results.baseline.name}) is {base}."
    )
    if top.quadrant_accuracy is not None and results.baseline.quadrant_accuracy is not None:
        text.append(
            f"It puts {percent(top.quadrant_accuracy)} % of the clips into the right quadrant of "
            f"valence and arousal, the baseline {percent(results.baseline.quadrant_accuracy)} %."
        )
    if results.permuted:
        text.append("As labels were shuffled, no model should do better than that baseline.")
    if any(not m.predicted.all() for m in results.models):
        text.append(
            "Clips that lack a feature are left out of the scores of the models that need it."
        )
    return " ".join(text)


def scored_how(results: OutputResults) -> str:
    """The main table's columns in words."""
    title = TITLES[results.headline]
    text = f"min, mean, max: {title} over {results.k} folds"
    if results.task == "multilabel":
        text += (
            ", mean over tags. F1, AUC and AP (average precision): pooled over folds; decisions "
            "by thresholds fitted inside the training folds."
        )
    else:
        text += ", mean over dimensions. R2, CCC and RMSE of each dimension: pooled over folds."
    if results.quadrant_centre is not None:
        v, a = results.quadrant_centre
        text += f" Quadrants about valence {v:g}, arousal {a:g}: share of clips in the right one."
    return text


def format_output_table(results: OutputResults, warnings: Sequence[tuple[str, str]]) -> str:
    """The scores of all models as text.

    Parameters
    ----------
    results
        Of `evaluate_outputs`.
    warnings
        Title and text of each banner.
    """
    lines = [wrap(f"{title}: {text}", mark="! ") for title, text in warnings]
    lines.append(wrap(f"{clean(results.name)}: {describe_outputs(results)}"))
    lines.append("")
    n_clips = len(results.clip_ids)
    partial = any(not m.predicted.all() for m in results.models)

    def row(model: OutputResult) -> list[str]:
        held = spread(model.headline_per_fold)
        cells = [clean(model.name), *(fraction(v) for v in (held.min, held.mean, held.max))]
        cells += [cell.value for cell in _shown(results, model)]
        return [*cells, f"{int(model.predicted.sum())}/{n_clips}"] if partial else cells

    header = ["model", "min", "mean", "max"]
    header += [clean(cell.title) for cell in _shown(results, results.baseline)]
    if partial:
        header.append("clips")
    lines += columns([header, *(row(m) for m in results.models)], [row(results.baseline)])
    lines.append("")
    lines.append(wrap(scored_how(results)))
    top = best_output(results.models)
    if top is not None and interval_text(top, "headline"):
        pooled = "" if results.task == "multilabel" else "pooled "
        lines.append(
            wrap(
                f"{clean(top.name)}, {pooled}{TITLES[results.headline]}: 95 % interval "
                f"{interval_text(top, 'headline')} (group bootstrap)."
            )
        )
    absent = {name: n for name, n in results.missing.items() if n}
    if absent:
        listed = ", ".join(f"{clean(name)} {n}" for name, n in absent.items())
        lines.append(wrap(f"Clips without a feature: {listed} of {n_clips}."))
    if results.failures:
        clips = len({clip_id for clip_id, _, _ in results.failures})
        lines.append(
            wrap(
                f"{count(len(results.failures), 'failure')} of {count(clips, 'clip')} in stage "
                "one; the report lists them."
            )
        )
    return "\n".join(lines)


def _shown(results: OutputResults, model: OutputResult) -> list[Cell]:
    """Of the pooled scores those that fit a terminal."""
    cells = pooled_cells(results, model)
    if results.task == "multilabel":
        return [c for c in cells if not c.title.startswith("micro A")]
    return [c for c in cells if not c.title.startswith(("CCC", "RMSE"))]
