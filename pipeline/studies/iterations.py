"""T2: the loss against the number of iterations (J22 3.3, Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mvemo.extract.training.fine_tuning import steps_per_epoch as trained_steps
from mvemo.extract.training.plan import NetPlan
from mvemo.extract.training.protocols import held_out, job_seed
from mvemo.fuse.report import published_j22 as j22
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.core import Ints, Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.media import StudyMedia
from mvemo.pipeline.studies.output import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
)
from mvemo.pipeline.studies.plots import loss_lines

# Lines of the table, and batches that a point of the training curve is the mean of.
ROWS = 11
SMOOTH = 25


def run_iterations(
    study: Study, *, net: str = "crnn", iterations: int = j22.FIGURE_7_ITERATIONS
) -> StudyResult:
    """Train one net without the first fold for so many steps, never stopping early.

    Parameters
    ----------
    study
        Of the clips; one repeat is enough for a curve.
    net
        Which.
    iterations
        Steps of the optimizer.
    """
    if iterations < 1:
        raise BadOption(f"--iterations {iterations}: at least 1 is needed")
    # Patience beyond the last epoch: validation clips are held out, and nothing stops.
    plan = study.plan(net, iterations=iterations, patience=iterations + 1)
    media = study.media([plan])
    folds = study.folds()
    done = cross_fit(study, media, plan, folds, only_first=True)
    curve = done.curves[0]
    train = smoothed(curve["iteration_loss"])
    val = curve["val_loss"]
    at = curve["iteration"]
    # The last epoch may be a part of one.
    steps = steps_per_epoch(study, media, folds, plan)
    val_at = [min(steps * epoch, float(iterations)) for epoch in curve["epoch"]]
    labels = labels_of(media)
    tested = folds == int(np.unique(folds)[0])
    there = tested & np.isfinite(done.probabilities).all(axis=1)
    found = score(labels, [done.probabilities], [folds], study.manifest.groups)
    counts = np.bincount(labels[~tested])
    majority = float((labels[there] == counts.argmax()).mean())
    picks = sorted({round(i) for i in np.linspace(0, len(at) - 1, min(ROWS, len(at)))})
    rows: list[tuple[Cell, ...]] = []
    for i in picks:
        # The validation figures of the last epoch that had ended by then.
        ended = int(np.searchsorted(val_at, at[i], side="right")) - 1
        known = (val[ended], curve["val_accuracy"][ended]) if ended >= 0 else (None, None)
        rows.append((int(at[i]), train[i], *known))
    best = int(np.argmin(val))
    lines = {
        f"training, mean of {SMOOTH} batches": (at, train),
        "validation (groups of the training folds)": (val_at, val),
    }
    return StudyResult(
        name="iterations",
        title=f"Loss of {net} by iterations",
        tables=(
            Table(
                "loss",
                f"Loss of {net} ({plan.train.loss}) by iterations (as J22 Fig. 7)",
                (
                    Column("iterations", NUMBER),
                    Column("training loss", NUMBER),
                    Column("validation loss", NUMBER),
                    Column("validation accuracy", PERCENT),
                ),
                tuple(rows),
            ),
            Table(
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
                        stable_from(at, train),
                        train[-1],
                        j22.FIGURE_7_STABLE_FROM,
                        j22.FIGURE_7_LOSS,
                    ),
                    ("lowest validation loss", int(val_at[best]), val[best], None, None),
                    (
                        "validation loss at the end",
                        int(val_at[-1]),
                        val[-1],
                        j22.FIGURE_7_ITERATIONS,
                        None,
                    ),
                ),
            ),
            Table(
                "test",
                "The net of the lowest validation loss on the fold that it never saw",
                (
                    Column("clips", NUMBER),
                    Column("accuracy", PERCENT),
                    Column("macro F1", NUMBER),
                    Column("majority", PERCENT),
                ),
                ((found.clips, found.accuracy, found.f1, majority),),
            ),
        ),
        plots=(
            Plot(
                "loss",
                f"Loss of {net} by iterations",
                lambda axes: loss_lines(
                    axes, lines, j22.FIGURE_7_LOSS, float(j22.FIGURE_7_STABLE_FROM)
                ),
                (6.4, 4.0),
            ),
        ),
        notes=(
            f"One iteration is one step on a batch of {plan.train.batch_size} clips; an epoch "
            f"has {steps}. J22's Fig. 7 does not say whether its loss is of training clips.",
            *media.left_out(media.usable(plan)),
        ),
        data={f"{net}@first fold": {"validation_at": list(val_at), **_finite(curve)}},
        sources=(j22.SOURCE,),
    )


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Mean of each loss and those before it, `count` at most."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - count, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def stable_from(iterations: list[float], losses: list[float], share: float = 0.05) -> int:
    """First iteration from which the loss stays within a share of its span of the end."""
    span = max(losses) - min(losses)
    near = [abs(value - losses[-1]) <= share * span for value in losses]
    last_far = max((i for i, (ok, _) in enumerate(pairwise([*near, True])) if not ok), default=-1)
    return int(iterations[min(last_far + 1, len(iterations) - 1)])


def steps_per_epoch(study: Study, media: StudyMedia, folds: Ints, plan: NetPlan) -> int:
    """Steps of a whole epoch without the first fold, as the trainer divides its clips."""
    first = int(np.unique(folds)[0])
    rows = np.flatnonzero(media.usable(plan) & (folds != first))
    seed = job_seed(study.settings.extract.seed, first)
    held = held_out(plan, media.manifest, rows, None, seed)
    return trained_steps(plan.train, int((~held).sum()))


def _finite(curve: dict[str, list[float]]) -> dict[str, list[float | None]]:
    return {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in curve.items()
    }
