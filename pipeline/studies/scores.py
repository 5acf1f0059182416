"""Scores of out-of-fold predictions over one or several repeats, for any task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse import Model, ModelResult, Task, score_baseline, score_model, task_of
from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.intervals import score_interval
from mvemo.fuse.numeric import mean_finite, mean_of_finite
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F64, Ints


@dataclass(frozen=True)
class Labels:
    """True labels and groups of a manifest's clips, with their task."""

    task: Task
    names: tuple[str, ...]  # classes, tags or targets
    y_true: NDArray[Any]  # from `Task.read_labels`
    groups: tuple[str, ...]  # group of each clip

    @classmethod
    def of(cls, manifest: Manifest) -> Labels:
        """Return the labels of all clips of a manifest, in its order."""
        task = task_of(manifest.task)
        y_true = task.read_labels(np.asarray(manifest.labels))
        task = task.for_labels(manifest.classes, y_true, manifest.scale)
        return cls(task, manifest.classes, y_true, manifest.groups)


@dataclass(frozen=True)
class Scores:
    """Scores of out-of-fold predictions; the primary metric is accuracy, macro ROC-AUC or R2."""

    primary: float  # primary metric, mean over folds and repeats
    low: float  # lower end of the 95 % interval by bootstrapping groups
    high: float  # upper end
    sd: float  # standard deviation over repeats; over folds if there is one repeat
    baseline: float  # primary metric of predicting from the training folds' labels only
    n_clips: int  # number of clips that were predicted
    # Title of each other score column of the task -> score.
    others: Mapping[str, float] = field(default_factory=dict)


# Scores of a variant whose training diverged.
NO_SCORES = Scores(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


def score(labels: Labels, outputs: Sequence[F64], folds: Sequence[Ints]) -> Scores:
    """Score each repeat's out-of-fold predictions; rows with NaN or fold -1 do not count."""
    task, y_true = labels.task, labels.y_true
    mask = np.asarray(np.isfinite(np.stack(outputs)).all(axis=(0, 2)), dtype=np.bool_)
    outputs = [np.where(mask[:, None], values, np.nan) for values in outputs]
    resamples = resample_groups(list(labels.groups))
    results = score_runs(labels, outputs, folds)
    shares = [
        task.resample_primary(y_true, values[None], of_run, int(of_run.max()) + 1, resamples)[0]
        for values, of_run in zip(outputs, folds, strict=True)
    ]
    drawn = mean_finite(np.stack(shares), axis=0)
    low, high = score_interval(task.primary_metric, drawn, resamples, mask)
    of_folds = [np.asarray(result.per_fold[task.primary_metric]) for result in results]
    of_runs = np.array([mean_of_finite(values) for values in of_folds])
    spread = of_runs if len(results) > 1 else of_folds[0]
    spread = spread[np.isfinite(spread)]
    return Scores(
        primary=mean_of_finite(of_runs),
        low=low,
        high=high,
        sd=float(np.std(spread, ddof=1)) if len(spread) > 1 else math.nan,
        baseline=float(
            np.mean(
                [
                    mean_of_finite(result.per_fold[task.primary_metric])
                    for result in score_baselines(labels, folds)
                ]
            )
        ),
        n_clips=int(mask.sum()),
        others={
            column.title: mean_of_finite(np.array([r.value_of(column) for r in results]))
            for column in task.columns(labels.names)
        },
    )


def score_runs(labels: Labels, outputs: Sequence[F64], folds: Sequence[Ints]) -> list[ModelResult]:
    """Return the results of each repeat's predictions."""
    model = Model("", (), ())
    return [
        score_model(labels.task, model, values, labels.y_true, of_run, int(of_run.max()) + 1)
        for values, of_run in zip(outputs, folds, strict=True)
    ]


def score_baselines(labels: Labels, folds: Sequence[Ints]) -> list[ModelResult]:
    """Return the results of predicting each fold from the other folds' labels only."""
    n = len(labels.names)
    return [
        score_baseline(labels.task, labels.y_true, of_run, int(of_run.max()) + 1, n)
        for of_run in folds
    ]


@dataclass(frozen=True)
class Difference:
    """Difference of two primary metrics, first minus second."""

    value: float  # mean over folds and repeats
    # 95 % interval; both variants are scored on the same resamples of groups.
    low: float
    high: float

    def texts(self, labels: Labels) -> tuple[str, ...]:
        """Format value, low and high with signs, in per cent if the metric is in per cent."""
        unit, places = (100, 1) if labels.task.in_percent else (1, 3)
        return tuple(f"{unit * x:+.{places}f}" for x in (self.value, self.low, self.high))


def difference(
    labels: Labels, first: Sequence[F64], second: Sequence[F64], folds: Sequence[Ints]
) -> Difference | None:
    """Return the first score minus the second on clips that both predicted; None if impossible."""
    if not first or not second:
        return None
    resamples = resample_groups(list(labels.groups))
    task, values, shares = labels.task, [], []
    for one, other, assignment in zip(first, second, folds, strict=True):
        pair, k = np.stack([one, other]), int(assignment.max()) + 1
        pair[:, ~np.isfinite(pair).all(axis=(0, 2))] = np.nan
        scores = [
            mean_of_finite(task.primary_per_fold(labels.y_true, outputs, assignment, k))
            for outputs in pair
        ]
        resampled = task.resample_primary(labels.y_true, pair, assignment, k, resamples)
        values.append(scores[0] - scores[1])
        shares.append(resampled[0] - resampled[1])
    drawn = mean_finite(np.stack(shares), axis=0)
    mask = np.asarray(np.isfinite(pair).all(axis=(0, 2)), dtype=np.bool_)
    low, high = score_interval("difference", drawn, resamples, mask)
    return Difference(mean_of_finite(np.array(values)), low, high)
