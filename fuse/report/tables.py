"""Tables of a report's page, as cells of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.models import modality_order
from mvemo.fuse.report.published import (
    LABEL,
    all_published_beside,
    published_beside,
    published_confusion,
)
from mvemo.fuse.report.summary import spread, verdict
from mvemo.fuse.report.text import (
    difference_text,
    fraction,
    interval_text,
    p_text,
    score_text,
)
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Column

# CSS classes of the page.
TEXT, NUMBER, ID, OTHER, LINE = "", "n", "id", "n other", "line"
# With more folds than this, folds become rows instead of columns.
_MANY_FOLDS = 12
CALIBRATION = (("ece", "ECE"), ("brier", "Brier"), ("log_loss", "log loss"))


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    hint: str = ""  # text shown when hovering
    below: str = ""  # small line under the text
    strong: bool = False  # True for bold text
    link: str = ""


@dataclass(frozen=True)
class Head:
    """Title of a column and style of its cells."""

    title: str
    style: str = NUMBER


@dataclass(frozen=True)
class Table:
    """A table of a page; the first cell of a row is its name."""

    head: tuple[Head, ...]  # one per column
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()  # rows that stay at the bottom when sorting
    spans: tuple[tuple[Head, int], ...] = field(default=())  # titles above, with column counts
    best: int | None = None  # index of the highlighted row


def table(head: Iterable[Head], rows: Iterable[Sequence[str | Cell]]) -> Table:
    """Build a table without foot, spans or highlighted row."""
    return Table(tuple(head), tuple(_cells(row) for row in rows))


def _cells(row: Sequence[str | Cell]) -> tuple[Cell, ...]:
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row)


# --- scores


def scores_table(results: Results, top: ModelResult | None) -> Table:
    """Return the main table: the primary metric over folds and the task's scores, per model."""
    task = results.task
    shown = task.columns(results.classes)
    partial = partly_predicted(results)
    key = task.primary_interval[0]
    beside = published_beside(results)

    head = [Head("model", TEXT), Head("needs", TEXT), *([Head("clips")] if partial else [])]
    n_before = len(head)
    head += [Head("min"), Head("mean"), Head("max")]
    title = f"{task.primary_title}, %" if task.in_percent else f"{task.primary_title} of a fold"
    spans = [(Head("", TEXT), n_before), (Head(title), 3)]
    head += [Head(column.title) for column in shown]
    spans.append((Head(""), len(shown)))
    if beside:
        head += [Head("accuracy, %", OTHER), Head("F1", OTHER), Head("AUC", OTHER)]
        spans.append((Head(LABEL, OTHER), 3))

    def row(model: ModelResult, *, baseline: bool = False) -> tuple[Cell, ...]:
        scores = spread(results.primary_per_fold(model))
        ends = interval_text(model.intervals.get(key), in_percent=task.in_percent)
        cells = [Cell(model.name), Cell(", ".join(model.modalities))]
        if partial:
            cells.append(Cell("" if baseline else str(int(model.valid.sum()))))
        cells += [
            Cell(score_text(task, scores.min)),
            Cell(score_text(task, scores.mean), below=ends, strong=not baseline),
            Cell(score_text(task, scores.max)),
        ]
        scored = not baseline or task.baseline_scored
        cells += [_score_cell(model, column) if scored else Cell("") for column in shown]
        if beside:
            known = beside.get(model.name)
            texts = ("", "", "") if known is None else known.texts()
            cells += [Cell(text) for text in texts]
        return tuple(cells)

    return Table(
        head=tuple(head),
        rows=tuple(row(model) for model in results.models),
        foot=(row(results.baseline, baseline=True),),
        spans=tuple(spans),
        best=None if top is None else [m.name for m in results.models].index(top.name),
    )


def _score_cell(model: ModelResult, column: Column) -> Cell:
    ends = interval_text(model.intervals.get(column.interval))
    return Cell(fraction(model.value_of(column)), hint=f"95 % interval: {ends}" if ends else "")


def intervals_table(results: Results) -> Table:
    """Return the 95 % intervals of the scores of the main table and of calibration."""
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
    return table([Head("model", TEXT), *(Head(title) for _, title in listed)], rows)


def published_table(results: Results) -> Table | None:
    """Return every published figure of the models, or None if there is none to compare with."""
    listed = all_published_beside(results)
    if not listed:
        return None
    head = [Head("model", TEXT), Head("source", TEXT)]
    head += [Head("accuracy, %"), Head("F1"), Head("AUC")]
    return table(head, [[name, p.source, *p.texts()] for name, p in listed])


def published_confusion_table(results: Results) -> Table | None:
    """Return Z22's confusion matrix, or None if the integrated model is not among the models."""
    rows = published_confusion(results)
    if not rows:
        return None
    head = [Head("true", TEXT), *(Head(name) for name in results.classes)]
    names = zip(results.classes, rows, strict=True)
    return table(head, [[name, *map(str, row)] for name, row in names])


def folds_table(results: Results) -> Table:
    """Return the primary metric of every model in every fold, one row per model and repeat.

    If there are too many folds for the page's width, each fold is a row instead.
    """
    task, models = results.task, (*results.models, results.baseline)
    title = f"{task.primary_title}{', %' if task.in_percent else ''} in fold"
    if results.k > _MANY_FOLDS and not results.repeats:
        values = [results.primary_per_fold(m) for m in models]
        by_fold = [
            [str(fold), *(score_text(task, of_model[fold]) for of_model in values)]
            for fold in range(results.k)
        ]
        return table([Head(title, TEXT), *(Head(m.name) for m in models)], by_fold)
    rows = [
        _cells(
            [
                m.name,
                *([str(repeat)] if results.repeats else []),
                *(score_text(task, value) for value in (*of_repeat, mean_of_finite(of_repeat))),
            ]
        )
        for m in models
        for repeat, of_repeat in enumerate(results.primary_per_fold(m).reshape(-1, results.k))
    ]
    head = [Head(title, TEXT), *([Head("repeat")] if results.repeats else [])]
    head += [*(Head(str(fold)) for fold in range(results.k)), Head("mean")]
    n_baseline = len(rows) // len(models)
    return Table(tuple(head), tuple(rows[:-n_baseline]), tuple(rows[-n_baseline:]))


