"""Standardisation of one feature: fitted on training clips, and kept by every head.

A clip far outside the rest, as one of a damaged file, has no part in the means and deviations
that all clips are standardised by, and no value counts for more than `LIMIT` deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F32, F64, Bools, Ints
from mvemo.fuse.matrices.rows import Rows

# Deviations from the mean at which values are stopped.
LIMIT = 5.0
# A clip is far outside the rest whose distance from the mean is so many times the usual one.
FAR = 5.0
# Deviation over mean below which single precision tells a column from a constant one no longer.
CONSTANT = 1e-6
# Rounds of leaving clips out; one outlier may hide another.
ROUNDS = 5


@dataclass(frozen=True)
class Scaling:
    """What the columns of a feature are standardised by.

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
        """float32 (clips, dim) of raw values, standardised and stopped at the limit."""
        z = values - self.shift.astype(np.float32)
        z *= (1.0 / self.scale).astype(np.float32)
        if np.isfinite(self.limit):
            np.clip(z, -self.limit, self.limit, out=z)
        return z


def fit_scaling(values: F32 | Rows, rows: Bools) -> tuple[Scaling, Bools]:
    """Means and deviations of the columns over some clips, without those far outside the rest.

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
    """Means, deviations, and the members' distances."""
    x = x[members]
    # Rounded as the values are, so that what is subtracted is what is kept.
    shift = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= shift
    np.square(x, out=x)
    scale = _deviations(x.mean(axis=0, dtype=np.float64), shift)
    return shift, scale, np.sqrt(x @ (1.0 / np.square(scale)) / x.shape[1])


def _fit_streamed(values: Rows, members: Ints) -> tuple[F32, F64, F64]:
    """As `_fit_array`, in two readings."""
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
            # Near the mean, so that little is lost where the mean's square is subtracted.
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
