"""Calibration of predicted probabilities: ECE, Brier score, log loss and temperature.

In every function `y_true` is int64 (clips,) for classes, or int64 (clips, tags) of 0 and 1 for
tags, and `proba` is float64 (clips, classes or tags). Rows of `proba` with NaN stand
for clips without a prediction and are left out.
"""

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.numeric import complete, softmax
from mvemo.manifests.array_types import F64, Bools, Ints

N_BINS = 15
# Edges of the bins of probabilities; a bin includes its upper edge.
EDGES = np.linspace(0.0, 1.0, N_BINS + 1)
# Range of temperatures; outside it, probabilities are practically one-hot or uniform.
COLDEST, HOTTEST = 0.02, 50.0
# Relative precision of temperatures, and the most steps; Newton's method takes about six.
PRECISION, MAX_STEPS = 1e-14, 100
# Smallest probability in the log loss, as in scikit-learn.
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Reliability:
    """Points of a reliability diagram."""

    count: Ints  # (bins,) clips, or pairs of clip and tag, whose probability is in the bin
    confidence: F64  # (bins,) mean probability; NaN for an empty bin
    accuracy: F64  # (bins,) share of correct predictions; NaN for an empty bin
    variance: F64  # (bins,) sum of p (1 - p) over the stated probabilities

    @property
    def ece(self) -> float:
        """Return the expected calibration error (Guo et al. 2017, eq. 3); NaN without clips."""
        filled = self.count > 0
        if not filled.any():
            return np.nan
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.count[filled]))

    @property
    def ece_by_chance(self) -> float:
        """Return the ECE to expect if every stated probability were exact; NaN without clips.

        The number of correct predictions in a bin would then be nearly normal, with a variance of
        sum(p (1 - p)), and its mean distance from sum(p) would be sqrt(2 variance / pi).
        """
        total = self.count.sum()
        return float(np.sqrt(2 / np.pi * self.variance).sum() / total) if total else np.nan


def reliability(y_true: Ints, proba: F64) -> Reliability:
    """Bin predictions by their stated probability, in the bins of `EDGES`.

    For classes, each clip is binned by its largest probability; for tags, each pair of clip and
    tag by its probability.
    """
    y_true, proba = _predicted(y_true, proba)
    stated, correct = _stated_and_correct(y_true, proba)
    stated, correct = stated.ravel(), correct.ravel()
    bins = _bins(stated)
    count = np.bincount(bins, minlength=N_BINS).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, stated, N_BINS) / count
        accuracy = np.bincount(bins, correct, N_BINS) / count
    variance = np.bincount(bins, stated * (1 - stated), N_BINS).astype(np.float64)
    return Reliability(count, confidence, accuracy, variance)


def brier_score(y_true: Ints, proba: F64) -> float:
    """Return the Brier score: a sum over classes, in [0, 2], or a mean over tags, in [0, 1]."""
    y_true, proba = _predicted(y_true, proba)
    if not len(y_true):
        return np.nan
    if y_true.ndim == 2:
        return float(np.square(y_true - proba).mean())
    target = y_true[:, None] == np.arange(proba.shape[1])
    return float(np.square(target - proba).sum(axis=1).mean())


def log_loss(y_true: Ints, proba: F64) -> float:
    """Return the mean log loss in nats, with probabilities raised to `EPS`; NaN without clips."""
    y_true, proba = _predicted(y_true, proba)
    return float(log_losses(y_true, proba).mean()) if len(y_true) else np.nan


def log_losses(y_true: Ints, proba: F64) -> F64:
    """Return the log loss of each clip, float64 (clips,); for tags, it is the mean over tags."""
    return _losses(y_true, proba).mean(axis=1)


def _losses(y_true: Ints, proba: F64) -> F64:
    if y_true.ndim == 2:
        of_truth = np.where(y_true == 1, proba, 1.0 - proba)
    else:
        of_truth = np.take_along_axis(proba, y_true[:, None], axis=1)
    return -np.log(np.clip(of_truth, EPS, 1.0 - EPS))


