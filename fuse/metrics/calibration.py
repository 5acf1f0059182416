"""How far predicted probabilities can be believed: ECE, Brier score, temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
# Temperatures are sought between these: beyond, probabilities are one-hot or even.
COLDEST, HOTTEST = 0.02, 50.0
# Largest step in T over T at which the search stops.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability diagram.

    Parameters
    ----------
    edges
        float64 (bins + 1,), from 0 to 1; a bin holds its upper edge.
    count
        int64 (bins,): clips whose largest probability is in the bin, or pairs of clip and
        tag.
    confidence, accuracy
        float64 (bins,): the mean of that probability and the share that is right; NaN in
        an empty bin.
    """

    edges: F64
    count: Ints
    confidence: F64
    accuracy: F64

    @property
    def ece(self) -> float:
        """Expected calibration error: see `expected_calibration_error`."""
        held = self.count > 0
        if not held.any():
            return float("nan")
        gap = np.abs(self.accuracy[held] - self.confidence[held])
        return float(np.average(gap, weights=self.count[held]))


def reliability(labels: Ints, probabilities: F64, bins: int = BINS) -> Reliability:
    """Bin clips by their largest probability, in bins of equal width.

    Parameters
    ----------
    labels
        int64 (clips,).
    probabilities
        float64 (clips, classes); NaN rows are left out.
    """
    labels, probabilities = _predicted(labels, probabilities)
    right = probabilities.argmax(axis=1) == labels
    return _binned(probabilities.max(axis=1), np.asarray(right, dtype=np.bool_), bins)


def tag_reliability(labels: Ints, probabilities: F64, bins: int = BINS) -> Reliability:
    """Bin pairs of clip and tag by the probability of the tag, in bins of equal width.

    `Reliability.accuracy` is then the share of pairs where the clip has the tag.

    Parameters
    ----------
    labels
        int64 (clips, tags), 0 or 1.
    probabilities
        float64 (clips, tags); NaN rows are left out.
    """
    labels, probabilities = _predicted(labels, probabilities)
    return _binned(probabilities.ravel(), labels.ravel().astype(np.bool_), bins)


def tag_brier_score(labels: Ints, probabilities: F64) -> float:
    """Mean squared error of a tag's probability, over clips and tags: in [0, 1], 0 best.

    NaN of no clips. Shapes as in `tag_reliability`.
    """
    labels, probabilities = _predicted(labels, probabilities)
    return float(np.square(probabilities - labels).mean()) if len(labels) else float("nan")


def tag_log_loss(labels: Ints, probabilities: F64) -> float:
    """Mean negative log-likelihood over clips and tags, in nats; NaN of no clips.

    A probability of 0 counts as the smallest positive number. Shapes as in
    `tag_reliability`.
    """
    labels, probabilities = _predicted(labels, probabilities)
    if not len(labels):
        return float("nan")
    right = np.where(labels == 1, probabilities, 1.0 - probabilities)
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(labels: Ints, probabilities: F64, bins: int = BINS) -> float:
    """Mean gap of confidence and accuracy over equal-width bins, weighted by their clips.

    Guo et al. 2017, "On calibration of modern neural networks", eq. 3. In [0, 1], 0 best;
    NaN of no clips. Shapes as in `reliability`.
    """
    return reliability(labels, probabilities, bins).ece


def brier_score(labels: Ints, probabilities: F64) -> float:
    """Mean over clips of the squared distance to the one-hot label (Brier 1950).

    The sum over all classes, so in [0, 2], 0 best; NaN of no clips. Shapes as in
    `reliability`.
    """
    labels, probabilities = _predicted(labels, probabilities)
    if not len(labels):
        return float("nan")
    target = labels[:, None] == np.arange(probabilities.shape[1])
    return float(((probabilities - target) ** 2).sum(axis=1).mean())


def log_loss(labels: Ints, probabilities: F64) -> float:
    """Mean negative log-likelihood in nats; NaN of no clips. Shapes as in `reliability`.

    A probability of 0 counts as the smallest positive number, so that the loss is finite.
    """
    labels, probabilities = _predicted(labels, probabilities)
    if not len(labels):
        return float("nan")
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