def outputs_table(results: Results, model: ModelResult) -> Table:
    """Return the pooled scores of one model for each class, tag or target."""
    task = results.task
    shown = task.output_columns
    valid = model.valid
    label_head, label_cells = task.label_columns(results.y_true[valid], len(results.classes))
    head = [Head(task.output_nouns[0], TEXT), *(Head(title) for title in label_head)]
    for column in shown:
        head.append(Head(column.title))
    per_fold = model.per_output_fold.get(task.primary_output or "")
    if per_fold is not None and results.k > 1:
        title = next(c.title for c in shown if c.score == task.primary_output)
        head += [Head(f"{title} of a fold, min"), Head("mean"), Head("max")]
    rows = []
    for i, name in enumerate(results.classes):
        cells: list[str | Cell] = [name, *label_cells[i]]
        for column in shown:
            ends = interval_text(model.intervals.get(f"{column.score}:{i}"))
            if not ends and has_intervals(results):
                ends = "no interval"
            cells.append(Cell(fraction(float(model.per_output[column.score][i])), below=ends))
        if per_fold is not None and results.k > 1:
            scores = spread(per_fold[:, i])
            cells += [fraction(value) for value in (scores.min, scores.mean, scores.max)]
        rows.append(cells)
    return table(head, rows)


# --- uncertainty


def comparisons_table(results: Results) -> Table | None:
    """Return each paired difference with its interval, test and verdict; None without any."""
    if not results.comparisons:
        return None
    task = results.task
    fused = any(model.features for model in results.models)
    partial = partly_predicted(results)
    head = [Head("fusion" if fused else "model", TEXT)]
    head += [Head("best single feature in it" if fused else "against", TEXT)]
    head += [Head("clips")] if partial else []
    head += [Head("difference, points" if task.in_percent else "difference")]
    head += [Head("95 %"), Head("t"), Head("p"), Head("p, Holm"), Head("verdict", LINE)]
    rows = []
    for c in results.comparisons:
        cells = [c.model, c.reference, *([str(c.n_clips)] if partial else [])]
        cells += [score_text(task, c.mean, "+"), difference_text(task, c.interval)]
        cells += [fraction(c.t, 2), p_text(c.p), p_text(c.p_holm), verdict(c)]
        rows.append(cells)
    return table(head, rows)


def without_modality_table(results: Results) -> Table | None:
    """Return the primary metric of fusions with one modality missing, and with only one."""
    task = results.task
    models = [model for model in results.models if model.without_modality]
    kinds = modality_order(kind for model in models for kind in model.modalities)
    title = f"{task.primary_title} in %" if task.in_percent else task.primary_title
    head = [Head(f"model, {title}", TEXT), Head("both" if len(kinds) == 2 else "all")]
    head += [Head(f"no {kind}") for kind in kinds]
    if len(kinds) > 2:
        head += [Head(f"{kind} alone") for kind in kinds]
    head.append(Head("clips predicted so"))
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
    return table(head, rows) if rows else None


def _all_but(kind: str, modalities: tuple[str, ...]) -> str:
    """Return the modalities of a model that a clip with only `kind` lacks, joined by '+'."""
    others = [other for other in modalities if other != kind]
    return "+".join(others) if kind in modalities else ""


def calibration_table(results: Results) -> Table | None:
    """Return the calibration of probabilities, also at fitted temperatures if there are any."""
    models = [model for model in results.models if model.calibration]
    if not models:
        return None
    scaled = any("temperature" in model.calibration for model in models)
    head = [Head("model", TEXT), *(Head(title) for _, title in CALIBRATION)]
    if scaled:
        head += [Head("temperature"), Head("ECE then"), Head("Brier then")]
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
    return table(head, rows)


def repeats_table(results: Results) -> Table | None:
    """Return the mean primary metric of every repeat; each repeat has its own folds."""
    if not results.repeats:
        return None
    head = [Head("model", TEXT), *(Head(str(i)) for i in range(len(results.repeats)))]
    rows = []
    for i, model in enumerate(results.models):
        means = [one.primary_mean(one.models[i]) for one in results.repeats]
        rows.append([model.name, *(score_text(results.task, mean) for mean in means)])
    return table(head, rows)


# --- clips


def missing_table(results: Results) -> Table | None:
    """Return the number of clips that lack each feature; None if no feature is missing."""
    if not results.missing:
        return None
    n = str(len(results.clip_ids))
    rows = [[name, str(missing), n] for name, missing in results.missing.items()]
    return table([Head("feature", TEXT), Head("clips without it"), Head("of")], rows)


def failures_table(results: Results, limit: int) -> Table | None:
    """Return the first `limit` failures of stage one; None if there are none."""
    if not results.failures:
        return None
    head = [Head("clip", ID), Head("stage", TEXT), Head("reason", ID)]
    return table(head, results.failures[:limit])


def has_intervals(results: Results) -> bool:
    """Return True if any model has confidence intervals."""
    return any(model.intervals for model in results.models)


def partly_predicted(results: Results) -> bool:
    """Return True if a model did not predict every tested clip."""
    return any(not model.valid[results.tested].all() for model in results.models)
