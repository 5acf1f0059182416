"""Loss of one training over its iterations (J22 3.3, Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, RunSettings, TrainingClips
from mvemo.extract.training.data import training_splits
from mvemo.extract.training.steps import Curve
from mvemo.fuse.numeric import F64, Ints
from mvemo.manifests import Manifest
from mvemo.pipeline.studies.comparison import Compared, Draft, Row, citations, measured
from mvemo.pipeline.studies.predictors import FoldPredictions, NetPredictor
from mvemo.pipeline.studies.result import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
    loss_lines,
)
from mvemo.pipeline.studies.runner import cut_for_nets
from mvemo.pipeline.studies.scores import Labels, Scores, score
from mvemo.pipeline.studies.study import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.study_file import Measure, StudyFile, published

# Rows in the table of losses, and batches that are averaged for a point of the training curve.
ROWS = 11
SMOOTH = 25


def run_iterations(study: Study, file: StudyFile, options: Mapping[str, Any]) -> StudyResult:
    """Train one net without the first fold, for a fixed number of steps, and report its loss."""
    draft = Draft(study, file, options)
    study = draft.study = cut_for_nets(draft)
    net, iterations = file.grid["net"][0], options["iterations"]
    # Patience beyond the last epoch turns off early stopping, but validation clips are scored.
    plan = study.plan(net, iterations=iterations, patience=iterations + 1)
    media, folds = study.media([plan]), study.folds()
    predictions = NetPredictor(study, media, plan, media.manifest, only_first=True)(0, folds)
    curve = predictions.curves[0]
    steps = steps_per_epoch(study, media, folds, plan)
    # Last iteration of each epoch; the last epoch may be incomplete.
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
    return StudyResult(
        name=file.name,
        title=title,
        tables=(
            _loss_table(table_title, curve, losses, ends),
            _summary_table(curve, losses, ends, printed=printed),
            _test_table(replace(draft, study=study), folds, predictions),
        ),
        plots=(loss_plot(title, lines, printed=printed),),
        notes=(
            f"An iteration is a step on a batch of {plan.train.batch_size} clips; an epoch has "
            f"{steps} iterations. J22 does not say whether Fig. 7 shows the loss of training "
            "clips.",
            *draft.notes,
            *media.left_out(media.usable(plan)),
        ),
        data={f"{net}@first fold": {"validation_at": ends, **finite}},
        sources=citations(file),
    )


def _loss_table(title: str, curve: Curve, losses: list[float], ends: list[float]) -> Table:
    """Return a table of losses at evenly spaced iterations."""
    at, n_points = curve["iteration"], len(curve["iteration"])
    rows: list[tuple[Cell, ...]] = []
    for i in sorted({round(i) for i in np.linspace(0, n_points - 1, min(ROWS, n_points))}):
        # Validation scores of the last epoch that had ended by this iteration.
        epoch = int(np.searchsorted(ends, at[i], side="right")) - 1
        validation = [
            curve[name][epoch] if epoch >= 0 else None for name in ("val_loss", "val_accuracy")
        ]
        rows.append((int(at[i]), losses[i], *validation))
    columns = (
        Column("iterations", NUMBER),
        Column("training loss", NUMBER),
        Column("validation loss", NUMBER),
        Column("validation accuracy", PERCENT),
    )
    return Table("loss", title, columns, tuple(rows))


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
    rows: tuple[tuple[Cell, ...], ...] = (
        (named, stable, losses[-1], known.get("stable_from"), known.get("loss")),
        ("lowest validation loss", int(ends[best]), val_loss[best], None, None),
        ("validation loss at the end", int(ends[-1]), val_loss[-1], known.get("iterations"), None),
    )
    return Table("summary", "Final and lowest losses", columns, rows)


def _test_table(draft: Draft, folds: Ints, predictions: FoldPredictions) -> Table:
    """Return a table of the scores on the first fold, with the baseline."""
    tested = np.where(folds == folds.min(), 0, -1)  # the other folds are trained on
    scores = score_part(draft.study.manifest, predictions.outputs, tested)
    row = Row("", {})
    each = Compared(row, draft.study, draft.labels, [tested], (predictions,), scores)
    measure = Measure(metrics=("clips", "score", "others", "baseline"))
    columns = measured(replace(draft, file=replace(draft.file, measure=measure)))
    title = "Scores on the first fold, with the weights of the lowest validation loss"
    cells = tuple(metric(each) for _, metric in columns)
    return Table("test", title, tuple(column for column, _ in columns), (cells,))


def score_part(manifest: Manifest, outputs: F64, tested: Ints) -> Scores:
    """Score the clips whose `tested` is 0; it is -1 for all other clips."""
    outputs = np.where(tested[:, None] == 0, outputs, np.nan)
    return score(Labels.of(manifest), [outputs], [tested])


def loss_plot(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, printed: bool
) -> Plot:
    known = published()["J22"]["figure_7"]
    level, since = known["loss"] if printed else None, float(known["stable_from"])
    return Plot("loss", title, lambda axes: loss_lines(axes, lines, level, since), (6.4, 4.0))


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return the running mean of the last `count` losses."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - count, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def stable_from(iterations: list[float], losses: list[float], share: float = 0.05) -> int:
    """Return the iteration after which losses differ from the last by at most `share` of range."""
    span = max(losses) - min(losses)
    near = [abs(value - losses[-1]) <= share * span for value in losses]
    last_far = max((i for i, (ok, _) in enumerate(pairwise([*near, True])) if not ok), default=-1)
    return int(iterations[min(last_far + 1, len(iterations) - 1)])


def steps_per_epoch(study: Study, media: StudyMedia, folds: Ints, plan: NetSettings) -> int:
    """Return the number of steps in a full epoch of the training without the first fold."""
    clips = TrainingClips(media.manifest, media.digests, media.usable(plan), folds)
    run = RunSettings("crossfit", study.settings.extract.run.seed)
    first = training_splits(plan, clips, run)[0]
    return plan.train.steps_per_epoch(len(first.train_rows))
