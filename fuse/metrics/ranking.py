"""Ranking scores: ROC-AUC and average precision of the columns of an array.

All columns are sorted at once. scikit-learn's functions take and check one column at a time,
which took a third of the evaluation of a small data set. The tests compare with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.metrics.averages import ratio
from mvemo.fuse.numeric import F64, Bools


@dataclass(frozen=True)
class Ranking:
    """Clips of each column, sorted from the highest score down."""

    scores: F64  # (clips, columns), falling
    hits: F64  # (clips, columns): number of positive clips so far
    ends: Bools  # (clips, columns): True at the end of a run of equal scores; read counts there

    @property
    def n_clips(self) -> F64:
        """Number of clips so far, float64 (clips, 1)."""
        return np.arange(1.0, len(self.scores) + 1.0)[:, None]

    def before(self, counts: F64) -> F64:
        """Return rising counts (clips, columns) as they were at the end of the run before."""
        at_ends = np.maximum.accumulate(np.where(self.ends, counts, 0.0), axis=0)
        return np.vstack([np.zeros((1, counts.shape[1])), at_ends[:-1]])


def rank_columns(positive: Bools, scores: F64) -> Ranking:
    """Sort the clips of each column by falling score; scores must not contain NaN."""
    order = np.argsort(-scores, axis=0, kind="stable")
    falling = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(positive, order, axis=0), axis=0).astype(np.float64)
    last = np.ones((min(len(scores), 1), scores.shape[1]), dtype=np.bool_)
    return Ranking(falling, hits, np.vstack([falling[1:] != falling[:-1], last]))


def roc_auc(positive: Bools, scores: F64) -> F64:
    """Return the area under the ROC curve of each column, with ties counted half.

    This is the Mann-Whitney form: the share of (positive, negative) pairs in the right order. It
    is NaN for a column that is positive everywhere or nowhere.

    Examples
    --------
    >>> positive = np.array([[True, True], [False, True], [True, True]])
    >>> roc_auc(positive, np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.3]]))
    array([0.75,  nan])
    """
    n_positive = positive.sum(axis=0).astype(np.float64)
    n_negative = len(positive) - n_positive
    ranking = rank_columns(positive, scores)
    misses = ranking.n_clips - ranking.hits
    hits_before, misses_before = ranking.before(ranking.hits), ranking.before(misses)
    # The negative clips of a run lie below the hits before it and tie with the hits in it.
    right = (misses - misses_before) * (hits_before + ranking.hits) / 2.0
    return ratio(np.where(ranking.ends, right, 0.0).sum(axis=0), n_positive * n_negative)


def average_precision(positive: Bools, scores: F64) -> F64:
    """Return the average precision of each column, without interpolation.

    It is the mean of the precision at each positive clip, as in scikit-learn, and NaN for a
    column without positive clips.

    Examples
    --------
    >>> positive = np.array([[True, False], [False, False]])
    >>> average_precision(positive, np.array([[0.9, 0.1], [0.8, 0.2]]))
    array([ 1., nan])
    """
    ranking = rank_columns(positive, scores)
    precision = ranking.hits / ranking.n_clips
    gained = np.where(ranking.ends, ranking.hits - ranking.before(ranking.hits), 0.0)
    n_positive = positive.sum(axis=0).astype(np.float64)
    return ratio((gained * precision).sum(axis=0), n_positive)
