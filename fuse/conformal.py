"""Answers with a guarantee: sets of classes or tags, and intervals, by conformal prediction.

A set has every class whose nonconformity is at most that of a chosen share of other clips' true
labels (Vovk, Gammerman and Shafer 2005; least ambiguous sets of Sadinle, Lei and Wasserman 2019).
The other clips are out-of-fold predictions of other folds: cross-conformal prediction (Vovk 2015).
Clips of one group are not independent, so each group has the same weight, and one more group
counts as wrong (Dunn, Wasserman and Ramdas 2023, two-layer hierarchical models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import F64, Bools, Ints, Link, complete

# Coverages whose thresholds a model stores: 50 % to 99 %.
GRID = np.arange(50, 100) / 100
# Parts of the groups that replace folds if one fold tests all clips.
PARTS = 5


@dataclass(frozen=True)
class Coverage:
    """Sets or intervals of all clips, and how often they hold the true labels."""

    asked: float
    # Classes and tags: bool (clips, outputs), members of each clip's set; all False without a
    # prediction. Ratings: float64 (clips, targets), half widths of the intervals.
    sets: NDArray[Any]
    covered: F64  # float64 (clips,) or (clips, targets): 1 if covered; NaN without a prediction

    @property
    def size(self) -> F64:
        """Return the number of members of each clip's set, or the width of each interval."""
        sizes = 2 * self.sets if self.sets.dtype.kind == "f" else self.sets.sum(axis=1)
        return np.asarray(sizes, dtype=np.float64)


def nonconformity(y_true: NDArray[Any], outputs: F64, link: Link) -> F64:
    """Return how strange the true labels are: float64 (clips,), or (clips, targets) of values.

    For a class, 1 minus its probability; for tags, 1 minus the smallest probability of a tag that
    applies, and 0 if none does; for ratings, the absolute error.
    """
    if link == "identity":
        return np.asarray(np.abs(y_true - outputs), dtype=np.float64)
    if link == "softmax":
        return np.asarray(1.0 - outputs[np.arange(len(outputs)), y_true], dtype=np.float64)
    return np.asarray(np.where(y_true > 0, 1.0 - outputs, 0.0).max(axis=1), dtype=np.float64)


def thresholds(scores: F64, groups: Sequence[str], coverages: Sequence[float] | F64) -> F64:
    """Return the nonconformity that these shares of the groups do not exceed.

    `scores` are of `nonconformity`; the thresholds are float64 (coverages, columns of `scores`),
    infinite if there are too few groups.
    """
    _, group, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    weights = 1.0 / sizes[group.reshape(-1)] / (len(sizes) + 1)
    ends = []
    for column in scores.reshape(len(scores), -1).T:
        order = np.argsort(column)
        places = np.searchsorted(np.cumsum(weights[order]), np.asarray(coverages) * (1 - 1e-12))
        ends.append(np.append(column[order], np.inf)[places])
    return np.stack(ends, axis=1)


def members(outputs: F64, limit: F64) -> Bools:
    """Return the members of each set, bool (clips, outputs); the likeliest is always one."""
    inside = 1.0 - outputs <= limit
    inside[np.arange(len(outputs)), outputs.argmax(axis=1)] = True
    return np.asarray(inside, dtype=np.bool_)


def cross_conformal(
    y_true: NDArray[Any],
    outputs: F64,
    folds: Ints,
    groups: Sequence[str],
    link: Link,
    coverage: float,
) -> Coverage:
    """Return sets for out-of-fold outputs; a fold's threshold comes from the other folds.

    If one fold tests all clips, parts of the groups replace the folds.

    Parameters
    ----------
    y_true, outputs
        Labels as in `mvemo.fuse.Results`, and float64 (clips, outputs) with NaN rows for clips
        without a prediction.
    folds, groups
        int64 (clips,), -1 for clips that no fold tests; group of each clip.
    link
        ``softmax`` for classes, ``sigmoid`` for tags, ``identity`` for ratings.
    coverage
        Share of new clips whose true label shall be in the set, above 0 and below 1.
    """
    valid = complete(outputs) & (folds >= 0)
    scores = np.full(y_true.shape if link == "identity" else len(y_true), np.nan)
    scores[valid] = nonconformity(y_true[valid], outputs[valid], link)
    names = np.array(groups)
    if len(np.unique(folds[valid])) == 1:
        folds = np.unique(names, return_inverse=True)[1].reshape(-1) % PARTS
    sets: NDArray[Any] = np.zeros(outputs.shape, np.float64 if link == "identity" else np.bool_)
    covered = np.full(scores.shape, np.nan)
    for fold in np.unique(folds[valid]):
        tested, others = valid & (folds == fold), valid & (folds != fold)
        limit = np.array([np.inf])
        if others.any():
            limit = thresholds(scores[others], names[others].tolist(), [coverage])[0]
        covered[tested] = scores[tested] <= (limit if link == "identity" else limit[0])
        sets[tested] = limit if link == "identity" else members(outputs[tested], limit)
    if link == "softmax":
        # A set that would be empty has the likeliest class, which may be right.
        covered[valid] = sets[valid][np.arange(int(valid.sum())), y_true[valid]]
    return Coverage(coverage, sets, covered)
