"""Stratified, group-disjoint, seeded folds and splits.

scikit-learn's StratifiedGroupKFold is not used: in the releases for Python 3.10 it does not
stratify when it shuffles, and it supports neither tags nor numbers as labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import Task, label_kind

Names = Sequence[str] | NDArray[np.str_]
_PASSES = 4
# Swaps are tried for all pairs of groups, so only up to this number of groups; with more groups,
# the greedy choice and single moves leave almost nothing to gain.
_MOST_GROUPS_TO_SWAP = 800
# Number of groups whose moves are tried at once.
_BATCH = 64


def make_folds(
    labels: ArrayLike,
    groups: Names,
    k: int,
    seed: int,
    task: Task,
    *,
    earlier: Mapping[str, int] | None = None,
) -> Ints:
    """Assign clips to k folds with whole groups and even shares of each class.

    Groups are processed in descending order of weight (rare classes and large groups first, ties
    in random order). Each group goes to the fold where the sum over classes of the squared
    deviations from the even share grows least. Then single groups are moved and pairs swapped while
    this sum decreases. The result depends on the set of clips and the seed, not on their order.

    Parameters
    ----------
    labels
        Multiclass: (clips,) class indices or names. Multilabel: (clips, tags) of 0 and 1.
        Regression: (clips,) or (clips, targets), stratified by fifths of the first two targets.
    groups
        Group names, (clips,).
    k, seed
        Number of folds, 2 or more; random seed, from 0.
    task
        Task of the labels.
    earlier
        Fold, 0 to k - 1, that each of these groups keeps. A fold without groups gets a new group.

    Returns
    -------
    Fold of each clip, int64 (clips,), from 0 to k - 1. Every fold has at least one group.

    Raises
    ------
    BadManifest
        There are fewer groups than folds, k is below 2, an earlier fold is out of range, or the
        shapes of the arrays do not match.

    Examples
    --------
    >>> labels = [0, 1, 0, 1, 0, 1, 0, 1]
    >>> groups = ["a", "b", "a", "b", "c", "d", "c", "d"]
    >>> make_folds(labels, groups, k=2, seed=0, task="multiclass")
    array([0, 0, 0, 0, 1, 1, 1, 1])
    """
    if k < 2:
        raise BadManifest(f"k is {k}, but cross-validation needs at least 2 folds")
    counts, member = _group_counts(labels, groups, task)
    if len(counts) < k:
        raise BadManifest(f"{len(counts)} group(s) cannot fill {k} folds: use k <= {len(counts)}")
    kept = earlier or {}
    fixed = np.array([kept.get(group, -1) for group in np.unique(groups).tolist()], np.int64)
    if fixed.max() >= k:
        raise BadManifest(
            f"the earlier folds include fold {fixed.max()}, but folds must be 0 to {k - 1}"
        )
    return _assign_groups(counts, np.full(k, 1.0 / k), seed, fixed)[member]


def inner_split(labels: ArrayLike, groups: Names, fraction: float, seed: int, task: Task) -> Bools:
    """Hold out about a fraction of the clips, with whole groups and even shares of each class.

    A class whose clips are all in one group stays in training if possible.

    Parameters
    ----------
    labels, groups, seed, task
        Same as for `make_folds`, for the clips that may be trained on.
    fraction
        Fraction of each class to hold out, between 0 and 1; at least one group is held out, and at
        least one group stays in training.

    Returns
    -------
    bool (clips,), True for clips that are held out.

    Raises
    ------
    BadManifest
        There are fewer than two groups, or the fraction is out of range.

    Examples
    --------
    >>> labels, groups = [0, 1] * 10, [f"song {i}" for i in range(20)]
    >>> int(inner_split(labels, groups, 0.2, seed=0, task="multiclass").sum())
    4
    """
    if not 0 < fraction < 1:
        raise BadManifest(f"fraction is {fraction}, but it must be between 0 and 1")
    counts, member = _group_counts(labels, groups, task)
    if len(counts) < 2:
        raise BadManifest("there is only one group, but an inner split needs at least 2")
    return _split_groups(counts, [1.0 - fraction, fraction], seed)[member] == 1


def holdout_split(
    labels: ArrayLike, groups: Names, fractions: Sequence[float], seed: int, task: Task
) -> Ints:
    """Split clips into three parts, with whole groups and even shares of each class.

    A class whose clips are all in one group goes to training if possible.

    Parameters
    ----------
    labels, groups, seed, task
        Same as for `make_folds`.
    fractions
        Shares of training, validation and test: three positive numbers, such as ``(7, 2, 1)``, of
        which only the ratios matter.

    Returns
    -------
    Part of each clip, int64 (clips,): 0 training, 1 validation, 2 test; no part is empty.

    Raises
    ------
    BadManifest
        There are fewer than three groups, the fractions are not three positive numbers, or the
        shapes of the arrays do not match.

    Examples
    --------
    >>> labels, groups = [0, 1] * 10, [f"song {i}" for i in range(20)]
    >>> np.bincount(holdout_split(labels, groups, (7, 2, 1), seed=0, task="multiclass"))
    array([14,  4,  2])
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or not (shares > 0).all():
        raise BadManifest(
            f"the split is {list(fractions)}; expected three numbers above 0, for training, "
            "validation and test, such as 7:2:1"
        )
    counts, member = _group_counts(labels, groups, task)
    if len(counts) < 3:
        raise BadManifest(
            f"{len(counts)} group(s) cannot fill training, validation and test: at least 3 are "
            "needed"
        )
    # Rounded, so that 0.7:0.2:0.1 and 7:2:1 break ties alike.
    return _split_groups(counts, np.round(shares / shares.sum(), 9), seed)[member]


