"""Loss of one training over its iterations (J22 3.3, Fig. 7)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvemo.extract.training.data import training_splits
from mvemo.extract.training.steps import Curve
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F64, Bools
from mvemo.pipeline.studies.comparison import Compared, Draft, Row, measured
from mvemo.pipeline.studies.predictors import FoldPredictions, NetPredictor
from mvemo.pipeline.studies.result import (
    NUMBER,
    PERCENT,
    Column,
    Plot,
    StudyResult,
    Table,
    loss_lines,
)
from mvemo.pipeline.studies.runner import cut_for_nets
from mvemo.pipeline.studies.scores import Labels, Scores, score
from mvemo.pipeline.studies.study import matches_j22
from mvemo.pipeline.studies.study_file import Measure, published

# Rows in the table of losses, and batches that are averaged for a point of the training curve.
ROWS = 11
SMOOTH = 25


def run_iterations(draft: Draft) -> StudyResult:
    """Train one net without the first fold, for a fixed number of steps, and report its loss."""
    study = draft.study = cut_for_nets(draft)
    net, iterations = draft.file.grid["net"][0], draft.options["iterations"]
    # Patience beyond the last epoch turns off early stopping, but validation clips are scored.
    plan = study.plan(net, iterations=iterations, patience=iterations + 1)
    media, folds = study.media([plan]), study.folds()
    predictor = NetPredictor(study, media, media.manifest, plan, only_first=True)
    predictions = predictor(0, folds)
    curve = predictions.curves[0]
    # Number of steps in a full epoch; the last epoch may be incomplete.
    (training,) = predictor.trainings(0, folds)
    split = training_splits(plan, training.clips, training.run)[0]
    steps = plan.train.steps_per_epoch(len(split.train_rows))
    ends = [min(steps * epoch, float(iterations)) for epoch in curve["epoch"]]
    losses = smoothed(curve["iteration_loss"])
    title = f"Loss of {net} by iterations"
    printed = net == "crnn" and matches_j22(study, plan)
    lines = {
        f"training, mean of {SMOOTH} batches": (curve["iteration"], losses),
        "validation (groups of the training folds)": (ends, curve["val_loss"]),
    }
    finite = {k: [v if math.isfinite(v) else None for v in row] for k, row in curve.items()}
    table_title = f"Loss of {net} ({plan.train.loss}) by iterations (as J22 Fig. 7)"
    draft.tables = [
        _loss_table(table_title, curve, losses, ends),
        _summary_table(curve, losses, ends, printed=printed),
        _test_table(draft, predictor, predictions),
    ]
    notes = (
        f"An iteration is a step on a batch of {plan.train.batch_size} clips; an epoch has "
        f"{steps} iterations. J22 does not say whether Fig. 7 shows the loss of training clips.",
        *draft.notes,
        *media.left_out(media.usable(plan)),
    )
    data = {f"{net}@first fold": {"validation_at": ends, **finite}}
    return draft.result(title, [loss_plot(title, lines, printed=printed)], notes=notes, data=data)


def _loss_table(title: str, curve: Curve, losses: list[float], ends: list[float]) -> Table:
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
    names = ("iterations", "training loss", "validation loss")
    columns = [*(Column(name, NUMBER) for name in names), Column("validation accuracy", PERCENT)]
    return Table("loss", title, columns, rows)


def _summary_table(curve: Curve, losses: list[float], ends: list[float], *, printed: bool) -> Table:
    """Return a table of the final and lowest losses, with J22's values if `printed`."""
    val_loss = curve["val_loss"]
    best = int(np.argmin(val_loss))
    known = published()["J22"]["figure_7"] if printed else {}
    columns = (
        Column("what"),
        Column("iterations", NUMBER),
        Column("loss", NUMBER),
        Column("iterations, J22", NUMBER, published=True),
        Column("loss, J22 Fig. 7", NUMBER, published=True),
    )
    stable = stable_from(curve["iteration"], losses)
    named = "training loss is stable (within 5 % of its range)"
    rows = (
        (named, stable, losses[-1], known.get("stable_from"), known.get("loss")),
        ("lowest validation loss", int(ends[best]), val_loss[best], None, None),
        ("validation loss at the end", int(ends[-1]), val_loss[-1], known.get("iterations"), None),
    )
    return Table("summary", "Final and lowest losses", columns, rows)


def _test_table(draft: Draft, predictor: NetPredictor, predictions: FoldPredictions) -> Table:
    """Return a table of the scores on the first fold, with the baseline."""
    folds = draft.study.folds()
    tested = folds == folds.min()  # the other folds are trained on
    scores = score_part(draft.study.manifest, predictions.outputs, tested)
    values = Compared(Row("", {}), predictor, [], (predictions,), scores)
    measure = Measure(metrics=("clips", "score", "others", "baseline"))
    columns = measured(replace(draft, file=replace(draft.file, measure=measure)))
    title = "Scores on the first fold, with the weights of the lowest validation loss"
    cells = [values.values(level).get(key) for _, level, key in columns]
    return Table("test", title, [column for column, *_ in columns], [cells])


def score_part(manifest: Manifest, outputs: F64, tested: Bools) -> Scores:
    """Score the clips for which `tested` is True; the baseline learns from the others."""
    outputs = np.where(tested[:, None], outputs, np.nan)
    return score(Labels.of(manifest), [outputs], [np.where(tested, 0, -1)])


def loss_plot(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, printed: bool
) -> Plot:
    known = published()["J22"]["figure_7"] if printed else {}
    level, since = known.get("loss"), known.get("stable_from", 0)
    return Plot("loss", title, lambda axes: loss_lines(axes, lines, level, since), (6.4, 4.0))


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return the running mean of the last `count` losses."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(sums))
    counts = np.minimum(ends, count)
    return ((sums[ends] - sums[ends - counts]) / counts).tolist()


def stable_from(iterations: list[float], losses: list[float], share: float = 0.05) -> int:
    """Return the iteration after which losses differ from the last by at most `share` of range."""
    far = np.abs(np.subtract(losses, losses[-1])) > share * np.ptp(losses)
    # The last iteration is near itself.
    return int(iterations[np.flatnonzero(far).max(initial=-1) + 1])
