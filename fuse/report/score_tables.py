"""Tables of scores and of the hardest clips, for the page and for a paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.averages import mean_of_finite, spread
from mvemo.fuse.models import modality_order
from mvemo.fuse.report.findings import banners
from mvemo.fuse.report.published import (
    LABEL,
    all_published_beside,
    published_beside,
    published_confusion,
)
from mvemo.fuse.report.summary import describe, verdict
from mvemo.fuse.report.text import (
    ID,
    LINE,
    OTHER,
    TEXT,
    Cell,
    Head,
    Heads,
    PaperTable,
    Table,
    difference_text,
    fraction,
    interval_text,
    p_text,
    percent,
    score_text,
    table,
)
from mvemo.fuse.results import ModelResult, Results, best_model, without_twin
from mvemo.fuse.tasks.base import Column

# With more folds than this, folds become rows instead of columns.
_MANY_FOLDS = 12
CALIBRATION = (("ece", "ECE"), ("brier", "Brier"), ("log_loss", "log loss"))
# Maximum number of listed failures.
MANY_FAILURES = 500
# Numbers of clips and of groups that are listed as the hardest.
N_CLIPS, N_GROUPS = 20, 15


# --- scores


def scores_table(results: Results, top: ModelResult | None) -> Table:
    """Return the main table: per model, the primary metric over folds and the task's scores."""
    task = results.task
    shown = task.columns(results.classes)
    partial = results.partly_predicted
    key = task.primary_interval[0]
    beside = published_beside(results)

    head: Heads = [Head("model", TEXT), Head("needs", TEXT)]
    head += ["clips"] if partial else []
    spans = [(Head("", TEXT), len(head))]
    head += ["min", "mean", "max", *(column.title for column in shown)]
    title = f"{task.primary_title}, %" if task.in_percent else f"{task.primary_title} of a fold"
    spans += [(Head(title), 3), (Head(""), len(shown))]
    if beside:
        head += [Head("accuracy, %", OTHER), Head("F1", OTHER), Head("AUC", OTHER)]
        spans.append((Head(LABEL, OTHER), 3))

    def row(model: ModelResult, *, baseline: bool = False) -> list[str | Cell]:
        low, mean, high = (score_text(task, v) for v in spread(results.primary_per_fold(model)))
        ends = interval_text(model.intervals.get(key), in_percent=task.in_percent)
        cells: list[str | Cell] = [model.name, ", ".join(model.modalities)]
        if partial:
            cells.append("" if baseline else str(int(model.valid.sum())))
        cells += [low, Cell(mean, below=ends, strong=not baseline), high]
        scored = not baseline or task.baseline_scored
        cells += [_score_cell(model, column) if scored else "" for column in shown]
        if beside:
            known = beside.get(model.name)
            cells += ["", "", ""] if known is None else known.texts()
        return cells

    rows = [*map(row, results.models), row(results.baseline, baseline=True)]
    best = None if top is None else [m.name for m in results.models].index(top.name)
    return replace(table(head, rows, n_foot=1), spans=tuple(spans), best=best)


def _listing(head: Heads, rows: Sequence[Sequence[str | Cell]]) -> Table | None:
    return table(head, rows) if rows else None


def _score_cell(model: ModelResult, column: Column) -> Cell:
    ends = interval_text(model.intervals.get(column.interval))
    return Cell(fraction(model.value_of(column)), hint=f"95 % interval: {ends}" if ends else "")


def results_tables(results: Results) -> list[PaperTable]:
    """Return the table of scores, with a corrected test for each fusion."""
    results = without_twin(results)
    top, scores = best_model(results), scores_table(results, None)
    p, fused = {}, any(model.features for model in results.models)
    for c in results.comparisons:
        # Fusions are tested against their best feature, other models against the best model.
        if fused or top is None or top.name in (c.model, c.reference):
            p[c.reference if not fused and top and c.model == top.name else c.model] = c.p_holm
    rows = []
    for row in (*scores.rows, *scores.foot):
        name = row[0].text
        strong = top is not None and name == top.name
        cells = [replace(cell, strong=cell.strong and strong) for cell in row]
        cells += [Cell(p_text(p[name]) if name in p else "")] if p else []
        rows.append(tuple(cells))
    head: Heads = [
        replace(head, title=f"{head.title} ({LABEL})") if head.style == OTHER else head
        for head in (*scores.head, *([Head("p")] if p else []))
    ]
    caption = (
        "".join(f"{banner.title}: {banner.text} " for banner in banners(results))
        + f"{results.name}: {describe(results)}. Min, mean and max: {results.task.primary_title}"
        + f"{', %' if results.task.in_percent else ''} over folds"
        + ("; in brackets: 95 % interval over groups." if results.has_intervals else ".")
    )
    if p:
        rival = "its best single feature" if fused else "the best model"
        caption += f" p: corrected test against {rival}, with Holm's correction."
    return [(caption, table(head, rows, n_foot=len(scores.foot)))]


