"""Scores of predicted targets such as valence and arousal, and their quadrants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.metrics.averages import complete, ratio
from mvemo.fuse.numeric import F64, Ints

# `quadrants` returns an index into these.
QUADRANTS = (
    "valence+ arousal+",
    "valence- arousal+",
    "valence- arousal-",
    "valence+ arousal-",
)


@dataclass(frozen=True)
class RegressionScores:
    """Scores of each target; arrays are float64 (targets,)."""

    # Coefficient of determination, at most 1; always predicting the mean of the scored clips
    # gives 0. NaN if the labels do not vary.
    r2: F64
    rmse: F64  # root mean squared error, in the labels' unit
    ccc: F64  # Lin's concordance correlation coefficient, see `concordance`
    pearson_r: F64  # Pearson's correlation, see `pearson`
    mae: F64  # mean absolute error, in the labels' unit
    clips: int  # number of scored clips


NAMES = ("r2", "rmse", "ccc", "pearson_r", "mae")


def regression_scores(y_true: F64, y_pred: F64) -> RegressionScores:
    """Score predictions (clips, targets); rows with NaN are left out.

    Examples
    --------
    >>> scores = regression_scores(np.array([[0.0], [1.0]]), np.array([[0.0], [0.5]]))
    >>> scores.r2, scores.rmse.round(3), scores.ccc.round(3)
    (array([0.5]), array([0.354]), array([0.667]))
    """
    valid = complete(y_pred)
    y, p = y_true[valid].astype(np.float64), y_pred[valid]
    if not len(y):
        nothing = np.full(y_true.shape[1], np.nan)
        return RegressionScores(**{name: nothing.copy() for name in NAMES}, clips=0)
    squares = np.square(y - p)
    return RegressionScores(
        r2=1.0 - ratio(squares.sum(axis=0), np.square(y - y.mean(axis=0)).sum(axis=0)),
        rmse=np.sqrt(squares.mean(axis=0)),
        ccc=concordance(y, p),
        pearson_r=pearson(y, p),
        mae=np.abs(y - p).mean(axis=0),
        clips=len(y),
    )


def concordance(y_true: F64, y_pred: F64) -> F64:
    """Return Lin's concordance correlation coefficient of each target (Lin 1989, eq. 1).

    CCC = 2 cov(y, p) / (var(y) + var(p) + (mean(y) - mean(p))^2), with variances and covariance
    over n. It lies in [-1, 1]; NaN if labels and predictions are the same constant.
    """
    mean_y, mean_p = y_true.mean(axis=0), y_pred.mean(axis=0)
    var_y, var_p = y_true.var(axis=0), y_pred.var(axis=0)
    covariance = ((y_true - mean_y) * (y_pred - mean_p)).mean(axis=0)
    return ratio(2.0 * covariance, var_y + var_p + (mean_y - mean_p) ** 2)


def pearson(y_true: F64, y_pred: F64) -> F64:
    """Return Pearson's correlation of each target, in [-1, 1].

    It is NaN if labels or predictions do not vary.

    Examples
    --------
    >>> pearson(np.array([[1.0], [2.0], [4.0]]), np.array([[2.0], [4.0], [8.0]])).round(6)
    array([1.])
    """
    y, p = y_true - y_true.mean(axis=0), y_pred - y_pred.mean(axis=0)
    # The deviations of a constant are not exactly 0 if its mean is rounded.
    varies = (np.ptp(y_true, axis=0) > 0) & (np.ptp(y_pred, axis=0) > 0)
    scale = np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
    return ratio((y * p).sum(axis=0), np.where(varies, scale, 0.0))


def quadrants(valence: F64, arousal: F64, centre: tuple[float, float] = (0.0, 0.0)) -> Ints:
    """Return the index in `QUADRANTS` of points in the valence-arousal plane, int64 (clips,).

    Quadrants run counter-clockwise from high valence and high arousal, as in Russell's
    circumplex. `centre` is the neutral point: (0, 0) for ratings in [-1, 1], (5, 5) for ratings
    from 1 to 9. A value on the centre counts as high; NaN in either value gives -1.
    """
    pleasant, excited = valence >= centre[0], arousal >= centre[1]
    index = np.where(excited, np.where(pleasant, 0, 1), np.where(pleasant, 3, 2))
    index[np.isnan(valence) | np.isnan(arousal)] = -1
    return index.astype(np.int64)


def quadrant_accuracy(y_true: Ints, y_pred: Ints) -> float:
    """Return the share of clips in the right quadrant; -1 is left out, NaN if none remains."""
    valid = (y_true >= 0) & (y_pred >= 0)
    return float(np.mean(y_true[valid] == y_pred[valid])) if valid.any() else float("nan")
