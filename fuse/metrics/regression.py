"""Scores of predicted targets such as valence and arousal, and their quadrants."""

from __future__ import annotations

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.averages import Measures, mean_of_finite, ratio

# `quadrants` returns an index into these.
QUADRANTS = (
    "valence+ arousal+",
    "valence- arousal+",
    "valence- arousal-",
    "valence+ arousal-",
)


def regression_scores(y_true: F64, y_pred: F64) -> Measures:
    """Score predictions (clips, targets) of each target, and by the means over targets.

    ``r2`` is the coefficient of determination: at most 1, 0 for always predicting the mean of
    the scored clips, NaN if the labels do not vary. ``rmse`` and ``mae`` are root mean squared
    and mean absolute error, in the labels' unit. ``ccc`` is Lin's concordance correlation
    coefficient (Lin 1989, eq. 1), in [-1, 1],

        CCC = 2 cov(y, p) / (var(y) + var(p) + (mean(y) - mean(p))^2),

    with variances and covariance over n; NaN if labels and predictions are the same constant.
    ``pearson_r`` is Pearson's correlation, in [-1, 1]; NaN if labels or predictions do not vary.

    Examples
    --------
    >>> scores = regression_scores(np.array([[0.0], [1.0]]), np.array([[0.0], [0.5]])).per_output
    >>> scores["r2"], scores["rmse"].round(3), scores["ccc"].round(3)
    (array([0.5]), array([0.354]), array([0.667]))
    """
    if not len(y_true):
        nothing = np.full(y_true.shape[1], np.nan)
        per_target = dict.fromkeys(("r2", "rmse", "ccc", "pearson_r", "mae"), nothing)
    else:
        errors = y_true - y_pred
        squares = np.square(errors)
        y, p = y_true - y_true.mean(axis=0), y_pred - y_pred.mean(axis=0)
        spread = y_true.var(axis=0) + y_pred.var(axis=0)
        spread = spread + (y_true.mean(axis=0) - y_pred.mean(axis=0)) ** 2
        # The deviations of a constant are not exactly 0 if its mean is rounded.
        varies = (np.ptp(y_true, axis=0) > 0) & (np.ptp(y_pred, axis=0) > 0)
        scale = np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
        per_target = {
            "r2": 1.0 - ratio(squares.sum(axis=0), np.square(y).sum(axis=0)),
            "rmse": np.sqrt(squares.mean(axis=0)),
            "ccc": ratio(2.0 * (y * p).mean(axis=0), spread),
            "pearson_r": ratio((y * p).sum(axis=0), np.where(varies, scale, 0.0)),
            "mae": np.abs(errors).mean(axis=0),
        }
    means = {f"{name}_macro": mean_of_finite(values) for name, values in per_target.items()}
    return Measures(means, per_target)


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
