"""Calibration of predicted probabilities: ECE, Brier score, log loss and temperature.

In every function `y_true` is int64 (clips,) for classes, or int64 (clips, tags) of 0 and 1 for
tags, and `proba` is float64 (clips, classes or tags). Rows of `proba` with NaN were not
predicted and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.numeric import F64, Bools, Ints

N_BINS = 15
# Range of temperatures; outside it probabilities are practically one-hot or uniform.
COLDEST, HOTTEST = 0.02, 50.0
# scikit-learn's lower bound of a probability in the log loss.
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Reliability:
    """Points of a reliability diagram."""

    edges: F64  # (bins + 1,) from 0 to 1; a bin includes its upper edge
    count: Ints  # (bins,) clips, or pairs of clip and tag, whose probability is in the bin
    confidence: F64  # (bins,) mean probability; NaN for an empty bin
    accuracy: F64  # (bins,) share that is right; NaN for an empty bin

    @property
    def ece(self) -> float:
        """Return the expected calibration error, in [0, 1], 0 best; NaN without clips.

        This is eq. 3 of Guo et al. 2017, "On calibration of modern neural networks":
        ECE = sum over bins of count / n * abs(accuracy - confidence).
        """
        filled = self.count > 0
        if not filled.any():
            return float("nan")
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))


def reliability(y_true: Ints, proba: F64, n_bins: int = N_BINS) -> Reliability:
    """Bin predictions by their stated probability, in bins of equal width.

    Classes are binned by the largest probability of a clip, and `Reliability.accuracy` is the
    share of clips of that class. Tags are binned by every probability, and it is the share of
    pairs of clip and tag where the clip has the tag.

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [np.nan, np.nan]])
    >>> diagram = reliability(np.array([0, 1, 1, 0]), proba, n_bins=2)
    >>> diagram.count.tolist(), diagram.accuracy.round(2).tolist(), round(diagram.ece, 3)
    ([0, 3], [nan, 0.67], 0.1)
    """
    y_true, proba = _predicted(y_true, proba)
    stated, right = _stated_and_right(y_true, proba)
    stated, right = stated.ravel(), right.ravel()
    bins = _bins(stated, n_bins)
    count = np.bincount(bins, minlength=n_bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, weights=stated, minlength=n_bins) / count
        accuracy = np.bincount(bins, weights=right, minlength=n_bins) / count
    return Reliability(np.linspace(0.0, 1.0, n_bins + 1), count, confidence, accuracy)


def brier_score(y_true: Ints, proba: F64) -> float:
    """Return the mean squared distance of probabilities to the truth (Brier 1950), 0 best.

    For classes it is the distance to the one-hot label, summed over classes, in [0, 2]. For tags
    it is the mean over tags, in [0, 1]. NaN without clips.

    Examples
    --------
    >>> proba = np.array([[1.0, 0.0], [0.5, 0.5]])
    >>> brier_score(np.array([0, 1]), proba)
    0.25
    >>> brier_score(np.array([[1, 0], [0, 1]]), proba)
    0.125
    """
    y_true, proba = _predicted(y_true, proba)
    if not len(y_true):
        return float("nan")
    if y_true.ndim == 2:
        return float(np.square(y_true - proba).mean())
    target = y_true[:, None] == np.arange(proba.shape[1])
    return float(np.square(target - proba).sum(axis=1).mean())


def log_loss(y_true: Ints, proba: F64) -> float:
    """Return the mean negative log-likelihood over clips, or clips and tags, in nats, 0 best.

    Probabilities are at least 2.2e-16, as in scikit-learn, so that the loss is finite. NaN
    without clips.

    Examples
    --------
    >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]])), 4)
    1.0397
    """
    y_true, proba = _predicted(y_true, proba)
    return float(log_losses(y_true, proba).mean()) if len(y_true) else float("nan")


def log_losses(y_true: Ints, proba: F64) -> F64:
    """Return the log loss of each clip, float64 (clips,); for tags the mean over tags."""
    return np.asarray(_losses(y_true, proba).mean(axis=1))


def _losses(y_true: Ints, proba: F64) -> F64:
    """Return the log loss of each clip, (clips, 1), or of each clip and tag."""
    if y_true.ndim == 2:
        of_truth = np.where(y_true == 1, proba, 1.0 - proba)
    else:
        of_truth = np.take_along_axis(proba, y_true[:, None], axis=1)
    return np.asarray(-np.log(np.clip(of_truth, EPS, 1.0 - EPS)))


def calibration_terms(y_true: Ints, proba: F64, n_bins: int = N_BINS) -> tuple[F64, F64, F64, F64]:
    """Return the terms of Brier score, log loss and ECE, which can be summed over any clips.

    Returns squared errors (clips,), log losses (clips,), gaps (clips, bins) of right minus stated
    probability, and weights (clips,): 1, or the number of tags. Rows with NaN have terms of 0.
    With sums over clips, `brier_score` is sum(squares) / sum(weights), `log_loss` is
    sum(losses) / sum(weights), and ECE is the sum over bins of abs(sum(gaps)) / sum(weights).
    """
    valid = complete(proba)[:, None]
    p = np.nan_to_num(proba)
    stated, right = _stated_and_right(y_true, p)
    target = y_true[:, None] == np.arange(p.shape[1]) if y_true.ndim == 1 else right
    gaps = np.zeros((len(p), n_bins))
    np.add.at(gaps, (np.arange(len(p))[:, None], _bins(stated, n_bins)), right - stated)
    squares: F64 = (np.square(p - target) * valid).sum(axis=1)
    losses: F64 = (_losses(y_true, p) * valid).sum(axis=1)
    weights = (valid[:, 0] * float(stated.shape[1])).astype(np.float64)
    return squares, losses, gaps * valid, weights


def log_probabilities(proba: F64) -> F64:
    """Return the logarithms of probabilities, finite at 0; NaN stays NaN."""
    result: F64 = np.log(np.maximum(proba, np.finfo(np.float64).tiny))
    return result


def fit_temperature(scores: F64, y_true: Ints) -> float:
    """Return the temperature T that minimises the log loss (Guo et al. 2017, section 4.2).

    `scores` are logits or log-probabilities (clips, classes) of clips that the model was not
    fitted on; rows with NaN are left out. The loss is convex in 1 / T, so its slope has one root.
    T is 1 without clips and if all rows are uniform.

    Examples
    --------
    Two clips are predicted with 90 %, and one is right: 50 % would be correct, which no finite
    temperature gives.

    >>> scores = np.log([[0.9, 0.1], [0.9, 0.1]])
    >>> fit_temperature(scores, np.array([0, 1]))
    50.0

    If three of four are right, 75 % is correct:

    >>> temperature = fit_temperature(scores[[0, 0, 0, 0]], np.array([0, 0, 0, 1]))
    >>> round(temperature, 6)
    2.0
    >>> apply_temperature(np.array([0.9, 0.1]), temperature).round(6)
    array([0.75, 0.25])
    """
    y_true, scores = _predicted(y_true, scores)
    # Scores relative to the true class: the loss is the mean of logsumexp(b z).
    z = scores - np.take_along_axis(scores, y_true[:, None], axis=1)
    if not z.any():
        return 1.0

    def slope(b: float) -> float:
        scaled = z * b
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return float((p * z).sum())

    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    if slope(1 / COLDEST) <= 0:
        return COLDEST
    return 1.0 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-14, rtol=1e-14))


def apply_temperature(proba: F64, temperature: float | F64) -> F64:
    """Return softmax(log p / T) over the last axis; rows with NaN stay NaN.

    A temperature per clip has the shape (clips, 1).
    """
    z = log_probabilities(proba) / temperature
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    result: F64 = exp / exp.sum(axis=-1, keepdims=True)
    return result


def _stated_and_right(y_true: Ints, proba: F64) -> tuple[F64, Bools]:
    """Return stated probabilities (clips, 1 or tags), and True where the prediction was right."""
    if y_true.ndim == 2:
        return proba, y_true == 1
    stated = np.asarray(proba.max(axis=1, keepdims=True), dtype=np.float64)
    return stated, np.asarray(proba.argmax(axis=1) == y_true, dtype=np.bool_)[:, None]


def _bins(stated: F64, n_bins: int) -> Ints:
    """Return the bin of each probability; a bin includes its upper edge."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins: Ints = np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, n_bins - 1)
    return bins


def _predicted(y_true: Ints, proba: F64) -> tuple[Ints, F64]:
    """Return both arrays without the rows that contain NaN."""
    valid = complete(proba)
    return y_true[valid], proba[valid]