def calibration_terms(y_true: Ints, proba: F64) -> tuple[F64, F64, F64, F64]:
    """Return terms of Brier score, log loss and ECE of each clip, to be summed over clips.

    These are squared errors, log losses, gaps, and weights. A gap (clips, bins) is the correctness,
    0 or 1, minus the stated probability; a weight is 1, or the number of tags. ECE is the sum over
    bins of abs(sum(gaps)) / sum(weights).
    """
    valid = complete(proba)[:, None]
    p = np.nan_to_num(proba)
    stated, correct = _stated_and_correct(y_true, p)
    target = y_true[:, None] == np.arange(p.shape[1]) if y_true.ndim == 1 else correct
    gaps = np.zeros((len(p), N_BINS))
    np.add.at(gaps, (np.arange(len(p))[:, None], _bins(stated)), correct - stated)
    squares = (np.square(p - target) * valid).sum(axis=1)
    losses = (_losses(y_true, p) * valid).sum(axis=1)
    weights = (valid[:, 0] * float(stated.shape[1])).astype(float)
    return squares, losses, gaps * valid, weights


def log_probabilities(proba: F64) -> F64:
    """Return the logarithms of probabilities, finite at 0; NaN stays NaN."""
    return np.log(np.maximum(proba, np.finfo(np.float64).tiny))


def fit_temperature(scores: F64, y_true: Ints) -> float:
    """Return the temperature of lowest log loss (Guo et al. 2017, 4.2); 1 if all rows are uniform.

    `scores` are logits or log-probabilities (clips, classes) of clips that the model was not
    fitted on. The loss is convex in the inverse temperature, so its slope has one root.
    """
    y_true, scores = _predicted(y_true, scores)
    # z: scores minus the score of the true class; the loss is the mean of logsumexp(b z).
    z = scores - np.take_along_axis(scores, y_true[:, None], axis=1)
    if not z.any():
        return 1.0

    low, high, b = 1 / HOTTEST, 1 / COLDEST, 1.0
    if _slope(z, low)[0] >= 0:
        return HOTTEST
    if _slope(z, high)[0] <= 0:
        return COLDEST
    # Newton's method, and bisection where it leaves the interval.
    for _ in range(MAX_STEPS):
        slope, bend = _slope(z, b)
        low, high = (low, b) if slope > 0 else (b, high)
        last, b = b, b - slope / bend if bend > 0 else low
        if not low <= b <= high:
            b = 0.5 * (low + high)
        if abs(b - last) <= PRECISION * b:
            break
    return 1.0 / b


def _slope(z: F64, b: float) -> tuple[float, float]:
    """Return the first and second derivative of the summed log loss by the inverse temperature."""
    p = softmax(z * b)
    mean = np.einsum("nk,nk->n", p, z)
    return float(mean.sum()), float(np.einsum("nk,nk,nk->", p, z, z) - mean @ mean)


def apply_temperature(proba: F64, temperature: float | F64) -> F64:
    """Return softmax(log p / T) over the last axis; T is a number or (clips, 1)."""
    return softmax(log_probabilities(proba) / temperature)


def _stated_and_correct(y_true: Ints, proba: F64) -> tuple[F64, Bools]:
    """Return stated probabilities (clips, 1 or tags), and True for correct predictions."""
    if y_true.ndim == 2:
        return proba, y_true == 1
    stated = proba.max(axis=1, keepdims=True)
    return stated, (proba.argmax(axis=1) == y_true)[:, None]


def _bins(stated: F64) -> Ints:
    """Return the bin of each probability."""
    return np.clip(np.searchsorted(EDGES, stated) - 1, 0, N_BINS - 1)


def _predicted(y_true: Ints, proba: F64) -> tuple[Ints, F64]:
    valid = complete(proba)
    return y_true[valid], proba[valid]