def fold_notes(
    labels: ArrayLike, groups: Names, k: int, task: Task, classes: Sequence[str]
) -> tuple[str, ...]:
    """Return a one-line warning for each class or tag with too few groups for the folds."""
    names = np.asarray(groups)
    notes = []
    for name, member in label_kind(task).members(labels, classes).items():
        n_groups = len({*names[member].tolist()})
        few = {0: "no clips", 1: "only one group: it is never in training and test together"}
        some = f"only {n_groups} groups: some of the {k} folds lack it"
        if n_groups < max(k, 2):
            notes.append(f"class {name!r} has {few.get(n_groups, some)}")
    return tuple(notes)


def _group_counts(labels: ArrayLike, groups: Names, task: Task) -> tuple[F64, Ints]:
    """Return the clips per sorted group and stratum (the last has all), and each clip's group."""
    values, names = np.asarray(labels), np.asarray(groups)
    kind = label_kind(task)
    # An array of only one target may have one axis.
    axes = (1,) if kind.exclusive else (1, 2) if kind.numeric else (2,)
    if values.ndim not in axes or names.ndim != 1 or len(values) != len(names):
        raise BadManifest(
            f"labels of shape {values.shape} and groups of shape {names.shape} "
            f"do not match a {task} task"
        )
    if len(values) == 0:
        raise BadManifest("there are no clips to split")
    strata = np.column_stack([kind.strata(values), np.ones(len(values))])
    unique, member = np.unique(names, return_inverse=True)
    counts = np.zeros((len(unique), strata.shape[1]))
    np.add.at(counts, member, strata)
    return counts, member.astype(np.int64)


def _assign_groups(counts: F64, shares: F64, seed: int, fixed: Ints | None = None) -> Ints:
    """Return the part of each group, so that each part has its share of every stratum.

    With c_ps the clips of stratum s in part p, N_s all clips of the stratum and t_p the share of
    the part, it minimises sum_p sum_s (c_ps / N_s - t_p)^2 / t_p. A group with a part of 0 or more
    in `fixed` keeps it.
    """
    rng = np.random.default_rng(seed)
    n_groups = len(counts)
    totals = counts.sum(axis=0)
    used = totals > 0
    group_shares = counts[:, used] / totals[used]  # each group's share of every stratum
    weight = np.square(group_shares).sum(axis=1)
    # Weights are rounded, so that equal groups tie in spite of rounding errors.
    rank = np.round(weight / weight.max(), 9)
    order = np.lexsort((rng.permutation(n_groups), -rank))
    part = np.full(n_groups, -1, dtype=np.int64) if fixed is None else fixed.copy()
    free = part < 0
    sums = [group_shares[part == p].sum(axis=0) for p in range(len(shares))]
    excess = np.array(sums) - shares[:, None]  # c_ps / N_s - t_p
    for g in order[free[order]]:
        growth = (2.0 * excess @ group_shares[g] + weight[g]) / shares
        (ties,) = (growth <= growth[growth.argmin()] + 1e-12).nonzero()
        chosen = ties[rng.integers(len(ties)) if len(ties) > 1 else 0]
        part[g] = chosen
        excess[chosen] += group_shares[g]
    _fill_empty(group_shares, part, excess, free)
    for _ in range(_PASSES):
        movable = _shuffled(free, rng)
        gained = _move(group_shares, weight, shares, part, excess, movable)
        if n_groups <= _MOST_GROUPS_TO_SWAP:
            gained |= _swap(group_shares, shares, part, excess, _shuffled(free, rng))
        if not gained:
            break
    return part


