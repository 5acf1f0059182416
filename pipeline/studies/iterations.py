"""Study T2: loss by the number of iterations (J22 3.3, Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.jobs import Curve
from mvemo.extract.training.jobs import steps_per_epoch as trained_steps
from mvemo.extract.training.splits import TrainingClips, training_splits
from mvemo.fuse.numeric import Ints
from mvemo.fuse.report.published import J22 as j22
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies import tags
from mvemo.pipeline.studies.comparison import OTHERS, Compared, Variant, comparison_table
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.crossfit import FoldPredictions, NetJob, cross_fit
from mvemo.pipeline.studies.output import Plot, StudyResult
from mvemo.pipeline.studies.plots import loss_lines
from mvemo.pipeline.studies.scores import Labels, score
from mvemo.pipeline.studies.segments import SEGMENT_SECONDS, Cut, cut_study
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table

# Number of rows of the table, and of batches that a point of the training curve averages.
ROWS = 11
SMOOTH = 25


@dataclass(frozen=True)
class LossCurves:
    """Losses of one training over its iterations."""

    # One value for each step of the optimizer.
    iteration: list[float]
    train_loss: list[float]  # mean over the last `SMOOTH` batches
    # One value for each epoch.
    val_iteration: list[float]  # last iteration of the epoch
    val_loss: list[float]
    val_accuracy: list[float]


def run_iterations(
    study: Study,
    *,
    net: str = "crnn",
    iterations: int = j22.FIGURE_7_ITERATIONS,
    seconds: float = SEGMENT_SECONDS,
    cut: Cut | None = None,
) -> StudyResult:
    """Train one net without the first fold for `iterations` steps, without early stopping."""
    if iterations < 1:
        raise BadOption(f"--iterations {iterations}: at least 1 is needed")
    study, notes = cut_study(study, seconds, cut)
    # With patience beyond the last epoch, validation clips are scored but nothing stops.
    plan = study.plan(net, iterations=iterations, patience=iterations + 1)
    media = study.media([plan])
    folds = study.folds()
    predictions = cross_fit(study, media, NetJob(plan, folds, only_first=True))
    curve = predictions.curves[0]
    steps = steps_per_epoch(study, media, folds, plan)
    curves = loss_curves(curve, steps, iterations)
    title = f"Loss of {net} by iterations"
    printed = net == "crnn" and matches_j22(study, plan)
    return StudyResult(
        name="iterations",
        title=title,
        tables=(
            _loss_table(f"Loss of {net} ({plan.train.loss}) by iterations (as J22 Fig. 7)", curves),
            _summary_table(curves, printed=printed),
            _test_table(media, folds, predictions),
        ),
        plots=(_plot(title, curves, j22.FIGURE_7_LOSS if printed else None),),
        notes=(
            f"One iteration is one step on a batch of {plan.train.batch_size} clips; an epoch "
            f"has {steps}. J22's Fig. 7 does not say whether its loss is of training clips.",
            *notes,
            *media.left_out(media.usable(plan)),
        ),
        data={f"{net}@first fold": {"validation_at": curves.val_iteration, **_finite(curve)}},
        sources=(tags.SOURCE,),
    )


def loss_curves(curve: Curve, steps: int, iterations: int) -> LossCurves:
    """Return a training's losses by iterations; `steps` is the number of steps of an epoch."""
    return LossCurves(
        iteration=curve["iteration"],
        train_loss=smoothed(curve["iteration_loss"]),
        # The last epoch may be incomplete.
        val_iteration=[min(steps * epoch, float(iterations)) for epoch in curve["epoch"]],
        val_loss=curve["val_loss"],
        val_accuracy=curve["val_accuracy"],
    )


