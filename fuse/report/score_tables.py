"""Tables of scores and of the hardest clips, for the page and for a paper.

The templates of the page call these functions; they leave out a table without rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.crossval.comparisons import by_scores
from mvemo.fuse.models import modality_order
from mvemo.fuse.numeric import mean_of_finite, spread
from mvemo.fuse.report import findings, published, text
from mvemo.fuse.report.methods import STATED
from mvemo.fuse.report.summary import describe, verdict
from mvemo.fuse.report.tables import ID, LABEL, LINE, TEXT, Cell, Column, Table, Value, table
from mvemo.fuse.results import ModelResult, Results, best_model, without_twin

# With more folds than this, folds become rows instead of columns.
_MANY_FOLDS = 12
CALIBRATION = {"ece": "ECE", "brier": "Brier", "log_loss": "log loss"}
# Maximum number of listed failures.
MANY_FAILURES = 500
# Maximum numbers of hardest clips and hardest groups to list.
N_CLIPS, N_GROUPS = 20, 15
# Maximum number of clips that the page lists for a cell of the confusion matrix.
CELL_CLIPS = 50
# With more classes than MANY_CLASSES, confusion matrices show SHOWN_CLASSES of them.
MANY_CLASSES, SHOWN_CLASSES = 60, 30


# --- scores


def scores_table(results: Results, top: ModelResult | None) -> Table:
    """Return the main table: per model, the primary metric over folds and the task's scores."""
    task, partial, paper = (
        results.task,
        results.partly_predicted,
        published.published_beside(results),
    )
    shown = task.columns(results.classes)

    def row(model: ModelResult, *, baseline: bool = False) -> list[str | Cell]:
        low, mean, high = (
            text.score_text(task, v) for v in spread(results.primary_per_fold(model))
        )
        middle = Cell(mean, below=text.primary_interval_text(task, model), strong=not baseline)
        cells: list[str | Cell] = [model.name, ", ".join(model.modalities)]
        cells += ["" if baseline else str(model.valid.sum())] * partial
        cells += [low, middle, high]
        for column in shown:
            ends = text.interval_text(model.intervals.get(column.interval))
            cell = score_cell(model.value_of(column), hint=f"95 % interval: {ends}" if ends else "")
            # The baseline does not rank clips, and is never correct for other classes.
            cells.append("" if baseline and task.exclusive else cell)
        if paper:
            cells += paper[model.name].texts() if model.name in paper else [""] * 3
        return cells

    start = ["model", "needs", *["clips"] * partial]
    columns = ["min", "mean", "max", *(column.title for column in shown)]
    others = (
        [Column(title, published=True) for title in ("accuracy, %", "F1", "AUC")] if paper else []
    )
    rows = [*map(row, results.models), row(results.baseline, baseline=True)]
    if results.ceilings:
        first, *limits = (results.ceiling_of(column) for column in (None, *shown))
        mean = text.score_text(task, first) if np.isfinite(first) else ""
        scores = [score_cell(value) if np.isfinite(value) else "" for value in limits]
        blank = [""] * (len(start) - 1)
        rows.append([task.ceiling_name, *blank, "", mean, "", *scores, *[""] * 3 * bool(paper)])
    title = f"{task.primary_title}, %" if task.in_percent else f"{task.primary_title} of a fold"
    return replace(
        table([*start, *columns, *others], rows, left=2, n_foot=len(rows) - len(results.models)),
        spans=(
            (Column("", TEXT), len(start)),
            (Column(title), 3),
            (Column(""), len(shown)),
            *[(Column(LABEL, published=True), 3)] * bool(paper),
        ),
        best=None if top is None else [m.name for m in results.models].index(top.name),
    )


def score_cell(value: float, **parts: Any) -> Cell:
    """Return the cell of a score; `parts` are other fields of `Cell`."""
    return Cell(text.fraction(value), value=value if np.isfinite(value) else None, **parts)


