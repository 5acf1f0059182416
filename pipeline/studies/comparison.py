"""The loop of every study: what is compared, over folds and repeats, and its rows and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.fuse.arrays import Ints
from mvemo.manifests import Manifest
from mvemo.pipeline.studies.core import Study, class_indices
from mvemo.pipeline.studies.crossfit import FoldPredictions, NetJob, cross_fit
from mvemo.pipeline.studies.media import StudyMedia
from mvemo.pipeline.studies.output import Plot
from mvemo.pipeline.studies.plots import Bar, accuracy_bars
from mvemo.pipeline.studies.scores import NO_SCORES, Scores, score
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table

INTERVAL_NOTE = "low and high: 95 % interval over groups. sd: over runs, or folds of one run."


@dataclass(frozen=True)
class Variant:
    """A net, a loss or a model that is compared with others.

    Parameters
    ----------
    name
        Beside its bar.
    predict
        From the number of a repeat and its folds, int64 (clips,), to what is predicted
        out of fold.
    cells
        The first of its row.
    published
        The last of its row: printed figures, None where there is none.
    printed_accuracy
        The one of them that its bar is marked with.
    """

    name: str
    predict: Callable[[int, Ints], FoldPredictions]
    cells: tuple[Cell, ...]
    published: tuple[Cell, ...] = ()
    printed_accuracy: float | None = None


@dataclass(frozen=True)
class Compared:
    """A variant with what it predicted, one element a repeat, and its scores.

    Parameters
    ----------
    variant
        What was compared.
    runs
        Empty where a training diverged.
    scores
        All NaN where a training diverged.
    divergence
        Which training had no finite loss; empty where all had.
    """

    variant: Variant
    runs: tuple[FoldPredictions, ...]
    scores: Scores
    divergence: str = ""

    @property
    def train_accuracy(self) -> float:
        """Mean over folds and repeats of the accuracy on each net's own training clips."""
        if self.divergence:
            return math.nan
        return float(np.mean([value for run in self.runs for value in run.train_accuracy]))

    def bar(self) -> Bar:
        """Its accuracy, interval and printed figure."""
        scores, variant = self.scores, self.variant
        return Bar(variant.name, scores.accuracy, scores.low, scores.high, variant.printed_accuracy)


def compare(
    variants: Sequence[Variant], manifest: Manifest, folds: Sequence[Ints]
) -> list[Compared]:
    """Predict all clips with each variant, and score the predictions.

    A variant whose training diverges in any fold or repeat has no scores; the others go on.

    Parameters
    ----------
    variants
        In the order of the table.
    manifest
        Of the clips that are predicted.
    folds
        int64 (clips,) for each repeat; the same for all variants.
    """
    y_true = class_indices(manifest)
    compared = []
    for variant in variants:
        try:
            runs = tuple(variant.predict(run, assignment) for run, assignment in enumerate(folds))
        except TrainingDiverged as error:
            compared.append(Compared(variant, (), NO_SCORES, error.problem))
            continue
        scores = score(y_true, [run.proba for run in runs], folds, manifest.groups)
        compared.append(Compared(variant, runs, scores))
    return compared


def divergence_notes(compared: Sequence[Compared]) -> list[str]:
    """A note on each variant whose training diverged: net, fold and epoch."""
    return [
        f"{each.variant.name} has no figures. {each.divergence}."
        for each in compared
        if each.divergence
    ]


def majority_of(compared: Sequence[Compared]) -> float | None:
    """The majority baseline of the last variant that has scores; None where none has."""
    return next((c.scores.majority for c in reversed(compared) if not c.divergence), None)


def net_predictor(
    study: Study,
    media: StudyMedia,
    plan: NetSettings,
    *,
    title: str = "",
    with_train_accuracy: bool = False,
) -> Callable[[int, Ints], FoldPredictions]:
    """The `Variant.predict` of a net; parameters as of `NetJob`."""

    def predict(run: int, folds: Ints) -> FoldPredictions:
        job = NetJob(plan, folds, run, title, with_train_accuracy=with_train_accuracy)
        return cross_fit(study, media, job)

    return predict


Measure = Callable[[Compared], Cell]
# What a table of variants shows: the column, and its cell.
MEASURES: Mapping[str, tuple[Column, Measure]] = {
    "accuracy": (Column("accuracy", PERCENT), lambda c: c.scores.accuracy),
    "test": (Column("test", PERCENT), lambda c: c.scores.accuracy),
    "low": (Column("low", PERCENT), lambda c: c.scores.low),
    "high": (Column("high", PERCENT), lambda c: c.scores.high),
    "sd": (Column("sd", PERCENT), lambda c: c.scores.sd),
    "sd over runs": (
        Column("sd", PERCENT),
        lambda c: c.scores.sd if len(c.runs) > 1 else None,
    ),
    "macro F1": (Column("macro F1", NUMBER), lambda c: c.scores.f1),
    "AUC": (Column("AUC", NUMBER), lambda c: c.scores.auc),
    "majority": (Column("majority", PERCENT), lambda c: c.scores.majority),
    "runs": (Column("runs", NUMBER), lambda c: len(c.runs)),
    "parameters": (Column("parameters", NUMBER), lambda c: c.runs[0].n_parameters),
    "training": (Column("training", PERCENT), lambda c: c.train_accuracy),
    "gap": (Column("gap", PERCENT), lambda c: c.train_accuracy - c.scores.accuracy),
}


def comparison_table(
    name: str,
    title: str,
    compared: Sequence[Compared],
    *,
    first: Sequence[Column],
    measures: Sequence[str],
    published: Sequence[Column],
) -> Table:
    """A row for each variant: its own cells, its scores, and printed figures.

    Parameters
    ----------
    name, title
        Of the table.
    compared
        As of `compare`.
    first, published
        The columns of `Variant.cells` and `Variant.published`.
    measures
        Of `MEASURES`, from the left.
    """
    columns = (*first, *(MEASURES[key][0] for key in measures), *published)
    rows = tuple(
        (
            *each.variant.cells,
            *(None if each.divergence else MEASURES[key][1](each) for key in measures),
            *each.variant.published,
        )
        for each in compared
    )
    return Table(name, title, columns, rows)


def accuracy_plot(
    name: str, title: str, bars: Sequence[Bar], majority: float | None, height: float
) -> Plot:
    """Bars of accuracies beside the majority baseline; the height is in inches."""
    return Plot(name, title, lambda axes: accuracy_bars(axes, bars, majority), (6.4, height))