def intervals_table(results: Results) -> Table | None:
    """Return the 95 % intervals of the main table's scores and of calibration, or None."""
    if not results.has_intervals:
        return None
    task = results.task
    key, _ = task.primary_interval
    title = f"{task.primary_title}, %" if task.in_percent else task.primary_title
    listed = [(key, title), *((c.interval, c.title) for c in task.columns(results.classes))]
    listed += CALIBRATION
    present = {name for model in results.models for name in model.intervals}
    listed = [(name, title) for name, title in listed if name in present]
    rows = []
    for model in results.models:
        cells = [
            interval_text(model.intervals.get(name), in_percent=task.in_percent and name == key)
            for name, _ in listed
        ]
        rows.append([model.name, *cells])
    return table([Head("model", TEXT), *(title for _, title in listed)], rows)


def published_table(results: Results) -> Table | None:
    head: Heads = [Head("model", TEXT), Head("source", TEXT), "accuracy, %", "F1", "AUC"]
    return _listing(head, [[n, p.source, *p.texts()] for n, p in all_published_beside(results)])


def published_confusion_table(results: Results) -> Table | None:
    rows = published_confusion(results)
    head: Heads = [Head("true", TEXT), *results.classes]
    named = zip(results.classes, rows, strict=False)
    return _listing(head, [[name, *map(str, row)] for name, row in named])


