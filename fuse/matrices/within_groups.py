"""Standardisation within groups, against the effect of a singer, an artist or a room.

This is speaker normalisation, usual in speech emotion recognition (Busso et al. 2013, "Iterative
feature normalization scheme", section II): each group's clips are standardised by their own
means and deviations, without labels. A model then knows how a clip differs from others of its
group, and needs several clips of a new group to predict any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvemo.fuse.arrays import F32, Bools
from mvemo.fuse.matrices.scaling import Scaling, fit_scaling

# Fewest clips of a group: means and deviations of fewer are mostly chance.
MIN_CLIPS = 5


def standardise_within(
    values: F32, present: Bools, groups: Sequence[str], others: Scaling | None = None
) -> tuple[F32, Bools]:
    """Standardise each group's clips by their own means and deviations.

    Smaller groups than `MIN_CLIPS` are standardised by `others`, by default fitted on all clips.
    Return the values, and bool (clips,): True for clips standardised within their group.

    Examples
    --------
    A low voice and a high one, each five times:

    >>> pitch = np.array([1, 2, 3, 4, 5, 11, 12, 13, 14, 15], np.float32)[:, None]
    >>> within, rows = standardise_within(pitch, np.ones(10, bool), list("aaaaabbbbb"))
    >>> within.ravel().round(2)
    array([-1.41, -0.71,  0.  ,  0.71,  1.41, -1.41, -0.71,  0.  ,  0.71,
            1.41], dtype=float32)
    """
    others = fit_scaling(values, present)[0] if others is None else others
    result = others.apply(values)
    large = groups_within(present, groups)
    members = np.flatnonzero(large)
    _, group = np.unique(np.array(groups)[members], return_inverse=True)
    ordered = members[np.argsort(group, kind="stable")]
    for rows in np.split(ordered, np.cumsum(np.bincount(group))[:-1]) if len(members) else ():
        part = values[rows]
        result[rows] = fit_scaling(part, np.ones(len(part), np.bool_))[0].apply(part)
    result[~present] = 0.0
    return result, large


def groups_within(present: Bools, groups: Sequence[str]) -> Bools:
    """Return bool (clips,): True for clips with the feature in groups of `MIN_CLIPS` or more."""
    _, which = np.unique(np.array(groups), return_inverse=True)
    which = which.reshape(-1)
    counts = np.bincount(which, present)
    return np.asarray(present & (counts[which] >= MIN_CLIPS), dtype=np.bool_)
