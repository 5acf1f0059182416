"""Stratified, group-disjoint, seeded folds and inner splits.

Own code rather than scikit-learn's StratifiedGroupKFold, whose releases for Python 3.10
do not stratify when shuffled, and which knows neither tags nor numbers as labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import TASKS, UNLABELLED, Task, label_kind
from mvemo.manifests.types import F64, Bools, Ints

_PASSES = 4
# Exchanges of two groups are tried in pairs, so only where groups are few; where they
# are many, the greedy choice and single moves leave next to nothing to gain.
_MOST_GROUPS_TO_SWAP = 800


def make_folds(
    labels: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    k: int,
    seed: int,
    task: Task,
    *,
    earlier: Mapping[str, int] | None = None,
) -> Ints:
    """Put every clip in one of k folds: groups whole, classes in even shares.

    Groups are taken in order of falling weight (rare classes and large groups first,
    ties in random order) and each goes to the fold where the sum over classes of the
    squared deviations from the even share grows least; then single groups are moved
    and pairs exchanged while that sum falls. A group's fold depends on the set of
    clips and the seed, not on the order of the clips.

    Parameters
    ----------
    labels
        multiclass: (clips,) class indices or names. multilabel: (clips, tags) of 0 and
        1. regression: (clips,) or (clips, targets), stratified on fifths of the
        first two targets.
    groups
        (clips,) names.
    k
        Number of folds, 2 or more.
    seed
        Any integer from 0.
    earlier
        Folds, 0 to k - 1, that groups of these names keep; only the others are divided, so
        as to even out the shares of all. A fold that all its groups have left is given
        another group.

    Returns
    -------
    int64 (clips,), from 0 to k - 1. Every fold has a group at least.

    Raises
    ------
    BadManifest
        Fewer groups than folds, k below 2, an earlier fold that is none of the k, or arrays
        that do not fit together.

    See Also
    --------
    folds_of : Of a manifest, with the folds that it prescribes.
    inner_split : One part to hold out, inside the training folds.
    holdout_split : Training, validation and test clips.

    Examples
    --------
    >>> labels = [0, 1, 0, 1, 0, 1, 0, 1]
    >>> groups = ["a", "b", "a", "b", "c", "d", "c", "d"]
    >>> make_folds(labels, groups, k=2, seed=0, task="multiclass")
    array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> make_folds(labels, groups, 2, seed=0, task="multiclass", earlier={"a": 1, "b": 1})
    array([1, 1, 1, 1, 0, 0, 0, 0])
    """
    if k < 2:
        raise BadManifest(f"k is {k}; cross-validation needs 2 folds at least")
    counts, member = group_counts(labels, groups, task)
    if len(counts) < k:
        raise BadManifest(f"{len(counts)} group(s) cannot fill {k} folds; use k <= {len(counts)}")
    fixed = np.full(len(counts), -1, dtype=np.int64)
    for i, group in enumerate(np.unique(np.asarray(groups)).tolist() if earlier else ()):
        fixed[i] = (earlier or {}).get(group, -1)
    if fixed.max() >= k:
        raise BadManifest(f"an earlier fold is {fixed.max()}; there are folds 0 to {k - 1}")
    return assign_groups(counts, np.full(k, 1.0 / k), seed, fixed)[member]


def inner_split(
    labels: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    fraction: float,
    seed: int,
    task: Task,
) -> Bools:
    """Hold out about a fraction of the clips: groups whole, classes in even shares.

    For early stopping and for temperatures, inside training folds. A class whose clips
    are all in one group stays on the training side where that is possible.

    Parameters
    ----------
    labels, groups, task
        As for `make_folds`, of the clips that may be trained on.
    fraction
        Of each class to hold out, between 0 and 1. At least one group is held out and
        at least one is not.

    Returns
    -------
    bool (clips,): True where held out.

    Raises
    ------
    BadManifest
        Fewer than two groups, or a fraction out of range.

    See Also
    --------
    make_folds : Folds by the same search.

    Examples
    --------
    >>> labels, groups = [0, 1] * 10, [f"song {i}" for i in range(20)]
    >>> held_out = inner_split(labels, groups, 0.2, seed=0, task="multiclass")
    >>> int(held_out.sum())
    4
    """
    if not 0 < fraction < 1:
        raise BadManifest(f"fraction is {fraction}; it must lie between 0 and 1")
    counts, member = group_counts(labels, groups, task)
    if len(counts) < 2:
        raise BadManifest("one group only; an inner split needs 2 groups at least")
    side = assign_groups(counts, np.array([1.0 - fraction, fraction]), seed)
    keep_in_training(counts, side)
    held_out: Bools = (side == 1)[member]
    return held_out


def fold_notes(
    labels: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    k: int,
    task: Task,
    classes: Sequence[str],
) -> tuple[str, ...]:
    """Warnings about cross-validating these data, a line each.

    A class or tag with fewer groups than folds is missing from some folds; with one
    group only, it is never in training and test at once.
    """
    names = np.asarray(groups)
    notes = []
    for name, member in label_kind(task).members(labels, classes).items():
        n_groups = len(set(names[member].tolist()))
        if n_groups == 0:
            notes.append(f"class {name!r} has no clips")
        elif n_groups == 1:
            notes.append(f"class {name!r} has one group: never in training and test at once")
        elif n_groups < k:
            notes.append(f"class {name!r} has {n_groups} groups: missing from some of {k} folds")
    return tuple(notes)


def group_counts(
    labels: ArrayLike, groups: Sequence[str] | NDArray[np.str_], task: Task
) -> tuple[F64, Ints]:
    """Clips of each group in each stratum, and the group of each clip."""
    values = np.asarray(labels)
    names = np.asarray(groups)
    if task not in (*TASKS, UNLABELLED):
        raise BadManifest(f"unknown task {task!r}; one of {', '.join(TASKS)}")
    kind = label_kind(task)
    if values.ndim not in kind.n_axes or names.ndim != 1 or len(values) != len(names):
        raise BadManifest(
            f"labels of shape {values.shape} and groups of shape {names.shape} "
            f"do not fit a {task} task"
        )
    if len(values) == 0:
        raise BadManifest("no clips to split")
    strata = kind.strata(values)
    unique, member = np.unique(names, return_inverse=True)
    everything = np.column_stack([strata, np.ones(len(values))])
    counts = np.zeros((len(unique), everything.shape[1]))
    np.add.at(counts, member, everything)
    return counts, member.astype(np.int64)


def assign_groups(counts: F64, shares: F64, seed: int, fixed: Ints | None = None) -> Ints:
    """Part of each group, so that parts hold their shares of every stratum.

    With c_ps the clips of stratum s in part p, N_s all clips of it and t_p the share,
    minimizes sum_p sum_s (c_ps / N_s - t_p)^2 / t_p. `counts` is (groups, strata), `shares`
    (parts,) of sum 1; `fixed` (groups,) has the part that a group keeps, -1 for the others.
    """
    rng = np.random.default_rng(seed)
    n_groups = len(counts)
    totals = counts.sum(axis=0)
    used = totals > 0
    group_shares = counts[:, used] / totals[used]  # each group's share of every stratum
    weight = np.square(group_shares).sum(axis=1)
    # Rounded, so that equal groups tie in spite of the last bit, and the seed decides.
    rank = np.round(weight / weight.max(), 9)
    order = np.lexsort((rng.permutation(n_groups), -rank))
    excess = -shares[:, None] * np.ones(group_shares.shape[1])  # c_ps / N_s - t_p
    part = np.full(n_groups, -1, dtype=np.int64) if fixed is None else fixed.copy()
    free = part < 0
    for p in range(len(shares)):
        excess[p] += group_shares[part == p].sum(axis=0)
    for g in order[free[order]]:
        growth = (2.0 * excess @ group_shares[g] + weight[g]) / shares
        ties = np.flatnonzero(growth <= growth.min() + 1e-12)
        part[g] = rng.choice(ties)
        excess[part[g]] += group_shares[g]
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
    """The groups that may move, in random order."""
    order: Ints = rng.permutation(len(free))
    return order[free[order]]


def _fill_empty(group_shares: F64, part: Ints, excess: F64, free: Bools) -> None:
    """Give every part a group: the lightest free one of the part that has most groups.

    Where that part has no free group, one that was fixed goes.
    """
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
    group_shares: F64,
    weight: F64,
    shares: F64,
    part: Ints,
    excess: F64,
    order: Ints,
) -> bool:
    """Move single groups of `order` where that lowers the sum; True if any was moved."""
    sizes = np.bincount(part, minlength=len(excess))
    gained = False
    for g in order:
        current = part[g]
        if sizes[current] == 1:
            continue
        leave = (weight[g] - 2.0 * excess[current] @ group_shares[g]) / shares[current]
        change = (2.0 * excess @ group_shares[g] + weight[g]) / shares + leave
        change[current] = 0.0
        best = int(change.argmin())
        if change[best] < -1e-12:
            excess[current] -= group_shares[g]
            excess[best] += group_shares[g]
            sizes[current] -= 1
            sizes[best] += 1
            part[g] = best
            gained = True
    return gained


def _swap(
    group_shares: F64,
    shares: F64,
    part: Ints,
    excess: F64,
    order: Ints,
) -> bool:
    """Exchange pairs of groups of `order` where that lowers the sum; True if any was."""
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


def keep_in_training(counts: F64, side: Ints) -> None:
    """Move groups to training (side 0) for strata that would be missing there.

    `side` is changed in place. No side is left without a group: where the only group of
    another side has all of a stratum, it stays.
    """
    for stratum in range(counts.shape[1]):
        has = counts[:, stratum] > 0
        if not has.any() or (side[has] == 0).any():
            continue
        sizes = np.bincount(side)
        movable = np.flatnonzero(has & (sizes[side] > 1))
        if len(movable):
            side[movable[counts[movable].sum(axis=1).argmin()]] = 0
