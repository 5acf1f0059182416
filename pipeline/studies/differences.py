"""Difference between the scores of two variants on the same clips, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.averages import mean_finite, mean_of_finite
from mvemo.fuse.statistics.resamples import Resamples, percentile_interval, resample_groups
from mvemo.pipeline.studies.comparison import Compared
from mvemo.pipeline.studies.scores import Labels


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
