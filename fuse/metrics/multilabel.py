"""Scores of multi-label predictions, and the thresholds that make them decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.metrics.multiclass import precision_recall_f1
from mvemo.fuse.metrics.ranking import average_precision, rank_columns, roc_auc

# Of a tag whose training clips allow no other.
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class MultilabelScores:
    """Scores of every tag, and over all tags."""

    # Float64 (tags,): of the decisions; 0 where 0 / 0, but NaN for a tag that is neither true
    # nor decided anywhere.
    precision: F64
    # Float64 (tags,): of the decisions; 0 where 0 / 0, but NaN for a tag that is neither true
    # nor decided anywhere.
    recall: F64
    # Float64 (tags,): of the decisions; 0 where 0 / 0, but NaN for a tag that is neither true
    # nor decided anywhere.
    f1: F64
    roc_auc: F64  # float64 (tags,): ties counted half; NaN for a tag that all or no clips have
    average_precision: F64  # float64 (tags,): without interpolation; NaN for a tag that no clip has
    support: Ints  # int64 (tags,): clips that have the tag
    macro: dict[str, float]  # those names to their mean over the tags where they are not NaN
    micro: dict[str, float]  # those names to their value over all (clip, tag) pairs as one


NAMES = ("precision", "recall", "f1", "roc_auc", "average_precision")


def decide(proba: F64, thresholds: F64 | float = DEFAULT_THRESHOLD) -> Bools:
    """bool, of the shape of `proba`: at or above the threshold; NaN never is.

    `thresholds` broadcasts: float64 (tags,), or (clips, tags) where they differ by fold.
    """
    return np.asarray(proba >= thresholds, dtype=np.bool_)


def multilabel_scores(y_true: Ints, proba: F64, y_pred: Bools | None = None) -> MultilabelScores:
    """Score probabilities of tags, and the decisions made of them."""
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


def best_thresholds(proba: F64, y_true: Ints) -> F64:
    """The threshold of each tag that makes its F1 largest.

    To be fitted on inner out-of-fold predictions of the training clips, never on the clips
    to be scored. Between the two neighbouring probabilities their middle is taken; of equal
    F1 the highest threshold.

    Examples
    --------
    >>> best_thresholds(np.array([[0.9], [0.6], [0.2]]), np.array([[1], [1], [0]]))
    array([0.4])
    """
    valid = complete(proba)
    positive, p = y_true[valid].astype(np.bool_), proba[valid]
    thresholds = np.full(p.shape[1], DEFAULT_THRESHOLD)
    if not len(p):
        return thresholds
    ranking = rank_columns(positive, p)
    n_positive = positive.sum(axis=0)
    f1 = 2 * ranking.hits / (ranking.n_clips + n_positive)
    best = np.where(ranking.ends, f1, -1.0).argmax(axis=0)
    columns = np.arange(p.shape[1])
    lowest_chosen = ranking.scores[best, columns]
    next_down = ranking.scores[np.minimum(best + 1, len(p) - 1), columns]
    middle = (lowest_chosen + next_down) / 2
    # Of neighbouring floating-point numbers the middle may round down to the lower one.
    middle = np.where(middle > next_down, middle, lowest_chosen)
    seen = n_positive > 0
    thresholds[seen] = middle[seen]
    return thresholds


def _decision_scores(y_true: Bools, y_pred: Bools) -> tuple[F64, F64, F64]:
    """Precision, recall and F1 of each tag, float64 (tags,): 0 where 0 / 0.

    NaN for a tag that is neither true nor decided anywhere.
    """
    n_true, n_decided = y_true.sum(axis=0, dtype=np.float64), y_pred.sum(axis=0, dtype=np.float64)
    n_right = (y_true & y_pred).sum(axis=0, dtype=np.float64)
    seen = n_true + n_decided > 0
    scores = precision_recall_f1(n_true, n_decided, n_right)
    precision, recall, f1 = (np.where(seen, np.nan_to_num(score), np.nan) for score in scores)
    return precision, recall, f1