def _loss_table(title: str, curves: LossCurves) -> Table:
    """Return a table of losses at evenly spaced iterations."""
    n_points = len(curves.iteration)
    rows: list[tuple[Cell, ...]] = []
    for i in sorted({round(i) for i in np.linspace(0, n_points - 1, min(ROWS, n_points))}):
        # The validation figures of the last epoch that had ended by then.
        epoch = int(np.searchsorted(curves.val_iteration, curves.iteration[i], side="right")) - 1
        validation = (
            (curves.val_loss[epoch], curves.val_accuracy[epoch]) if epoch >= 0 else (None, None)
        )
        rows.append((int(curves.iteration[i]), curves.train_loss[i], *validation))
    columns = (
        Column("iterations", NUMBER),
        Column("training loss", NUMBER),
        Column("validation loss", NUMBER),
        Column("validation accuracy", PERCENT),
    )
    return Table("loss", title, columns, tuple(rows))


def _summary_table(curves: LossCurves, *, printed: bool) -> Table:
    """Return a table of the final losses, with J22's figures if `printed`."""
    best = int(np.argmin(curves.val_loss))
    figure_7 = (j22.FIGURE_7_STABLE_FROM, j22.FIGURE_7_LOSS) if printed else (None, None)
    return Table(
        "summary",
        "Where the loss ends",
        (
            Column("what"),
            Column("iterations", NUMBER),
            Column("loss", NUMBER),
            Column("iterations, J22", NUMBER, published=True),
            Column("loss, J22 Fig. 7", NUMBER, published=True),
        ),
        (
            (
                "training loss is stable (within 5 % of its end)",
                stable_from(curves.iteration, curves.train_loss),
                curves.train_loss[-1],
                *figure_7,
            ),
            (
                "lowest validation loss",
                int(curves.val_iteration[best]),
                curves.val_loss[best],
                None,
                None,
            ),
            (
                "validation loss at the end",
                int(curves.val_iteration[-1]),
                curves.val_loss[-1],
                j22.FIGURE_7_ITERATIONS if printed else None,
                None,
            ),
        ),
    )


def _test_table(media: StudyMedia, folds: Ints, predictions: FoldPredictions) -> Table:
    """Return a table of the scores on the first fold, with the baseline."""
    labels = Labels.of(media.manifest)
    # The other folds are trained on.
    tested = np.where(folds == folds.min(), 0, -1)
    outputs = np.where(tested[:, None] == 0, predictions.outputs, np.nan)
    variant = Variant("", lambda run, assignment: predictions, cells=())
    compared = Compared(variant, (predictions,), score(labels, [outputs], [tested]))
    return comparison_table(
        "test",
        "The net of the lowest validation loss on the fold that it never saw",
        [compared],
        labels=labels,
        first=(),
        measures=("clips", "score", OTHERS, "baseline"),
        published=(),
    )


def _plot(title: str, curves: LossCurves, printed: float | None) -> Plot:
    lines = {
        f"training, mean of {SMOOTH} batches": (curves.iteration, curves.train_loss),
        "validation (groups of the training folds)": (curves.val_iteration, curves.val_loss),
    }
    return Plot(
        "loss",
        title,
        lambda axes: loss_lines(axes, lines, printed, float(j22.FIGURE_7_STABLE_FROM)),
        (6.4, 4.0),
    )


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return the running mean of the last `count` losses."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - count, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def stable_from(iterations: list[float], losses: list[float], share: float = 0.05) -> int:
    """Return the first iteration after which the loss stays close to its last value.

    Close means within `share` of the range of the losses.
    """
    span = max(losses) - min(losses)
    near = [abs(value - losses[-1]) <= share * span for value in losses]
    last_far = max((i for i, (ok, _) in enumerate(pairwise([*near, True])) if not ok), default=-1)
    return int(iterations[min(last_far + 1, len(iterations) - 1)])


def steps_per_epoch(study: Study, media: StudyMedia, folds: Ints, plan: NetSettings) -> int:
    """Return the number of steps of a whole epoch of the training without the first fold."""
    clips = TrainingClips(media.manifest, media.digests, media.usable(plan), folds)
    run = RunSettings("crossfit", study.settings.extract.run.seed)
    first = training_splits(plan, clips, run)[0]
    return trained_steps(plan.train, len(first.train_rows))


def _finite(curve: Curve) -> dict[str, list[float | None]]:
    return {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in curve.items()
    }
