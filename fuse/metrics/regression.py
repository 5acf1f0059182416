"""Scores of predicted dimensions such as valence and arousal (F9), and their quadrants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.averages import ratio

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# Index of a quadrant in these is what `quadrants` returns.
QUADRANTS = (
    "valence+ arousal+",
    "valence- arousal+",
    "valence- arousal-",
    "valence+ arousal-",
)


@dataclass(frozen=True)
class RegressionScores:
    """Scores of each dimension.

    Parameters
    ----------
    r2
        float64 (dimensions,): coefficient of determination, at most 1; 0 is what the mean
        of the scored clips would get. NaN where the labels do not vary.
    rmse
        float64 (dimensions,): root mean squared error, in the labels' unit.
    ccc
        float64 (dimensions,): Lin's concordance correlation coefficient (Lin 1989), in
        [-1, 1], with variances and covariance over n. NaN where labels and predictions are
        one and the same constant.
    clips
        How many were scored.
    """

    r2: F64
    rmse: F64
    ccc: F64
    clips: int


def regression_scores(labels: F64, predictions: F64) -> RegressionScores:
    """Score predictions.

    Parameters
    ----------
    labels
        float64 (clips, dimensions).
    predictions
        float64 (clips, dimensions); NaN rows are left out.
    """
    there = np.isfinite(predictions).all(axis=1)
    y, p = labels[there].astype(np.float64), predictions[there]
    if not len(y):
        nothing = np.full(labels.shape[1], np.nan)
        return RegressionScores(nothing, nothing.copy(), nothing.copy(), 0)
    my, mp = y.mean(axis=0), p.mean(axis=0)
    squared = ((y - p) ** 2).mean(axis=0)
    var_y, var_p = ((y - my) ** 2).mean(axis=0), ((p - mp) ** 2).mean(axis=0)
    covariance = ((y - my) * (p - mp)).mean(axis=0)
    return RegressionScores(
        r2=1.0 - ratio(squared, var_y),
        rmse=np.sqrt(squared),
        ccc=ratio(2.0 * covariance, var_y + var_p + (my - mp) ** 2),
        clips=len(y),
    )


def quadrants(valence: F64, arousal: F64, centre: tuple[float, float] = (0.0, 0.0)) -> Ints:
    """int64 (clips,): index into `QUADRANTS` of points of the valence-arousal plane.

    Counter-clockwise from high valence and high arousal, as Russell's circumplex is drawn.
    A value on the centre counts as high; NaN in either gives -1.

    Parameters
    ----------
    valence, arousal
        float64 (clips,).
    centre
        Valence and arousal of the neutral point: (0, 0) of ratings in [-1, 1], (5, 5) of
        ratings from 1 to 9.
    """
    pleasant, excited = valence >= centre[0], arousal >= centre[1]
    index = np.where(excited, np.where(pleasant, 0, 1), np.where(pleasant, 3, 2))
    index[np.isnan(valence) | np.isnan(arousal)] = -1
    return index.astype(np.int64)


def quadrant_accuracy(true: Ints, predicted: Ints) -> float:
    """Share of clips in the right quadrant; -1 (no prediction) left out, NaN of none."""
    there = (true >= 0) & (predicted >= 0)
    return float(np.mean(true[there] == predicted[there])) if there.any() else float("nan")
