"""Comparison of variants over folds and repeats: rows, bars and differences of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.fuse.bootstrap import Resamples, percentile_interval, resample_groups
from mvemo.fuse.metrics.averages import mean_finite, mean_of_finite
from mvemo.fuse.numeric import F64, Ints
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import Manifest
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies.core import Study, StudyMedia
from mvemo.pipeline.studies.crossfit import (
    FoldPredictions,
    NetJob,
    NetTraining,
    cross_fit,
    train_ahead,
    training_of,
)
from mvemo.pipeline.studies.output import Plot
from mvemo.pipeline.studies.plots import Bar, score_bars
from mvemo.pipeline.studies.scores import NO_SCORES, Labels, Scores, score
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table

INTERVAL_NOTE = "low and high: 95 % interval over groups. sd: over runs, or folds of one run."


@dataclass(frozen=True)
class Variant:
    """Net, loss or model that is compared with others."""

    name: str  # label of its bar
    # (number of the repeat, folds as int64 (clips,)) -> out-of-fold predictions
    predict: Callable[[int, Ints], FoldPredictions]
    cells: tuple[Cell, ...]  # first cells of its row
    published: tuple[Cell, ...] = ()  # last cells of its row; None for a missing figure
    printed_accuracy: float | None = None  # the published figure that marks its bar


@dataclass(frozen=True)
class Compared:
    """Variant with its predictions and scores."""

    variant: Variant
    runs: tuple[FoldPredictions, ...]  # one for each repeat; empty if a training diverged
    scores: Scores  # all NaN if a training diverged
    divergence: str = ""  # message on the training without a finite loss, if any

    @property
    def train_score(self) -> float:
        """Mean score of the nets on their own training clips, over folds and repeats."""
        if self.divergence:
            return math.nan
        return float(np.mean([value for run in self.runs for value in run.train_scores]))

    def bar(self) -> Bar:
        """Return the bar with score, interval and published figure."""
        scores, variant = self.scores, self.variant
        return Bar(variant.name, scores.primary, scores.low, scores.high, variant.printed_accuracy)


@runtime_checkable
class Trains(Protocol):
    """Protocol of a `Variant.predict` that trains nets."""

    def trainings(self, run: int, folds: Ints) -> Sequence[NetTraining]:
        """Return the trainings of a repeat."""
        ...


@dataclass(frozen=True)
class NetPredictor:
    """`Variant.predict` of a net; the fields are those of `NetJob`."""

    study: Study
    media: StudyMedia
    plan: NetSettings
    title: str = ""
    with_train_score: bool = False

    def __call__(self, run: int, folds: Ints) -> FoldPredictions:
        return cross_fit(self.study, self.media, self._job(run, folds))

    def trainings(self, run: int, folds: Ints) -> Sequence[NetTraining]:
        """Return the training of the net in a repeat."""
        return [training_of(self.study, self.media, self._job(run, folds))]

    def _job(self, run: int, folds: Ints) -> NetJob:
        return NetJob(self.plan, folds, run, self.title, with_train_score=self.with_train_score)


def compare(
    study: Study, variants: Sequence[Variant], manifest: Manifest, folds: Sequence[Ints]
) -> list[Compared]:
    """Predict all clips with each variant, and score the predictions.

    A variant whose training diverges in any fold or repeat has no scores; the others are
    not affected.
    """
    labels = Labels.of(manifest)
    train_ahead(
        study,
        [
            training
            for variant in variants
            for run, assignment in enumerate(folds)
            for training in _trainings(variant.predict, run, assignment)
        ],
    )
    compared = []
    with Progress("table", len(variants), "row") as bar:
        for variant in variants:
            compared.append(_compared(variant, labels, folds))
            bar.step()
    return compared


def _trainings(predict: object, run: int, folds: Ints) -> Sequence[NetTraining]:
    """Return the trainings of a `Variant.predict`; empty if it is not a net."""
    return predict.trainings(run, folds) if isinstance(predict, Trains) else ()


def _compared(variant: Variant, labels: Labels, folds: Sequence[Ints]) -> Compared:
    try:
        runs = tuple(variant.predict(run, assignment) for run, assignment in enumerate(folds))
    except TrainingDiverged as error:
        return Compared(variant, (), NO_SCORES, error.problem)
    return Compared(variant, runs, score(labels, [run.outputs for run in runs], folds))


def divergence_notes(compared: Sequence[Compared]) -> list[str]:
    """Return a note on each variant whose training diverged: net, fold and epoch."""
    return [
        f"{each.variant.name} has no figures. {each.divergence}."
        for each in compared
        if each.divergence
    ]


def baseline_of(compared: Sequence[Compared]) -> float | None:
    """Return the baseline of the first variant that has scores, or None."""
    return next((c.scores.baseline for c in compared if not c.divergence), None)


Measure = Callable[[Compared], Cell]
Measured = tuple[Column, Measure]
# Columns in the unit of the task's primary metric.
SCORED: Mapping[str, Measure] = {
    "score": lambda c: c.scores.primary,
    "test": lambda c: c.scores.primary,
    "low": lambda c: c.scores.low,
    "high": lambda c: c.scores.high,
    "sd": lambda c: c.scores.sd,
    "sd over runs": lambda c: c.scores.sd if len(c.runs) > 1 else None,
    "baseline": lambda c: c.scores.baseline,
    "training": lambda c: c.train_score,
    "gap": lambda c: c.train_score - c.scores.primary,
}
COUNTED: Mapping[str, Measure] = {
    "clips": lambda c: c.scores.n_clips,
    "runs": lambda c: len(c.runs),
    "parameters": lambda c: c.runs[0].n_parameters,
}
# Key for all further scores of the task.
OTHERS = "others"


def measures_of(task: Task, names: Sequence[str], keys: Sequence[str]) -> list[Measured]:
    """Return columns and their cells for keys of `SCORED` and `COUNTED`, and `OTHERS`."""
    kind = PERCENT if task.in_percent else NUMBER
    titles = {"score": task.primary_title, "sd over runs": "sd"}
    titles["baseline"] = "majority" if task.in_percent else "baseline"
    measured: list[Measured] = []
    for key in keys:
        if key == OTHERS:
            measured += [
                (Column(column.title, NUMBER), _other(column.title))
                for column in task.columns(names)
                if column.terminal
            ]
        elif key in SCORED:
            measured.append((Column(titles.get(key, key), kind), SCORED[key]))
        else:
            measured.append((Column(key, NUMBER), COUNTED[key]))
    return measured


def _other(title: str) -> Measure:
    return lambda compared: compared.scores.others.get(title)


def comparison_table(
    name: str,
    title: str,
    compared: Sequence[Compared],
    *,
    labels: Labels,
    first: Sequence[Column],
    measures: Sequence[str],
    published: Sequence[Column],
) -> Table:
    """Return a table with a row for each variant: its cells, scores and published figures."""
    measured = measures_of(labels.task, labels.names, measures)
    published = published if labels.task.in_percent else ()
    columns = (*first, *(column for column, _ in measured), *published)
    rows = tuple(
        (
            *each.variant.cells,
            *(None if each.divergence else measure(each) for _, measure in measured),
            *each.variant.published[: len(published)],
        )
        for each in compared
    )
    return Table(name, title, columns, rows)


def score_plot(
    name: str, title: str, bars: Sequence[Bar], compared: Sequence[Compared], labels: Labels
) -> Plot:
    """Return a plot of scores as bars, with the baseline."""
    baseline, height = baseline_of(compared), 1.6 + 0.36 * len(bars)
    return Plot(
        name, title, lambda axes: score_bars(axes, bars, baseline, labels.task), (6.4, height)
    )


@dataclass(frozen=True)
class Difference:
    """Difference of two primary metrics, first minus second."""

    value: float  # mean over folds and repeats
    # 95 % interval; both variants are scored on the same resamples of groups.
    low: float
    high: float

    def texts(self, labels: Labels) -> tuple[str, str, str]:
        """Format value, low and high with signs, in per cent if the metric is in per cent."""
        unit, places = (100, 1) if labels.task.in_percent else (1, 3)
        value, low, high = (f"{unit * x:+.{places}f}" for x in (self.value, self.low, self.high))
        return value, low, high


def difference(
    labels: Labels, first: Compared, second: Compared, folds: Sequence[Ints]
) -> Difference | None:
    """Return first minus second over the clips that both predicted; None if one diverged."""
    if first.divergence or second.divergence:
        return None
    resamples = resample_groups(list(labels.groups))
    values, shares = [], []
    for run, assignment in enumerate(folds):
        pair = np.stack([each.runs[run].outputs for each in (first, second)])
        pair[:, ~np.isfinite(pair).all(axis=(0, 2))] = np.nan
        of_pair, resampled = _scores(labels, pair, assignment, resamples)
        values.append(of_pair[0] - of_pair[1])
        shares.append(resampled[0] - resampled[1])
    low, high = percentile_interval(mean_finite(np.stack(shares), axis=0))
    return Difference(mean_of_finite(np.array(values)), float(low), float(high))


def _scores(labels: Labels, pair: F64, folds: Ints, resamples: Resamples) -> tuple[F64, F64]:
    """Return the primary metrics, float64 (2,), and by resample, float64 (2, resamples)."""
    task, k = labels.task, int(folds.max()) + 1
    values = [
        mean_of_finite(task.primary_per_fold(labels.y_true, outputs, folds, k)) for outputs in pair
    ]
    return np.array(values), task.resample_primary(labels.y_true, pair, folds, k, resamples)
