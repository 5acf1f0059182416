"""Calibration of class and tag probabilities in each resample of groups."""

from __future__ import annotations

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.calibration import calibration_terms
from mvemo.fuse.statistics.resamples import Resamples


def resample_calibration(y_true: Ints, outputs: F64, resamples: Resamples) -> dict[str, F64]:
    """Return ``ece``, ``brier`` and ``log_loss``, each float64 (models, resamples).

    `outputs` is float64 (models, clips, classes or tags); NaN rows were not predicted.
    """
    drawn: dict[str, list[F64]] = {"ece": [], "brier": [], "log_loss": []}
    for proba in outputs:
        brier, loss, gaps, weight = calibration_terms(y_true, proba)
        sums = resamples.sums(np.column_stack([brier, loss, weight, gaps]))
        n = np.where(sums[:, 2] > 0, sums[:, 2], np.nan)
        drawn["brier"].append(sums[:, 0] / n)
        drawn["log_loss"].append(sums[:, 1] / n)
        drawn["ece"].append(np.abs(sums[:, 3:]).sum(axis=1) / n)
    return {name: np.array(values) for name, values in drawn.items()}
