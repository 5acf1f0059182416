"""Extra tables of studies: confusion matrices (J22 Table 4), scores of tags (L17), losses (J22)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.extract.training.data import training_splits
from mvemo.extract.training.steps import Curve
from mvemo.fuse import Results
from mvemo.fuse.crossval.comparisons import with_uncertainty
from mvemo.fuse.report.score_tables import outputs_table
from mvemo.fuse.report.tables import PERCENT, TEXT, Column, Table, Value, table
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies import comparison, plots, study, study_file

# Rows in the table of losses, and batches that are averaged for a point of the training curve.
ROWS = 11
SMOOTH = 25


def add_confusions(draft: comparison.Draft) -> None:
    """Add a confusion matrix for each net, if the labels are classes."""
    for each in draft.compared:
        plans, results = each.row.plans, each.results
        if results is None or len(plans) != 1 or each.row.values.get("varied"):
            continue
        if results.task.name == "multiclass":
            printed = study.matches_j22(each.study, *plans)
            draft.tables.append(confusion_table(plans[0].name, results, printed=printed))


def add_experiment(draft: comparison.Draft) -> None:
    """Add confusion matrices and the losses of the last net."""
    add_confusions(draft)
    add_losses(draft)


def confusion_table(net: str, results: Results, *, printed: bool) -> Table:
    """Return the confusion matrix over all repeats, as shares of true classes (J22 Table 4)."""
    classes, repeats = results.classes, results.evaluations
    matrices = [one.models[0].confusion for one in repeats]
    counts = np.sum([matrix for matrix in matrices if matrix is not None], axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # true class -> predicted class -> share
    known: dict[str, dict[str, float]] = study_file.published()["J22"]["table_4"].get(net, {})
    names = study.j22_classes(classes) if printed and known else []
    columns = (
        Column("true", TEXT),
        Column("clips"),
        *(Column(f"as {name}", PERCENT) for name in classes),
        *(Column(f"as {name}, J22", PERCENT, published=True) for name in classes if names),
    )
    n_clips = (counts.sum(axis=1) / len(repeats)).round().astype(int).tolist()
    rows: list[list[Value]] = [
        [name, n_clips[c], *shares[c].tolist(), *(known[names[c]][other] for other in names)]
        for c, name in enumerate(classes)
    ]
    title = f"Confusion matrix of {net}: per cent of each true class (as J22 Table 4)"
    return table(columns, rows, title=title, name=f"confusion-{net}")


def add_tags(draft: comparison.Draft) -> None:
    """Add average scores of nets and baseline, scores of each tag, a note on missing ROC-AUC."""
    found = {each.row.name: each.results for each in draft.compared if each.results is not None}
    if draft.study.manifest.task != "multilabel":
        raise BadOption(f"{draft.file.path}: table.extra: 'tags' needs a manifest with tags")
    if not found:
        return
    first = next(iter(found.values()))
    models = {name: results.models[0] for name, results in found.items()}
    models[first.baseline.name] = first.baseline
    kinds = [(kind, column) for kind in ("macro", "micro") for column in first.task.output_columns]
    columns = ["net", *(f"{kind} {column.title}" for kind, column in kinds)]
    averages: list[list[Value]] = [
        [name, *(model.scores[f"{column.score}_{kind}"] for kind, column in kinds)]
        for name, model in models.items()
    ]
    draft.tables.append(table(columns, averages, title="Macro and micro averages", name="averages"))
    for net, results in found.items():
        certain = with_uncertainty(results)
        of_tags = outputs_table(certain, certain.models[0])
        title = f"Scores of each tag by {net}"
        draft.tables.append(replace(of_tags, title=title, name=f"tags-{net}"))
    tags = zip(first.classes, first.y_true.T, strict=True)
    constant = [name for name, cells in tags if len(np.unique(cells)) < 2]
    if constant:
        draft.findings.append(
            f"ROC-AUC is undefined for {', '.join(constant)}: all clips have the tag, or none "
            "has it."
        )


# --- losses


def add_losses(draft: comparison.Draft) -> None:
    """Add the losses of the last net that is trained for a number of iterations."""
    found = [
        each
        for each in draft.compared
        if each.runs and "iteration" in each.runs[0].curves[0] and not each.row.values.get("varied")
    ]
    if not found:
        return
    each, (plan,) = found[-1], found[-1].row.plans
    curve = each.runs[0].curves[0]
    # Number of steps in a full epoch; the last epoch may be incomplete.
    (training,) = each.predictor.trainings(0)
    split = training_splits(plan, training.clips, training.run)[0]
    steps = plan.train.steps_per_epoch(len(split.train_rows))
    ends = [min(steps * epoch, curve["iteration"][-1]) for epoch in curve["epoch"]]
    losses = smoothed(curve["iteration_loss"])
    printed = plan.name == "crnn" and study.matches_j22(each.study, plan)
    known = study_file.published()["J22"]["figure_7"] if printed else {}
    title = f"Loss of {plan.name} ({plan.train.loss}) by iterations (as J22 Fig. 7)"
    lines = {
        f"training, mean of {SMOOTH} batches": (curve["iteration"], losses),
        "validation (groups of the training clips)": (ends, curve["val_loss"]),
    }
    draft.tables.append(_loss_table(title, curve, losses, ends))
    draft.tables.append(_summary_table(curve, losses, ends, known))
    draft.plots.append(
        plots.loss_lines(title, lines, known.get("loss"), known.get("stable_from", 0))
    )
    draft.findings.append(
        f"An iteration is a step on a batch of {plan.train.batch_size} clips; an epoch of "
        f"{plan.name} has {steps} iterations. J22 does not say whether Fig. 7 shows the loss of "
        "training clips."
    )
    finite = {k: [v if math.isfinite(v) else None for v in row] for k, row in curve.items()}
    draft.curves[plan.name] = {"validation_at": ends, **finite}


def _loss_table(title: str, curve: Curve, losses: Sequence[float], ends: Sequence[float]) -> Table:
    """Return a table of losses at evenly spaced iterations."""
    at, n_points = curve["iteration"], len(curve["iteration"])
    rows = []
    for i in sorted({round(i) for i in np.linspace(0, n_points - 1, min(ROWS, n_points))}):
        # Validation scores of the last epoch that had ended by this iteration.
        epoch = int(np.searchsorted(ends, at[i], side="right")) - 1
        validation = [
            curve[name][epoch] if epoch >= 0 else None for name in ("val_loss", "val_accuracy")
        ]
        rows.append([int(at[i]), losses[i], *validation])
    titles = ("iterations", "training loss", "validation loss")
    columns = [*map(Column, titles), Column("validation accuracy", PERCENT)]
    return table(columns, rows, title=title, name="loss")


def _summary_table(
    curve: Curve, losses: Sequence[float], ends: Sequence[float], known: dict[str, float]
) -> Table:
    """Return a table of the final and lowest losses, with J22's values if they are `known`."""
    val_loss = curve["val_loss"]
    best = int(np.argmin(val_loss))
    columns = (
        Column("what", TEXT),
        Column("iterations"),
        Column("loss"),
        Column("iterations, J22", published=True),
        Column("loss, J22 Fig. 7", published=True),
    )
    stable = stable_from(curve["iteration"], losses)
    named = "training loss is stable (within 5 % of its range)"
    rows = (
        (named, stable, losses[-1], known.get("stable_from"), known.get("loss")),
        ("lowest validation loss", int(ends[best]), val_loss[best], None, None),
        ("validation loss at the end", int(ends[-1]), val_loss[-1], known.get("iterations"), None),
    )
    return table(columns, rows, title="Final and lowest losses", name="summary")


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return the running mean of the last `count` losses."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(sums))
    counts = np.minimum(ends, count)
    return ((sums[ends] - sums[ends - counts]) / counts).tolist()


def stable_from(iterations: Sequence[float], losses: Sequence[float], share: float = 0.05) -> int:
    """Return the iteration after which losses differ from the last by at most `share` of range."""
    far = np.abs(np.subtract(losses, losses[-1])) > share * np.ptp(losses)
    # The last loss differs from itself by 0, so an iteration is always found.
    return int(iterations[np.flatnonzero(far).max(initial=-1) + 1])
