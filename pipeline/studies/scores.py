"""How well clips were predicted out of fold, over one repeat or several, for any task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.bootstrap import percentile_interval, resample_groups
from mvemo.fuse.metrics.averages import mean_finite, mean_of_finite
from mvemo.fuse.models import Model
from mvemo.fuse.results import ModelResult, score_baseline, score_model
from mvemo.fuse.tasks.base import Task
from mvemo.fuse.tasks.registry import task_of
from mvemo.manifests import Manifest

_ANY = Model("", (), ())


@dataclass(frozen=True)
class Labels:
    """What the predictions of a manifest's clips are scored against."""

    task: Task  # how they are scored
    names: tuple[str, ...]  # classes, tags or targets
    y_true: NDArray[Any]  # as `Task.read_labels` gives them
    groups: tuple[str, ...]  # one a clip

    @classmethod
    def of(cls, manifest: Manifest) -> Labels:
        """Of all clips of a manifest, in its order."""
        task = task_of(manifest.task)
        y_true = task.read_labels(np.asarray(manifest.labels))
        task = task.for_labels(manifest.classes, y_true, manifest.scale)
        return cls(task, manifest.classes, y_true, manifest.groups)


@dataclass(frozen=True)
class Scores:
    """How well clips were predicted out of fold.

    Parameters
    ----------
    primary
        The task's primary metric (accuracy of classes, macro ROC-AUC of tags, R2 of
        ratings): mean over folds, and over repeats.
    low, high
        Its 95 % interval by bootstrapping groups.
    sd
        Its standard deviation: over repeats where there are any, else over folds.
    others
        Title of each further column that the task has in a terminal, to its score.
    baseline
        The primary metric of what knows the training folds' labels alone.
    n_clips
        How many were predicted.
    """

    primary: float
    low: float
    high: float
    sd: float
    baseline: float
    n_clips: int
    others: Mapping[str, float] = field(default_factory=dict)


# Of predictions that there are not.
NO_SCORES = Scores(math.nan, math.nan, math.nan, math.nan, math.nan, 0)


def score(labels: Labels, outputs: Sequence[F64], folds: Sequence[Ints]) -> Scores:
    """Scores of out-of-fold predictions, of each repeat NaN where there is none.

    `folds` is -1 for clips that are not tested.
    """
    task, y_true = labels.task, labels.y_true
    mask = np.asarray(np.isfinite(np.stack(outputs)).all(axis=(0, 2)), dtype=np.bool_)
    outputs = [np.where(mask[:, None], values, np.nan) for values in outputs]
    resamples = resample_groups(list(labels.groups))
    results, shares = [], []
    for values, assignment in zip(outputs, folds, strict=True):
        k = int(assignment.max()) + 1
        results.append(score_model(task, _ANY, values, y_true, assignment, k))
        shares.append(task.resample_primary(y_true, values[None], assignment, k, resamples)[0])
    low, high = percentile_interval(mean_finite(np.stack(shares), axis=0))
    of_runs = [_primary(task, result) for result in results]
    of_folds = np.asarray(results[0].per_fold[task.primary_metric], dtype=np.float64)
    spread = np.array(of_runs) if len(results) > 1 else of_folds
    spread = spread[np.isfinite(spread)]
    return Scores(
        primary=mean_of_finite(np.array(of_runs)),
        low=float(low),
        high=float(high),
        sd=float(np.std(spread, ddof=1)) if len(spread) > 1 else math.nan,
        baseline=float(np.mean([baseline_score(labels, assignment) for assignment in folds])),
        n_clips=int(mask.sum()),
        others={
            column.title: mean_of_finite(np.array([r.value_of(column) for r in results]))
            for column in task.columns(labels.names)
            if column.terminal
        },
    )


def baseline_score(labels: Labels, folds: Ints) -> float:
    """Primary metric of predicting each fold from the other folds' labels alone."""
    k, n_outputs = int(folds.max()) + 1, len(labels.names)
    result = score_baseline(labels.task, labels.y_true, folds, k, n_outputs)
    return _primary(labels.task, result)


def _primary(task: Task, result: ModelResult) -> float:
    return mean_of_finite(result.per_fold[task.primary_metric])