def results_tables(results: Results) -> list[Table]:
    """Return the table of scores, with a corrected test for each fusion."""
    results = without_twin(results)
    task, fused = results.task, results.fused
    top, scores = best_model(results), scores_table(results, None)
    best = "" if top is None else top.name
    # Fusions are tested against their best feature, other models against the best model.
    rival = "" if fused else best
    p = {
        c.reference if c.model == rival else c.model: text.p_text(c.p_holm)
        for c in results.comparisons
        if not rival or rival in (c.model, c.reference)
    }
    rows = []
    for row in (*scores.rows, *scores.foot):
        name = row[0].text
        cells = [replace(cell, strong=cell.strong and name == best) for cell in row]
        rows.append([*cells, *[Cell(p.get(name, ""))] * bool(p)])
    columns = (*scores.columns, *[Column("p")] * bool(p))
    caption = (
        "".join(f"{banner.title}: {banner.text} " for banner in findings.banners(results))
        + f"{results.name}: {describe(results)}. Min, mean and max: {task.primary_title}"
        + f"{', %' * task.in_percent} over folds"
        + ("; in brackets: 95 % interval over groups." if results.has_intervals else ".")
    )
    if p:
        rival = "its best single feature" if fused else "the best model"
        caption += f" p: corrected test against {rival}, with Holm's correction."
    return [table(columns, rows, n_foot=len(scores.foot), title=caption)]


def intervals_table(results: Results) -> Table:
    """Return the 95 % intervals of the main table's scores and of calibration."""
    task = results.task
    key = task.primary_interval[0]
    titles = {key: task.primary_title + ", %" * task.in_percent}
    titles |= {c.interval: c.title for c in task.columns(results.classes)} | CALIBRATION
    present = {name for model in results.models for name in model.intervals}
    names = [name for name in titles if name in present]

    def ends(model: ModelResult, name: str) -> str:
        in_percent = task.in_percent and name == key
        return text.interval_text(model.intervals.get(name), in_percent=in_percent)

    models = results.models if results.has_intervals else ()
    rows = [[model.name, *(ends(model, name) for name in names)] for model in models]
    return table(["model", *(titles[name] for name in names)], rows)


def published_table(results: Results) -> Table:
    rows = [[name, p.source, *p.texts()] for name, p in published.all_published_beside(results)]
    return table(["model", "source", "accuracy, %", "F1", "AUC"], rows, left=2)


def published_confusion_table(results: Results) -> Table:
    named = zip(results.classes, published.published_confusion(results), strict=False)
    return table(["true", *results.classes], [[name, *map(str, row)] for name, row in named])