def _shuffled(free: Bools, rng: np.random.Generator) -> Ints:
    order: Ints = rng.permutation(len(free))
    return order[free[order]]


def _fill_empty(group_shares: F64, part: Ints, excess: F64, free: Bools) -> None:
    """Move the lightest group of the largest part to each empty part; if possible a free group."""
    for empty in range(len(excess)):
        sizes = np.bincount(part, minlength=len(excess))
        if sizes[empty] == 0:
            of_largest = np.flatnonzero(part == sizes.argmax())
            if free[of_largest].any():
                of_largest = of_largest[free[of_largest]]
            g = of_largest[group_shares[of_largest].sum(axis=1).argmin()]
            excess[part[g]] -= group_shares[g]
            excess[empty] += group_shares[g]
            part[g] = empty


def _move(
    group_shares: F64, weight: F64, shares: F64, part: Ints, excess: F64, order: Ints
) -> bool:
    """Move single groups of `order` if this decreases the sum; return True if any group moved."""
    sizes = np.bincount(part, minlength=len(excess))
    gained, start = False, 0
    while start < len(order):
        # Few groups move, so many are tried at once with the same excess.
        tried = order[start : start + _BATCH]
        current, each = part[tried], np.arange(len(tried))
        along = 2.0 * group_shares[tried] @ excess.T
        change = (along + weight[tried, None]) / shares
        change += ((weight[tried] - along[each, current]) / shares[current])[:, None]
        change[each, current] = 0.0
        best = change.argmin(axis=1)
        better = (change[each, best] < -1e-12) & (sizes[current] > 1)
        if not better.any():
            start += len(tried)
            continue
        first = int(better.argmax())
        g, source = tried[first], current[first]
        # Rounding decides between equally good parts, so these are the products of one group.
        leave = (weight[g] - 2.0 * excess[source] @ group_shares[g]) / shares[source]
        growth = (2.0 * excess @ group_shares[g] + weight[g]) / shares + leave
        growth[source] = 0.0
        to = growth.argmin()
        excess[source] -= group_shares[g]
        excess[to] += group_shares[g]
        sizes[source] -= 1
        sizes[to] += 1
        part[g] = to
        gained = True
        start += first + 1
    return gained


def _swap(group_shares: F64, shares: F64, part: Ints, excess: F64, order: Ints) -> bool:
    """Swap pairs of groups in `order` if this decreases the sum; return True if any pair did."""
    gained = False
    others = np.setdiff1d(np.arange(len(part)), order)
    for g in order:
        current = part[g]
        step = group_shares - group_shares[g]  # what `current` gains and the other part loses
        square = np.square(step).sum(axis=1)
        change = (2.0 * step @ excess[current] + square) / shares[current]
        change += (square - 2.0 * np.einsum("gs,gs->g", step, excess[part])) / shares[part]
        change[part == current] = 0.0
        change[others] = 0.0
        other = int(change.argmin())
        if change[other] < -1e-12:
            excess[current] += step[other]
            excess[part[other]] -= step[other]
            part[g], part[other] = part[other], current
            gained = True
    return gained


def _split_groups(counts: F64, shares: Sequence[float] | F64, seed: int) -> Ints:
    """Return the part of each group; groups are moved so that part 0 has all strata if possible."""
    part = _assign_groups(counts, np.asarray(shares), seed)
    for stratum in range(counts.shape[1]):
        has = counts[:, stratum] > 0
        if not has.any() or (part[has] == 0).any():
            continue
        movable = np.flatnonzero(has & (np.bincount(part)[part] > 1))
        if len(movable):
            part[movable[counts[movable].sum(axis=1).argmin()]] = 0
    return part
