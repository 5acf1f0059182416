"""Nested training sets of growing size, for learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import Ints


def learning_curve_masks(
    folds: Ints,
    groups: Sequence[object],
    fractions: Sequence[float],
    seed: int = 0,
    *,
    labels: Ints | None = None,
) -> NDArray[np.bool_]:
    """Choose training clips by whole groups: bool (folds, fractions, clips), nested.

    Groups are taken in a random order, the same for all folds, until their clips reach the
    fraction of the fold's training clips. `folds` are int64 (clips,), -1 for clips that are never
    used. With `labels`, int64 (clips,), groups of all classes are taken in step, so that small
    sets keep the classes' shares; a group counts for its commonest class.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction} is not in (0, 1]")
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    shuffled, spare = rng.permutation(n_groups), rng.random(n_groups)
    of_class = np.zeros(n_groups, np.int64) if labels is None else _commonest(codes, labels)
    n_folds = int(folds.max()) + 1
    masks = np.zeros((n_folds, len(fractions), len(folds)), dtype=np.bool_)
    for fold in range(n_folds):
        train = (folds != fold) & (folds >= 0)
        size = np.bincount(codes[train], minlength=n_groups)
        # The m groups of a class are spread over [0, 1), group i at (i + random number) / m.
        place = np.ones(n_groups)
        for label in np.unique(of_class):
            members = np.flatnonzero((of_class == label) & (size > 0))
            members = members[np.argsort(shuffled[members])]
            place[members] = (np.arange(len(members)) + spare[members]) / max(len(members), 1)
        order = np.argsort(place, kind="stable")
        before = np.empty(n_groups)
        before[order] = np.cumsum(size[order]) - size[order]
        for i, fraction in enumerate(fractions):
            # Allow for rounding: 0.7 * 10 may come out above 7.
            n_needed = fraction * train.sum() - 1e-9 * len(folds)
            masks[fold, i] = train & (before[codes] < n_needed)
    return masks


def _commonest(codes: Ints, labels: Ints) -> Ints:
    """Return the commonest class of each group, int64 (groups,)."""
    votes = np.zeros((int(codes.max()) + 1, int(labels.max()) + 1))
    np.add.at(votes, (codes, labels), 1)
    result: Ints = votes.argmax(axis=1).astype(np.int64)
    return result
