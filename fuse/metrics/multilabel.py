"""Scores of multi-label predictions, and thresholds for decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.metrics.multiclass import precision_recall_f1
from mvemo.fuse.metrics.ranking import average_precision, rank_columns, roc_auc
from mvemo.fuse.numeric import F64, Bools, Ints

# Threshold of a tag that no training clip has.
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class MultilabelScores:
    """Scores of each tag, and over all tags.

    Precision, recall and F1 of the decisions are 0 where 0 / 0, but NaN for a tag that is neither
    true nor decided anywhere.
    """

    precision: F64  # (tags,)
    recall: F64  # (tags,)
    f1: F64  # (tags,)
    roc_auc: F64  # (tags,) with ties counted half; NaN for a tag that all clips or no clips have
    average_precision: F64  # (tags,) without interpolation; NaN for a tag that no clip has
    support: Ints  # (tags,) number of clips with the tag
    macro: dict[str, float]  # name to its mean over the tags where it is not NaN
    micro: dict[str, float]  # name to its value over all pairs of clip and tag


NAMES = ("precision", "recall", "f1", "roc_auc", "average_precision")


def decide(proba: F64, thresholds: F64 | float = DEFAULT_THRESHOLD) -> Bools:
    """Return True for probabilities that reach the threshold; NaN never does.

    `thresholds` broadcasts: (tags,), or (clips, tags) if thresholds differ between folds.
    """
    return np.asarray(proba >= thresholds, dtype=np.bool_)


def multilabel_scores(y_true: Ints, proba: F64, y_pred: Bools | None = None) -> MultilabelScores:
    """Score probabilities (clips, tags) and their decisions; rows with NaN are left out.

    `y_pred` is bool (clips, tags); None for decisions at the default threshold.
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


def best_thresholds(proba: F64, y_true: Ints) -> F64:
    """Return the threshold of each tag that maximises its F1, float64 (tags,).

    It must be fitted on inner out-of-fold predictions of the training clips, never on the scored
    clips. It is the middle between two neighbouring probabilities; ties go to the highest
    threshold. A tag that no clip has gets `DEFAULT_THRESHOLD`. Rows with NaN are left out.

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
    # The middle of two neighbouring floats may round down to the lower one.
    middle = np.where(middle > next_down, middle, lowest_chosen)
    seen = n_positive > 0
    thresholds[seen] = middle[seen]
    return thresholds


def _decision_scores(y_true: Bools, y_pred: Bools) -> tuple[F64, F64, F64]:
    """Return precision, recall and F1 of each tag, as `MultilabelScores` defines them."""
    n_true, n_decided = y_true.sum(axis=0, dtype=np.float64), y_pred.sum(axis=0, dtype=np.float64)
    n_right = (y_true & y_pred).sum(axis=0, dtype=np.float64)
    seen = n_true + n_decided > 0
    scores = precision_recall_f1(n_true, n_decided, n_right)
    precision, recall, f1 = (np.where(seen, np.nan_to_num(score), np.nan) for score in scores)
    return precision, recall, f1
