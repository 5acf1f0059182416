"""Answers with a guarantee: sets of classes or tags, and intervals, by conformal prediction.

A set has every class whose nonconformity is at most that of a chosen share of other clips' true
labels (Vovk, Gammerman and Shafer 2005; least ambiguous sets of Sadinle, Lei and Wasserman 2019).
The other clips are out-of-fold predictions of other folds: cross-conformal prediction (Vovk 2015).
Clips of one group are not independent, so one clip is drawn of each group, many times (Dunn,
Wasserman and Ramdas 2023). `docs/calibration.md` has the measured coverage.

A coverage holds on average over classes, for all tags of a clip at once, and for each rating.
`OPTIONS` names the other form: for each class or tag (a threshold for each: Vovk 2012), or for
all ratings of a clip at once (the largest error, in units of each rating's median error).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import Link, codes_of, complete
from mvemo.manifests.array_types import F64, Bools, Ints

# Coverages whose thresholds a model stores: 50 % to 99 %.
GRID = np.arange(50, 100) / 100
# Number of parts into which groups are divided if one fold tests all clips.
PARTS = 5
# Number of draws of one clip per group, and maximum number of clips in all draws together.
DRAWS, MOST_DRAWN = 500, 200_000
# With fewer groups, sets and intervals are wide, and their actual coverage is uncertain.
FEW_GROUPS = 20
# Option of `mvemo predict` that asks for the less usual form of the sets, by link.
PER_CLASS, JOINTLY = "--per-class", "--jointly"
OPTIONS: dict[Link, str] = {"softmax": PER_CLASS, "sigmoid": PER_CLASS, "identity": JOINTLY}


@dataclass(frozen=True)
class Asked:
    """Coverage that a user asked for."""

    share: float  # share of new clips whose sets must contain the label
    option: str = ""  # value of `OPTIONS`; empty for the usual form


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
    """Return how little outputs conform to the labels: float64 (clips,), or (clips, targets).

    For a class, 1 minus its probability; for tags, 1 minus the smallest probability of a tag that
    applies, and 0 if none does; for ratings, the absolute error.
    """
    if link == "identity":
        return np.abs(y_true - outputs)
    if link == "softmax":
        return 1.0 - outputs[np.arange(len(outputs)), y_true]
    return np.where(y_true > 0, 1.0 - outputs, 0.0).max(axis=1)


def thresholds(scores: F64, groups: Sequence[str], coverages: Sequence[float] | F64) -> F64:
    """Return the quantiles of the nonconformity of clips of a new group, for these coverages.

    `scores` are from `nonconformity`; NaN are ignored. The thresholds are float64 (coverages,
    columns of `scores`), infinite if there are too few groups.
    """
    names = np.array(groups)
    ends = []
    for column in scores.reshape(len(scores), -1).T:
        counts = np.isfinite(column)
        ends.append(_threshold(column[counts], names[counts], np.asarray(coverages)))
    return np.stack(ends, axis=1)


def _threshold(scores: F64, names: NDArray[Any], coverages: F64) -> F64:
    if not len(scores):
        return np.full(len(coverages), np.inf)
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    n = len(sizes)
    order = np.argsort(scores, kind="stable")
    # Weighted rank of each clip among all clips; all groups have the same weight.
    places = np.cumsum(1.0 / sizes[group[order]])
    place_of = np.empty(len(scores))
    place_of[order] = places
    n_draws = 1 if sizes.max() == 1 else min(DRAWS, MOST_DRAWN // n + 1)
    drawn = np.random.default_rng(0).random((n_draws, n)) * sizes
    clips = np.argsort(group, kind="stable")[np.cumsum(sizes) - sizes + drawn.astype(np.int64)]
    # Among n + 1 independent clips, a new clip has each rank with probability 1 / (n + 1). Ranks
    # are averaged over draws; averaged scores would give a higher coverage than was asked for.
    ranked = np.sort(place_of[clips], axis=1).mean(axis=0)
    ranks = coverages * (n + 1)
    found = np.interp(np.interp(ranks, np.arange(1, n + 1), ranked), places, scores[order])
    return np.where(ranks > n + 1e-9, np.inf, found)


def limits(
    y_true: NDArray[Any],
    outputs: F64,
    groups: Sequence[str],
    link: Link,
    coverages: Sequence[float] | F64,
    optional: bool = False,
) -> F64:
    """Return the largest nonconformity in a set: float64 (coverages, 1 or outputs).

    If `optional`, the limits are for the sets that `OPTIONS` names.
    """
    scores = nonconformity(y_true, outputs, link)
    if not optional:
        return thresholds(scores, groups, coverages)
    if link == "identity":
        unit = np.median(scores, axis=0)
        unit[unit == 0] = 1.0
        return thresholds((scores / unit).max(axis=1), groups, coverages) * unit
    ones = y_true[:, None] == np.arange(outputs.shape[1]) if link == "softmax" else y_true > 0
    return thresholds(np.where(ones, 1.0 - outputs, np.nan), groups, coverages)


def few_groups_warning(kind: str, n: int) -> str:
    """Return a sentence if sets or intervals come from few groups `n`, otherwise ''."""
    if n >= FEW_GROUPS:
        return ""
    return (
        f"the {kind} come from only {n} groups: below {FEW_GROUPS} they are wide, and may hold the "
        "truth for clearly more or fewer clips than stated"
    )


def members(outputs: F64, limit: F64) -> Bools:
    """Return the members of each set, bool (clips, outputs); the likeliest class always belongs."""
    inside = 1.0 - outputs <= limit
    inside[np.arange(len(outputs)), outputs.argmax(axis=1)] = True
    return inside


def cross_conformal(
    y_true: NDArray[Any],
    outputs: F64,
    folds: Ints,
    groups: Sequence[str],
    link: Link,
    coverage: float,
    optional: bool = False,
) -> Coverage:
    """Return sets for out-of-fold outputs; a fold's threshold comes from the other folds.

    If one fold tests all clips, parts of the groups replace the folds. `coverage` is the share of
    new clips whose true label shall be in the set; `optional` asks for the form that `OPTIONS`
    names.
    """
    valid = complete(outputs) & (folds >= 0)
    scores = np.full(y_true.shape if link == "identity" else len(y_true), np.nan)
    scores[valid] = nonconformity(y_true[valid], outputs[valid], link)
    names = np.array(groups)
    if len(np.unique(folds[valid])) == 1:
        folds = codes_of(names) % PARTS
    sets: NDArray[Any] = np.zeros(outputs.shape, np.float64 if link == "identity" else np.bool_)
    covered = np.full(scores.shape, np.nan)
    for fold in np.unique(folds[valid]):
        tested, others = valid & (folds == fold), valid & (folds != fold)
        limit = np.array([np.inf])
        if others.any():
            known = y_true[others], outputs[others], names[others].tolist()
            limit = limits(*known, link, [coverage], optional)[0]
        sets[tested] = limit if link == "identity" else members(outputs[tested], limit)
        if link == "identity":
            covered[tested] = scores[tested] <= limit
    if link == "softmax":
        covered[valid] = sets[valid][np.arange(int(valid.sum())), y_true[valid]]
    elif link == "sigmoid":
        covered[valid] = (sets[valid] | (y_true[valid] <= 0)).all(axis=1)
    return Coverage(coverage, sets, covered)
