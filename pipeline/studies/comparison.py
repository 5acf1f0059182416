"""The loop of every study: what is compared, over folds and repeats, and its rows and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.fuse.arrays import Ints
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import Manifest
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies.ahead import NetTraining, train_ahead
from mvemo.pipeline.studies.core import Study
from mvemo.pipeline.studies.crossfit import FoldPredictions, NetJob, cross_fit, training_of
from mvemo.pipeline.studies.media import StudyMedia
from mvemo.pipeline.studies.output import Plot
from mvemo.pipeline.studies.plots import Bar, score_bars
from mvemo.pipeline.studies.scores import NO_SCORES, Labels, Scores, score
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table

INTERVAL_NOTE = "low and high: 95 % interval over groups. sd: over runs, or folds of one run."


@dataclass(frozen=True)
class Variant:
    """A net, a loss or a model that is compared with others."""

    name: str  # beside its bar
    # From the number of a repeat and its folds, int64 (clips,), to what is predicted out of
    # fold.
    predict: Callable[[int, Ints], FoldPredictions]
    cells: tuple[Cell, ...]  # the first of its row
    # The last of its row: printed figures, None where there is none.
    published: tuple[Cell, ...] = ()
    printed_accuracy: float | None = None  # the one of them that its bar is marked with


@dataclass(frozen=True)
class Compared:
    """A variant with what it predicted, one element a repeat, and its scores."""

    variant: Variant  # what was compared
    runs: tuple[FoldPredictions, ...]  # empty where a training diverged
    scores: Scores  # all NaN where a training diverged
    divergence: str = ""  # which training had no finite loss; empty where all had

    @property
    def train_score(self) -> float:
        """Mean over folds and repeats of the score on each net's own training clips."""
        if self.divergence:
            return math.nan
        return float(np.mean([value for run in self.runs for value in run.train_scores]))

    def bar(self) -> Bar:
        """Its score, interval and printed figure."""
        scores, variant = self.scores, self.variant
        return Bar(variant.name, scores.primary, scores.low, scores.high, variant.printed_accuracy)


@runtime_checkable
class Trains(Protocol):
    """A `Variant.predict` that trains nets."""

    def trainings(self, run: int, folds: Ints) -> Sequence[NetTraining]:
        """Those of a repeat."""
        ...


@dataclass(frozen=True)
class NetPredictor:
    """The `Variant.predict` of a net; parameters as of `NetJob`."""

    study: Study
    media: StudyMedia
    plan: NetSettings
    title: str = ""
    with_train_score: bool = False

    def __call__(self, run: int, folds: Ints) -> FoldPredictions:
        return cross_fit(self.study, self.media, self._job(run, folds))

    def trainings(self, run: int, folds: Ints) -> Sequence[NetTraining]:
        """As of `Trains`."""
        return [training_of(self.study, self.media, self._job(run, folds))]

    def _job(self, run: int, folds: Ints) -> NetJob:
        return NetJob(self.plan, folds, run, self.title, with_train_score=self.with_train_score)


def compare(
    study: Study, variants: Sequence[Variant], manifest: Manifest, folds: Sequence[Ints]
) -> list[Compared]:
    """Predict all clips with each variant, and score the predictions.

    A variant whose training diverges in any fold or repeat has no scores; the others go on.
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
    """Those of a `Variant.predict`; none of models that are no nets."""
    return predict.trainings(run, folds) if isinstance(predict, Trains) else ()


def _compared(variant: Variant, labels: Labels, folds: Sequence[Ints]) -> Compared:
    try:
        runs = tuple(variant.predict(run, assignment) for run, assignment in enumerate(folds))
    except TrainingDiverged as error:
        return Compared(variant, (), NO_SCORES, error.problem)
    return Compared(variant, runs, score(labels, [run.outputs for run in runs], folds))


def divergence_notes(compared: Sequence[Compared]) -> list[str]:
    """A note on each variant whose training diverged: net, fold and epoch."""
    return [
        f"{each.variant.name} has no figures. {each.divergence}."
        for each in compared
        if each.divergence
    ]


def baseline_of(compared: Sequence[Compared]) -> float | None:
    """The baseline of the first variant that has scores; None where none has."""
    return next((c.scores.baseline for c in compared if not c.divergence), None)


Measure = Callable[[Compared], Cell]
Measured = tuple[Column, Measure]
# What a table of variants shows in the unit of the task's primary metric.
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
# Stands for all further scores that the task has.
OTHERS = "others"


def measures_of(task: Task, names: Sequence[str], keys: Sequence[str]) -> list[Measured]:
    """Columns and their cells, from keys of `SCORED` and `COUNTED`, and `OTHERS`."""
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
    """A row for each variant: its own cells, its scores, and printed figures."""
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
    """Bars of scores beside the baseline."""
    baseline, height = baseline_of(compared), 1.6 + 0.36 * len(bars)
    return Plot(
        name, title, lambda axes: score_bars(axes, bars, baseline, labels.task), (6.4, height)
    )
