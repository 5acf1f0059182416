"""Scores of multi-label predictions (F8), and the thresholds that make them decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mvemo.fuse.metrics.averages import complete, mean_of_finite, ratio

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Of a tag whose training clips allow no other.
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class MultilabelScores:
    """Scores of every tag, and over all tags.

    Parameters
    ----------
    precision, recall, f1
        float64 (tags,): of the decisions; 0 where 0 / 0, but NaN for a tag that is neither
        true nor decided anywhere.
    roc_auc
        float64 (tags,): ties counted half; NaN for a tag that all or no clips have.
    average_precision
        float64 (tags,): without interpolation; NaN for a tag that no clip has.
    support
        int64 (tags,): clips that have the tag.
    macro
        Those names to their mean over the tags where they are not NaN.
    micro
        Those names to their value over all (clip, tag) pairs as one.
    """

    precision: F64
    recall: F64
    f1: F64
    roc_auc: F64
    average_precision: F64
    support: Ints
    macro: dict[str, float]
    micro: dict[str, float]


NAMES = ("precision", "recall", "f1", "roc_auc", "average_precision")


def decide(probabilities: F64, thresholds: F64 | float = DEFAULT_THRESHOLD) -> Bools:
    """bool, of the shape of `probabilities`: at or above the threshold; NaN never is.

    `thresholds` broadcasts: float64 (tags,), or (clips, tags) where they differ by fold.
    """
    return np.asarray(probabilities >= thresholds, dtype=np.bool_)


def multilabel_scores(y_true: Ints, proba: F64, y_pred: Bools | None = None) -> MultilabelScores:
    """Score probabilities of tags, and the decisions made of them.

    Parameters
    ----------
    y_true
        int64 (clips, tags), 0 or 1.
    proba
        float64 (clips, tags); NaN rows are left out.
    y_pred
        bool (clips, tags), of `decide`; None for its default threshold.
    """
    y_pred = decide(proba) if y_pred is None else y_pred
    valid = complete(proba)
    true, p, decided = y_true[valid].astype(np.bool_), proba[valid], y_pred[valid]
    per_tag = (*_decision_scores(true, decided), roc_auc(true, p), average_precision(true, p))
    pairs = true.reshape(-1, 1), p.reshape(-1, 1)
    pooled = (
        *_decision_scores(pairs[0], decided.reshape(-1, 1)),
        roc_auc(*pairs),
        average_precision(*pairs),
    )
    return MultilabelScores(
        *per_tag,
        support=true.sum(axis=0).astype(np.int64),
        macro={name: mean_of_finite(v) for name, v in zip(NAMES, per_tag, strict=True)},
        micro={name: float(v[0]) for name, v in zip(NAMES, pooled, strict=True)},
    )


def roc_auc(truth: Bools, scores: F64) -> F64:
    """float64 (tags,): area under each tag's ROC curve; NaN with one class alone.

    Parameters
    ----------
    truth
        bool (clips, tags).
    scores
        float64 (clips, tags).
    """
    n_true = truth.sum(axis=0).astype(np.float64)
    n_false = len(truth) - n_true
    if not len(truth):
        return np.full(truth.shape[1], np.nan)
    ranks = np.asarray(rankdata(scores, axis=0), dtype=np.float64)
    above = np.where(truth, ranks, 0.0).sum(axis=0) - n_true * (n_true + 1) / 2
    return ratio(above, n_true * n_false)


def average_precision(truth: Bools, scores: F64) -> F64:
    """float64 (tags,): sum of recall gained times precision over each tag's distinct scores.

    NaN for a tag that no clip has. Shapes as in `roc_auc`.
    """
    if not len(truth):
        return np.full(truth.shape[1], np.nan)
    _, hits, ends = _descending(truth, scores)
    precision = hits / np.arange(1, len(truth) + 1)[:, None]
    # Hits gained since the distinct score before, at the last clip of each.
    reached = np.where(ends, hits, 0.0)
    before = np.vstack([np.zeros((1, truth.shape[1])), np.maximum.accumulate(reached)[:-1]])
    gained = np.where(ends, hits - before, 0.0)
    return ratio((gained * precision).sum(axis=0), truth.sum(axis=0).astype(np.float64))


def best_thresholds(probabilities: F64, labels: Ints) -> F64:
    """The threshold of each tag that makes its F1 largest.

    To be fitted on inner out-of-fold predictions of the training clips, never on the clips
    to be scored. Between the two neighbouring probabilities their middle is taken; of equal
    F1 the highest threshold.

    Parameters
    ----------
    probabilities
        float64 (clips, tags); NaN rows are left out.
    labels
        int64 (clips, tags), 0 or 1.

    Returns
    -------
    float64 (tags,), for `decide`; `DEFAULT_THRESHOLD` for a tag that no clip has.
    """
    there = np.isfinite(probabilities).all(axis=1)
    truth, p = labels[there].astype(np.bool_), probabilities[there]
    result = np.full(p.shape[1], DEFAULT_THRESHOLD)
    if not len(p):
        return result
    ordered, hits, ends = _descending(truth, p)
    n_true = truth.sum(axis=0)
    f1 = 2 * hits / (np.arange(1, len(p) + 1)[:, None] + n_true)
    best = np.where(ends, f1, -1.0).argmax(axis=0)
    columns = np.arange(p.shape[1])
    lowest_said = ordered[best, columns]
    next_down = ordered[np.minimum(best + 1, len(p) - 1), columns]
    middle = (lowest_said + next_down) / 2
    # Of neighbouring floating-point numbers the middle may round down to the lower one.
    middle = np.where(middle > next_down, middle, lowest_said)
    held = n_true > 0
    result[held] = middle[held]
    return result


def _descending(truth: Bools, scores: F64) -> tuple[F64, F64, Bools]:
    """Scores in falling order by tag, hits so far, and where a distinct score ends."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(truth, order, axis=0), axis=0).astype(np.float64)
    last = np.ones((1, scores.shape[1]), dtype=np.bool_)
    return ordered, hits, np.vstack([ordered[1:] != ordered[:-1], last])


def _decision_scores(truth: Bools, said: Bools) -> tuple[F64, F64, F64]:
    """Precision, recall and F1 of each tag, float64 (tags,)."""
    right = (truth & said).sum(axis=0).astype(np.float64)
    chosen, held = said.sum(axis=0), truth.sum(axis=0)
    neither = chosen + held == 0
    result = []
    for numerator, denominator in ((right, chosen), (right, held), (2 * right, chosen + held)):
        score = np.nan_to_num(ratio(numerator, denominator.astype(np.float64)))
        score[neither] = np.nan
        result.append(score)
    return result[0], result[1], result[2]