def folds_table(results: Results) -> Table:
    """Return the primary metric of every model in every fold, one row per model and repeat."""
    task, models = results.task, (*results.models, results.baseline)
    title = f"{task.primary_title}{', %' if task.in_percent else ''} in fold"
    if results.k > _MANY_FOLDS and not results.repeats:
        columns = [results.primary_per_fold(m) for m in models]
        by_fold = [
            [str(fold), *(score_text(task, column[fold]) for column in columns)]
            for fold in range(results.k)
        ]
        return table([Head(title, TEXT), *(m.name for m in models)], by_fold)
    head: Heads = [Head(title, TEXT), *(["repeat"] if results.repeats else [])]
    head += [*(str(fold) for fold in range(results.k)), "mean"]
    rows = []
    for m in models:
        for repeat, values in enumerate(results.primary_per_fold(m).reshape(-1, results.k)):
            cells = [score_text(task, value) for value in (*values, mean_of_finite(values))]
            rows.append([m.name, *([str(repeat)] if results.repeats else []), *cells])
    return table(head, rows, n_foot=len(rows) // len(models))


def outputs_table(results: Results, model: ModelResult) -> Table:
    """Return the pooled scores of one model for each class, tag or target."""
    task = results.task
    shown = task.output_columns
    valid = model.valid
    label_head, label_cells = task.label_columns(results.y_true[valid], len(results.classes))
    head: Heads = [Head(task.output_nouns[0], TEXT), *label_head]
    head += [column.title for column in shown]
    per_fold = model.per_output_fold.get(task.primary_output or "")
    if per_fold is not None and results.k > 1:
        title = next(c.title for c in shown if c.score == task.primary_output)
        head += [f"{title} of a fold, min", "mean", "max"]
    rows = []
    for i, name in enumerate(results.classes):
        cells: list[str | Cell] = [name, *label_cells[i]]
        for column in shown:
            ends = interval_text(model.intervals.get(f"{column.score}:{i}"))
            if not ends and results.has_intervals:
                ends = "no interval"
            cells.append(Cell(fraction(float(model.per_output[column.score][i])), below=ends))
        if per_fold is not None and results.k > 1:
            cells += map(fraction, spread(per_fold[:, i]))
        rows.append(cells)
    return table(head, rows)


# --- uncertainty


def comparisons_table(results: Results) -> Table | None:
    """Return all paired differences with interval, test and verdict, or None."""
    task = results.task
    fused = any(model.features for model in results.models)
    partial = results.partly_predicted
    head: Heads = [Head("fusion" if fused else "model", TEXT)]
    head += [Head("its best single feature" if fused else "against", TEXT)]
    head += ["clips"] if partial else []
    head += ["difference, points" if task.in_percent else "difference"]
    head += ["95 %", "t", "p", "p, Holm", Head("verdict", LINE)]
    rows = []
    for c in results.comparisons:
        cells = [c.model, c.reference, *([str(c.n_clips)] if partial else [])]
        cells += [score_text(task, c.mean, "+"), difference_text(task, c.interval)]
        cells += [fraction(c.t, 2), p_text(c.p), p_text(c.p_holm), verdict(c)]
        rows.append(cells)
    return _listing(head, rows)


def without_modality_table(results: Results) -> Table | None:
    """Return the primary metric of fusions without one modality, and with only one."""
    task = results.task
    models = [model for model in results.models if model.without_modality]
    kinds = modality_order(kind for model in models for kind in model.modalities)
    title = f"{task.primary_title} in %" if task.in_percent else task.primary_title
    head: Heads = [Head(f"model, {title}", TEXT), "both" if len(kinds) == 2 else "all"]
    head += [f"no {kind}" for kind in kinds]
    if len(kinds) > 2:
        head += [f"only {kind}" for kind in kinds]
    head.append("clips predicted this way")
    rows = []
    for model in models:
        missing = ["none", *kinds]
        if len(kinds) > 2:
            missing += [_all_but(kind, model.modalities) for kind in kinds]
        scores = [
            score_text(task, model.without_modality[name]) if name in model.without_modality else ""
            for name in missing
        ]
        rows.append([model.name, *scores, str(model.n_fallback)])
    return _listing(head, rows)


def _all_but(kind: str, modalities: tuple[str, ...]) -> str:
    """Return the modalities of a model that a clip with only `kind` lacks, joined by '+'."""
    others = [other for other in modalities if other != kind]
    return "+".join(others) if kind in modalities else ""


def calibration_table(results: Results) -> Table | None:
    """Return the calibration of probabilities, and at fitted temperatures if there are any."""
    models = [model for model in results.models if model.calibration]
    scaled = any("temperature" in model.calibration for model in models)
    head: Heads = [Head("model", TEXT), *(title for _, title in CALIBRATION)]
    if scaled:
        head += ["temperature", "ECE scaled", "Brier scaled"]
    rows = []
    for model in models:
        values = model.calibration
        cells = [model.name, *(fraction(values[name]) for name, _ in CALIBRATION)]
        if scaled and "temperature" in values:
            cells.append(fraction(values["temperature"], 2))
            cells += [fraction(values["ece_scaled"]), fraction(values["brier_scaled"])]
        elif scaled:
            cells += ["", "", ""]
        rows.append(cells)
    return _listing(head, rows)


def repeats_table(results: Results) -> Table | None:
    """Return the mean primary metric of every repeat; repeats have different folds."""
    if not results.repeats:
        return None
    rows = []
    for i, model in enumerate(results.models):
        means = [one.primary_mean(one.models[i]) for one in results.repeats]
        rows.append([model.name, *(score_text(results.task, mean) for mean in means)])
    return table([Head("model", TEXT), *map(str, range(len(results.repeats)))], rows)


# --- clips


def missing_table(results: Results) -> Table | None:
    n = str(len(results.clip_ids))
    rows = [[name, str(missing), n] for name, missing in results.missing.items()]
    return _listing([Head("feature", TEXT), "clips without it", "of"], rows)


def failures_table(results: Results) -> Table | None:
    head: Heads = [Head("clip", ID), Head("stage", TEXT), Head("reason", ID)]
    return _listing(head, results.failures[:MANY_FAILURES])


# Tables of the page that need only the results, by name; None for a table without rows.
OF_RESULTS: Mapping[str, Callable[[Results], Table | None]] = {
    "intervals": intervals_table,
    "published": published_table,
    "published_confusion": published_confusion_table,
    "comparisons": comparisons_table,
    "without_modality": without_modality_table,
    "calibration": calibration_table,
    "repeats": repeats_table,
    "folds": folds_table,
    "missing": missing_table,
    "failures": failures_table,
}


# --- hard clips


@dataclass(frozen=True)
class Listing:
    """A table with a heading and a note; `table` is None if there is nothing to list."""

    title: str
    note: str
    table: Table | None


def hard_clips(results: Results, best: ModelResult | None) -> tuple[Listing, Listing]:
    """List the worst clips and the worst groups; `best` is None if no model predicted."""
    if best is None:
        return Listing("Hard clips", "", None), Listing("Hard groups", "", None)
    return HARD_CLIPS[results.task.hard_clips](results, best)


def _most_often_wrong(results: Results, best: ModelResult) -> tuple[Listing, Listing]:
    """Rank clips by the share of wrong models, then by the true class's mean probability."""
    y_pred = np.stack([model.y_pred for model in results.models])
    valid = np.stack([model.valid for model in results.models])
    wrong = valid & (y_pred != results.y_true)
    rows = np.arange(len(results.y_true))
    truth = np.stack([model.outputs[rows, results.y_true] for model in results.models])
    n_valid, n_wrong = valid.sum(axis=0), wrong.sum(axis=0)
    share = n_wrong / np.maximum(n_valid, 1)
    mean = np.where(valid, np.nan_to_num(truth), 0.0).sum(axis=0) / np.maximum(n_valid, 1)
    order = [int(i) for i in np.lexsort((rows, mean, -share)) if n_wrong[i]]
    listed = []
    for i in order[:N_CLIPS]:
        votes = Counter(y_pred[wrong[:, i], i].tolist())
        # If votes are equal, the first class is taken, so that equal results give equal pages.
        taken = min(votes, key=lambda c: (-votes[c], c))
        classes = results.classes[int(results.y_true[i])], results.classes[taken]
        counts = str(int(n_wrong[i])), str(int(n_valid[i]))
        listed.append([*_clip(results, i), *classes, *counts, fraction(float(mean[i]), 2)])
    head: Heads = [Head("clip", ID), Head("group", ID), Head("true", TEXT)]
    head += [Head("mostly predicted as", TEXT), "models wrong", "of"]
    head.append("mean probability of the truth")
    clips = Listing(
        "Clips most often wrong",
        "Over all models; ties are sorted by the probability of the true class, lowest first. "
        "A clip that every model gets wrong may be mislabelled.",
        _listing(head, listed),
    )
    groups = Listing(
        "Groups most often wrong",
        "Groups of two or more clips: share of wrong predictions over all models.",
        _groups(results, n_wrong, n_valid, "wrong, %", percent),
    )
    return clips, groups


def _furthest_off(results: Results, best: ModelResult) -> tuple[Listing, Listing]:
    """Rank clips by the distance of the best model's predictions from the labels."""
    task = results.task
    errors = task.clip_errors(results.y_true, best.outputs)
    valid = np.isfinite(errors)
    rows = np.flatnonzero(valid)
    worst = rows[np.argsort(-errors[rows], kind="stable")[:N_CLIPS]]
    texts = (task.label_texts(results.classes, y[worst]) for y in (results.y_true, best.y_pred))
    listed = [
        [*_clip(results, i), true, predicted, fraction(float(errors[i]), 2)]
        for i, true, predicted in zip(worst.tolist(), *texts, strict=True)
    ]
    head: Heads = [Head("clip", ID), Head("group", ID), Head("true", TEXT), Head("predicted", TEXT)]
    head.append(task.error_title)
    clips = Listing(
        f"Clips furthest off: {best.name}",
        f"{task.error_note} Wrongly labelled and damaged clips are often among them.",
        _listing(head, listed),
    )
    amount = np.where(valid, errors, 0.0)
    groups = Listing(
        f"Groups furthest off: {best.name}",
        "Groups of two or more clips: mean error over the group's clips.",
        _groups(results, amount, valid, task.error_title, lambda value: fraction(value, 2)),
    )
    return clips, groups


HARD_CLIPS: Mapping[str, Callable[[Results, ModelResult], tuple[Listing, Listing]]] = {
    "most_often_wrong": _most_often_wrong,
    "furthest_off": _furthest_off,
}


def _clip(results: Results, row: int) -> list[str | Cell]:
    """Return the cells of a clip's id (linked to its file if known) and of its group."""
    clip_id = results.clip_ids[row]
    return [Cell(clip_id, link=results.media.get(clip_id, "")), results.groups[row]]


def _groups(
    results: Results,
    amount: NDArray[Any],
    weight: NDArray[Any],
    title: str,
    text: Callable[[float], str],
) -> Table | None:
    """List groups of at least two clips by their weighted mean amount, largest first."""
    names, code = np.unique(np.array(results.groups, dtype=np.str_), return_inverse=True)
    clips = np.bincount(code)
    total, weights = np.bincount(code, weights=amount), np.bincount(code, weights=weight)
    mean = total / np.maximum(weights, 1)
    order = [i for i in np.lexsort((-clips, -mean)) if clips[i] > 1 and total[i] > 0]
    rows = [[str(names[i]), str(int(clips[i])), text(float(mean[i]))] for i in order[:N_GROUPS]]
    return _listing([Head("group", ID), "clips", title], rows)