def folds_table(results: Results) -> Table:
    """Return the primary metric of every model in every fold, one row per model and repeat."""
    task, models = results.task, (*results.models, results.baseline)
    title = f"{task.primary_title}{', %' * task.in_percent} in fold"
    scores = [[text.score_text(task, v) for v in results.primary_per_fold(m)] for m in models]
    if results.k > _MANY_FOLDS and not results.repeats:
        by_fold = [[str(fold), *row] for fold, row in enumerate(zip(*scores, strict=True))]
        return table([title, *(m.name for m in models)], by_fold)
    repeated = bool(results.repeats)
    rows = []
    for m in models:
        for repeat, values in enumerate(results.primary_per_fold(m).reshape(-1, results.k)):
            cells = [text.score_text(task, value) for value in (*values, mean_of_finite(values))]
            rows.append([m.name, *[str(repeat)] * repeated, *cells])
    head = [title, *["repeat"] * repeated, *map(str, range(results.k)), "mean"]
    return table(head, rows, n_foot=len(rows) // len(models))


def outputs_table(results: Results, model: ModelResult) -> Table:
    """Return the pooled scores of one model for each class, tag or target."""
    task = results.task
    label_head, label_cells = task.label_columns(results.y_true[model.valid], len(results.classes))
    titles = {column.score: column.title for column in task.output_columns}
    head = [task.output_nouns[0], *label_head, *titles.values()]
    per_fold = model.per_output_fold.get(task.primary_output) if results.k > 1 else None
    if per_fold is not None:
        head += [f"{titles[task.primary_output]} of a fold, min", "mean", "max"]
    rows = []
    for i, name in enumerate(results.classes):
        cells: list[Value | Cell] = [name, *label_cells[i]]
        for score in titles:
            ends = text.interval_text(model.intervals.get(f"{score}:{i}"))
            below = ends or "no interval" * results.has_intervals
            cells.append(score_cell(float(model.per_output[score][i]), below=below))
        if per_fold is not None:
            cells += map(text.fraction, spread(per_fold[:, i]))
        rows.append(cells)
    return table(head, rows)


def shown_classes(results: Results) -> list[int]:
    """Return the classes that confusion matrices show: all or, of many, the most confused."""
    n = len(results.classes)
    if n <= MANY_CLASSES:
        return [*range(n)]
    counts = sum(m.confusion for m in results.models if m.confusion is not None)
    wrong = np.sum(counts, axis=0) + np.sum(counts, axis=1) - 2 * np.diag(counts)
    return sorted(np.argsort(-wrong, kind="stable")[:SHOWN_CLASSES].tolist())


# --- uncertainty


def comparisons_table(results: Results) -> Table:
    """Return all paired differences with interval, test and verdict."""
    task, partial = results.task, results.partly_predicted
    names = ("fusion", "its best single feature") if results.fused else ("model", "against")
    head: list[Column | str] = [*names, *["clips"] * partial, Column("score", TEXT), "difference"]
    rows = []
    for of, c in by_scores(task, results.comparisons):
        cells = [c.model, c.reference, *[str(c.n_clips)] * partial]
        cells += [of.primary_title + ", points" * of.in_percent]
        cells += [text.score_text(of, c.mean, "+"), text.difference_text(of, c.interval)]
        cells += [text.fraction(c.t, 2), text.p_text(c.p), text.p_text(c.p_holm), verdict(c)]
        rows.append(cells)
    return table([*head, "95 %", "t", "p", "p, Holm", Column("verdict", LINE)], rows, left=2)


def without_modality_table(results: Results) -> Table:
    """Return the primary metric of fusions without one modality, and with only one."""
    task = results.task
    models = [model for model in results.models if model.without_modality]
    kinds = modality_order(kind for model in models for kind in model.modalities)
    several = len(kinds) > 2
    head = [f"model, {task.primary_title}{' in %' * task.in_percent}", "all" if several else "both"]
    head += [f"no {kind}" for kind in kinds]
    head += [f"only {kind}" for kind in kinds if several]
    rows = []
    for model in models:
        missing = ["none", *kinds]
        for kind in kinds if several else ():
            others = [other for other in model.modalities if other != kind]
            missing.append("+".join(others) if kind in model.modalities else "")
        known = model.without_modality
        scores = [text.score_text(task, known[name]) if name in known else "" for name in missing]
        rows.append([model.name, *scores, str(model.n_fallback)])
    return table([*head, "clips predicted this way"], rows)


def calibration_table(results: Results) -> Table:
    """Return the calibration of probabilities, and at fitted temperatures if there are any."""
    models = [model for model in results.models if model.calibration]
    scaled = any("temperature" in model.calibration for model in models)
    head = ["model", *CALIBRATION.values(), "ECE by chance"]
    head += ["temperature", "ECE scaled", "Brier scaled"] * scaled
    rows = []
    for model in models:
        values = model.calibration
        shown = (*CALIBRATION, "ece_by_chance")
        cells = [model.name, *(text.fraction(values[name]) for name in shown)]
        if "temperature" in values:
            cells.append(text.fraction(values["temperature"], 2))
            cells += [text.fraction(values["ece_scaled"]), text.fraction(values["brier_scaled"])]
        elif scaled:
            cells += [""] * 3
        rows.append(cells)
    return table(head, rows)


def repeats_table(results: Results) -> Table:
    """Return the mean primary metric of every repeat; repeats have different folds."""
    rows = []
    for i, model in enumerate(results.models):
        means = [one.primary_mean(one.models[i]) for one in results.repeats]
        rows.append([model.name, *(text.score_text(results.task, mean) for mean in means)])
    return table(["model", *map(str, range(len(results.repeats)))], rows)


def checklist_table(methods: Mapping[str, Any]) -> Table:
    rows = [
        [one["item"], Cell(STATED[one["stated"]], strong=not one["stated"]), one["text"]]
        for one in methods["checklist"]
    ]
    return table(["item", "stated", "value, or what to add"], rows, left=3)


# --- clips


def missing_table(results: Results) -> Table:
    n = str(len(results.clip_ids))
    rows = [[name, str(missing), n] for name, missing in results.missing.items()]
    return table(["feature", "clips without it", "of"], rows)


def failures_table(results: Results) -> Table:
    head = [Column("clip", ID), Column("stage", TEXT), Column("reason", ID)]
    return table(head, results.failures[:MANY_FAILURES])


def hard_clips(results: Results, best: ModelResult) -> tuple[Table, Table]:
    """List the worst clips and the worst groups."""
    if results.task.exclusive:
        return _most_often_wrong(results)
    return _furthest_off(results, best)


def _most_often_wrong(results: Results) -> tuple[Table, Table]:
    """Rank clips by the share of models that are wrong, then by the true class's probability."""
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
        classes = results.classes[results.y_true[i]], results.classes[taken]
        counts = str(n_wrong[i]), str(n_valid[i])
        listed.append([*_clip(results, i), *classes, *counts, text.fraction(float(mean[i]), 2)])
    titles = "mostly predicted as", "models wrong", "of", "mean probability of the truth"
    clips = table([Column("clip", ID), Column("group", ID), "true", *titles], listed, left=4)
    return clips, _groups(results, n_wrong, n_valid, "wrong, %", text.percent)


def _furthest_off(results: Results, best: ModelResult) -> tuple[Table, Table]:
    """Rank clips by the distance of the best model's predictions from the labels."""
    task = results.task
    errors = task.clip_errors(results.y_true, best.outputs)
    valid = np.isfinite(errors)
    rows = np.flatnonzero(valid)
    worst = rows[np.argsort(-errors[rows], kind="stable")[:N_CLIPS]]
    texts = (task.label_texts(results.classes, y[worst]) for y in (results.y_true, best.y_pred))
    listed = [
        [*_clip(results, i), true, predicted, text.fraction(float(errors[i]), 2)]
        for i, true, predicted in zip(worst.tolist(), *texts, strict=True)
    ]
    titles = "true", "predicted", task.error_title
    clips = table([Column("clip", ID), Column("group", ID), *titles], listed, left=4)
    amount = np.where(valid, errors, 0.0)
    return clips, _groups(results, amount, valid, task.error_title, lambda v: text.fraction(v, 2))


def confused_clips(results: Results, model: ModelResult) -> list[list[dict[str, Any]]]:
    """Return the clips in each cell of the shown confusion matrix (true class, predicted class).

    A cell has ``count`` and up to `CELL_CLIPS` ``clips`` (id and link), most confident first.
    """
    rows = np.flatnonzero(model.valid)
    rows = rows[np.argsort(-model.outputs[rows].max(axis=1), kind="stable")]
    cells: list[list[dict[str, Any]]] = []
    classes = shown_classes(results)
    for true in classes:
        of_class = rows[results.y_true[rows] == true]
        cells.append([])
        for predicted in classes:
            ids = [results.clip_ids[i] for i in of_class[model.y_pred[of_class] == predicted]]
            clips = [[name, results.media.get(name, "")] for name in ids[:CELL_CLIPS]]
            cells[-1].append({"count": len(ids), "clips": clips})
    return cells


def _clip(results: Results, row: int) -> list[str | Cell]:
    """Return the cells of a clip's id (linked to its file if known) and of its group."""
    clip_id = results.clip_ids[row]
    return [Cell(clip_id, link=results.media.get(clip_id, "")), results.groups[row]]


def _groups(
    results: Results,
    amount: NDArray[Any],
    weight: NDArray[Any],
    title: str,
    shown: Callable[[float], str],
) -> Table:
    """List groups of at least two clips by their weighted mean amount, largest first."""
    names, code = np.unique(results.groups, return_inverse=True)
    clips, total, weights = (np.bincount(code, values) for values in (None, amount, weight))
    mean = total / np.maximum(weights, 1)
    order = [i for i in np.lexsort((-clips, -mean)) if clips[i] > 1 and total[i] > 0]
    rows = [[str(names[i]), str(clips[i]), shown(float(mean[i]))] for i in order[:N_GROUPS]]
    return table([Column("group", ID), "clips", title], rows)
