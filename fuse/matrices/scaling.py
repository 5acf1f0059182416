"""Standardisation of one feature, fitted on training clips and stored with every head.

Outliers, such as clips of damaged files, are left out of the means and deviations. Standardised
values are clipped to `LIMIT` deviations.

Standardisation within groups removes the effect of a singer, an artist or a room. This is speaker
normalisation, usual in speech emotion recognition (Busso et al. 2013, "Iterative feature
normalization scheme", section II): each group's clips are standardised by their own means and
deviations, without labels. A model then knows how a clip differs from others of its group, and
needs several clips of a new group to predict any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F32, F64, Bools, Ints
from mvemo.fuse.matrices.rows import Rows

# Largest absolute standardised value.
LIMIT = 5.0
# An outlier's distance from the mean is more than this many times the median distance.
FAR = 5.0
# Deviation over mean below which a column counts as constant, in single precision.
CONSTANT = 1e-6
# Rounds of leaving outliers out: one outlier may hide another.
ROUNDS = 5
# Fewest clips of a group: means and deviations of fewer are mostly chance.
MIN_CLIPS = 5


@dataclass(frozen=True)
class Scaling:
    """Means and deviations that standardise the columns of a feature.

    Examples
    --------
    >>> scaling = Scaling(np.array([10.0]), np.array([2.0]), limit=5.0)
    >>> scaling.apply(np.array([[12.0], [1e9]], np.float32)).ravel()
    array([1., 5.], dtype=float32)
    """

    shift: F64  # float64 (dim,)
    scale: F64  # float64 (dim,)
    limit: float = LIMIT  # largest absolute standardised value; infinite for none

    def apply(self, values: F32) -> F32:
        """Standardise raw values, float32 (clips, dim), and clip them to the limit."""
        z = values - self.shift.astype(np.float32)
        z *= (1.0 / self.scale).astype(np.float32)
        if np.isfinite(self.limit):
            np.clip(z, -self.limit, self.limit, out=z)
        return z


def fit_scaling(values: F32 | Rows, rows: Bools) -> tuple[Scaling, Bools]:
    """Fit means and deviations of the columns on the clips of `rows`, without outliers.

    Return the scaling, and bool (clips,) of outliers: clips whose root mean square of
    standardised values is more than `FAR` times the median. The deviation of a constant column
    is 1. Values that are not in memory are read several times.

    Examples
    --------
    >>> x = np.append(np.tile([-1.0, 1.0], 10), 1e6).astype(np.float32)[:, None]
    >>> scaling, far = fit_scaling(x, np.ones(21, bool))
    >>> scaling.shift, scaling.scale, np.flatnonzero(far)
    (array([0.]), array([1.]), array([20]))
    """
    members = np.flatnonzero(rows)
    dim = values.shape[1]
    far = np.zeros(len(rows), np.bool_)
    if not len(members):
        return Scaling(np.zeros(dim), np.ones(dim)), far
    for _ in range(ROUNDS):
        if isinstance(values, Rows):
            shift, scale, distance = _fit_streamed(values, members)
        else:
            shift, scale, distance = _fit_array(values, members)
        outside = distance > FAR * np.median(distance)
        if not outside.any():
            break
        far[members[outside]] = True
        members = members[~outside]
    return Scaling(shift.astype(np.float64), scale), far


def _fit_array(x: F32, members: Ints) -> tuple[F32, F64, F64]:
    """Return means, deviations, and the members' distances."""
    x = x[members]
    # Rounded like the values, so that the shift that is subtracted is the one that is stored.
    shift = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= shift
    np.square(x, out=x)
    scale = _deviations(x.mean(axis=0, dtype=np.float64), shift)
    return shift, scale, np.sqrt(x @ (1.0 / np.square(scale)) / x.shape[1])


def _fit_streamed(values: Rows, members: Ints) -> tuple[F32, F64, F64]:
    """Return the same as `_fit_array`, in two readings."""
    n, dim = values.shape
    is_member = np.zeros(n, np.bool_)
    is_member[members] = True
    centre: F32 | None = None
    total, squares = np.zeros(dim), np.zeros(dim)
    for rows, block in values.blocks():
        x = block[is_member[rows]]
        if not len(x):
            continue
        if centre is None:
            # Near the mean, so that subtracting squares loses few digits.
            centre = np.median(x, axis=0).astype(np.float32)
        x -= centre
        total += x.sum(axis=0, dtype=np.float64)
        squares += np.square(x, out=x).sum(axis=0, dtype=np.float64)
    assert centre is not None
    mean = total / len(members)
    shift = (centre + mean).astype(np.float32)
    off = shift.astype(np.float64) - centre
    scale = _deviations(np.maximum(squares / len(members) - 2 * off * mean + off * off, 0), shift)
    distance = np.zeros(n)
    for rows, block in values.blocks():
        distance[rows] = np.sqrt(np.square(block - shift) @ (1.0 / np.square(scale)) / dim)
    return shift, scale, distance[members]


def _deviations(variance: F64, shift: F32) -> F64:
    scale: F64 = np.sqrt(variance)
    scale[scale <= CONSTANT * np.abs(shift)] = 1.0
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    return scale


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