def calibration_terms(
    labels: Ints, probabilities: F64, bins: int = BINS
) -> tuple[F64, F64, F64, F64]:
    """What Brier score, log loss and ECE of any selection of clips are sums of.

    Over the sum of the weights: the sums of the first two are `brier_score` and `log_loss`
    (`tag_brier_score`, `tag_log_loss`), and the sum over bins of the absolute sums of the
    gaps is the expected calibration error.

    Parameters
    ----------
    labels
        int64 (clips,) of classes, or (clips, tags) of 0 and 1.
    probabilities
        float64 (clips, classes or tags); NaN rows have terms of 0.

    Returns
    -------
    float64 (clips,) squared errors, (clips,) log losses, (clips, bins) shares right minus
    probabilities stated, and (clips,) weights: the clips, or pairs of clip and tag, that a
    row is.
    """
    there = np.asarray(np.isfinite(probabilities).all(axis=1), dtype=np.bool_)[:, None]
    p = np.nan_to_num(probabilities)
    if labels.ndim == 1:
        truth = labels[:, None]
        target = np.asarray(truth == np.arange(p.shape[1]), dtype=np.bool_)
        stated = np.asarray(p.max(axis=1, keepdims=True), dtype=np.float64)
        right = np.asarray(p.argmax(axis=1, keepdims=True) == truth, dtype=np.bool_)
        of_truth = np.asarray(np.take_along_axis(p, truth, axis=1), dtype=np.float64)
    else:
        target = np.asarray(labels == 1, dtype=np.bool_)
        stated, right = p, target
        of_truth = np.asarray(np.where(target, p, 1.0 - p), dtype=np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, bins - 1)
    gaps = np.zeros((len(p), bins))
    np.add.at(gaps, (np.arange(len(p))[:, None], where), right - stated)
    loss = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))
    found = (
        (np.square(p - target) * there).sum(axis=1),
        (loss * there).sum(axis=1),
        gaps * there,
        there[:, 0] * float(stated.shape[1]),
    )
    squares, losses, gaps, weight = (np.asarray(terms, dtype=np.float64) for terms in found)
    return squares, losses, gaps, weight


def log_probabilities(probabilities: F64) -> F64:
    """Their logarithms, finite at 0; NaN stay NaN."""
    result: F64 = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return result


def fit_temperature(scores: F64, labels: Ints) -> float:
    """The temperature that minimises the negative log-likelihood of one model.

    As `fit_temperatures`, of float64 (clips, classes).
    """
    return float(fit_temperatures(scores[None], labels)[0])


def fit_temperatures(scores: F64, labels: Ints) -> F64:
    """Temperatures of many models or folds at once (Guo et al. 2017, section 4.2).

    In b = 1 / T the loss is convex. Newton's steps on it are held inside a shrinking
    bracket, which is bisected where a step would leave it or the steps do not halve (on
    the tail of a separable set they would creep).

    Parameters
    ----------
    scores
        float64 (problems, clips, classes): logits or log-probabilities (of
        `log_probabilities`) of clips that the model was not fitted on, as the inner
        out-of-fold predictions of a training fold; NaN rows are left out.
    labels
        int64 (clips,).

    Returns
    -------
    float64 (problems,), in [`COLDEST`, `HOTTEST`]; 1 where a problem has no clips or where
    the temperature changes nothing (all rows even).
    """
    there = np.asarray(np.isfinite(scores).all(axis=2), dtype=np.bool_)
    z = np.where(there[:, :, None], scores, 0.0)
    # Scores of the right class as zero: the loss is the mean of logsumexp(b z).
    z = z - np.take_along_axis(z, np.broadcast_to(labels[None, :, None], (*z.shape[:2], 1)), 2)
    low = np.full(len(z), 1 / HOTTEST)
    high = np.full(len(z), 1 / COLDEST)
    b = np.ones(len(z))
    last = np.full(len(z), np.inf)
    active = there.any(axis=1) & (np.abs(z).max(axis=(1, 2)) > 0)
    for _ in range(200):
        if not active.any():
            break
        slope, curvature = _slopes(z[active], there[active], b[active])
        low[active] = np.where(slope < 0, b[active], low[active])
        high[active] = np.where(slope > 0, b[active], high[active])
        step = np.divide(slope, curvature, out=np.full_like(slope, np.inf), where=curvature > 0)
        step[slope == 0] = 0.0
        new = b[active] - step
        good = (new >= low[active]) & (new <= high[active]) & (np.abs(step) <= last[active] / 2)
        new = np.where(good, new, (low[active] + high[active]) / 2)
        last[active] = np.abs(new - b[active])
        moved = last[active] > TOLERANCE * b[active]
        b[active] = new
        active[active] = moved
    return 1.0 / b


def apply_temperature(probabilities: F64, temperature: float | F64) -> F64:
    """softmax(log p / T), float64 of the same shape; NaN rows stay NaN.

    Parameters
    ----------
    probabilities
        float64 (..., clips, classes).
    temperature
        A number, or an array that broadcasts against `probabilities`: of one temperature a
        clip, float64 (clips, 1).
    """
    z = log_probabilities(probabilities) / temperature
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    result: F64 = exp / exp.sum(axis=-1, keepdims=True)
    return result


def _binned(stated: F64, right: NDArray[np.bool_], bins: int) -> Reliability:
    """Of probabilities (n,) and what they were of (n,)."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(where, weights=stated, minlength=bins) / count
        accuracy = np.bincount(where, weights=right, minlength=bins) / count
    return Reliability(edges, count, confidence, accuracy)


def _slopes(z: F64, there: NDArray[np.bool_], b: F64) -> tuple[F64, F64]:
    """First and second derivative in b of the summed logsumexp(b z), by problem."""
    scaled = z * b[:, None, None]
    p = np.exp(scaled - scaled.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    mean = (p * z).sum(axis=2)
    variance = (p * (z - mean[:, :, None]) ** 2).sum(axis=2)
    return (mean * there).sum(axis=1), (variance * there).sum(axis=1)


def _predicted(labels: Ints, probabilities: F64) -> tuple[Ints, F64]:
    """Both without the rows that hold NaN."""
    there = np.isfinite(probabilities).all(axis=1)
    return labels[there], probabilities[there]
