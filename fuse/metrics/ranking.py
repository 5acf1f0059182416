"""Scores of how well predictions rank clips: ROC-AUC and average precision of columns.

All rest on one sorting of all columns at once. scikit-learn's functions, which take a column
at a time and check it each time, took a third of a small set's evaluation; the tests compare
with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F64, Bools
from mvemo.fuse.metrics.averages import ratio


@dataclass(frozen=True)
class Ranking:
    """Clips of each column from the highest score down."""

    scores: F64  # float64 (clips, columns), falling
    hits: F64  # float64 (clips, columns): positive clips so far
    # Bool (clips, columns): where a run of equal scores ends; only there counts may be read.
    ends: Bools

    @property
    def n_clips(self) -> F64:
        """float64 (clips, 1): clips so far."""
        return np.arange(1.0, len(self.scores) + 1.0)[:, None]

    def before(self, counts: F64) -> F64:
        """Of counts that never fall, (clips, columns): those at the end of the run before."""
        at_ends = np.maximum.accumulate(np.where(self.ends, counts, 0.0), axis=0)
        return np.vstack([np.zeros((1, counts.shape[1])), at_ends[:-1]])


def rank_columns(positive: Bools, scores: F64) -> Ranking:
    """Sort the clips of each column by falling score."""
    order = np.argsort(-scores, axis=0, kind="stable")
    falling = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(positive, order, axis=0), axis=0).astype(np.float64)
    last = np.ones((min(len(scores), 1), scores.shape[1]), dtype=np.bool_)
    return Ranking(falling, hits, np.vstack([falling[1:] != falling[:-1], last]))


def roc_auc(positive: Bools, scores: F64) -> F64:
    """float64 (columns,): area under the ROC curve of each column, ties counted half.

    The Mann-Whitney form: the share of (positive, negative) pairs in the right order.

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
    # Each run's negative clips lie below the hits before it and tie with those in it.
    right = (misses - misses_before) * (hits_before + ranking.hits) / 2.0
    return ratio(np.where(ranking.ends, right, 0.0).sum(axis=0), n_positive * n_negative)


def average_precision(positive: Bools, scores: F64) -> F64:
    """float64 (columns,): average precision of each column, without interpolation.

    The mean of the precision at each positive clip, as in scikit-learn.

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
