"""Rows of feature values, in memory or not, and their standardisation on training clips.

Outliers, such as clips of damaged files, are left out of the means and deviations. Standardised
values are clipped to `LIMIT` standard deviations.

Standardisation within groups removes the effect of a singer, an artist or a room. This is speaker
normalisation (Busso et al. 2013, "Iterative feature normalization scheme", section II): each
group's clips are standardised by the means and deviations of the group, without labels. A model
then needs several clips of a new group to predict any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import codes_of
from mvemo.manifests.array_types import F32, F64, Bools, Ints

# Largest absolute standardised value.
LIMIT = 5.0
# A clip is an outlier if its distance from the mean is over this many times the median distance.
FAR = 5.0
# A column counts as constant if deviation / mean is below this (single precision).
CONSTANT = 1e-6
# Variances and deviations above HUGE or below 1 / HUGE need double precision.
HUGE = 1e30
# Number of rounds of removing outliers, because one outlier may hide another.
ROUNDS = 5
# Numbers of a block of rows that are computed at a time: 2 MB of them fit in the CPU cache.
BLOCK = 1 << 19
# Up to this number of products, rows are the left factor.
FEW = 32
# Minimum number of clips in a group; means and deviations of fewer are unreliable.
MIN_CLIPS = 5


class Rows:
    """Values of clips, float32 (clips, dim), zero if missing, read in blocks."""

    def __init__(
        self, shape: tuple[int, int], blocks: Callable[[], Iterator[tuple[Ints | slice, F32]]]
    ) -> None:
        self.shape: tuple[int, int] = shape
        self.blocks: Callable[[], Iterator[tuple[Ints | slice, F32]]] = blocks

    def map(self, change: Callable[[F32], F32]) -> Rows:
        """Return rows whose blocks are the results of `change`, which keeps their shape."""
        return Rows(self.shape, lambda: ((rows, change(block)) for rows, block in self.blocks()))

    def take(self, rows: Bools) -> Rows:
        """Return the rows selected by a mask, bool (clips,)."""
        if rows.all():
            return self
        numbers = np.cumsum(rows) - 1

        def blocks() -> Iterator[tuple[Ints | slice, F32]]:
            for places, block in self.blocks():
                taken = rows[places]
                if taken.any():
                    yield numbers[places][taken], block[taken]

        return Rows((int(rows.sum()), self.shape[1]), blocks)

    def scores(self, coef: F32) -> F32:
        """Multiply coefficients (scores, dim) with the rows: (scores, clips)."""
        product: F32 = np.zeros((len(coef), self.shape[0]), np.float32)
        # Without coefficients, no block needs to be read.
        for rows, block in self.blocks() if len(coef) else ():
            product[:, rows] = coef @ block.T
        return product

    def gradient(self, residual: F32) -> F32:
        """Multiply residuals (scores, clips) with the rows: (scores, dim)."""
        total = np.zeros((len(residual), self.shape[1]))
        for rows, block in self.blocks() if len(residual) else ():
            total += residual[:, rows] @ block
        return total.astype(np.float32)


class ArrayRows(Rows):
    """Rows of an in-memory array, multiplied as a whole."""

    def __init__(self, values: F32) -> None:
        n, dim = values.shape
        super().__init__((n, dim), lambda: iter([(slice(None), values)]))
        self._values = values

    def take(self, rows: Bools) -> Rows:
        return self if rows.all() else ArrayRows(self._values[rows])

    def scores(self, coef: F32) -> F32:
        # BLAS multiplies few coefficients faster in this order.
        return (self._values @ coef.T).T if len(coef) <= FEW else coef @ self._values.T

    def gradient(self, residual: F32) -> F32:
        return residual @ self._values


def rows_of(values: F32 | Rows) -> Rows:
    """Return rows unchanged, and an array as `ArrayRows`."""
    return values if isinstance(values, Rows) else ArrayRows(values)


@dataclass(frozen=True)
class Scaling:
    """Means and deviations that standardise the columns of a feature."""

    shift: F64  # float64 (dim,)
    scale: F64  # float64 (dim,)
    limit: float = LIMIT  # largest absolute standardised value; infinite for no limit

    def apply(self, values: F32) -> F32:
        """Standardise raw values, float32 (clips, dim), and clip them to the limit."""
        if self.scale.min(initial=1.0) < 1 / HUGE or self.scale.max(initial=1.0) > HUGE:
            z = ((values - self.shift) / self.scale).astype(np.float32)
        else:
            z = values - self.shift.astype(np.float32)
            z *= (1.0 / self.scale).astype(np.float32)
        if np.isfinite(self.limit):
            np.clip(z, -self.limit, self.limit, out=z)
        return z


def row_blocks(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Return consecutive blocks of rows that fit in the CPU cache, as views."""
    step = max(1, BLOCK // max(1, values[:1].size))
    return [values[start : start + step] for start in range(0, len(values), step)]


def unit_rows(z: F32) -> F32:
    """Divide each row by its length, in place; rows of zeros stay zero."""
    for rows in row_blocks(z):
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1.0)
    return z


def fit_scaling(values: F32 | Rows, rows: Bools, far_from: float = FAR) -> tuple[Scaling, Bools]:
    """Fit means and deviations on the clips of `rows`; return also the outliers, bool (clips,)."""
    members = np.flatnonzero(rows)
    dim = values.shape[1]
    far = np.zeros(len(rows), np.bool_)
    if not len(members):
        return Scaling(np.zeros(dim), np.ones(dim)), far
    for _ in range(ROUNDS):
        shift, scale, distance = _fit(values, members)
        outside = distance > far_from * np.median(distance)
        if not outside.any():
            break
        far[members[outside]] = True
        members = members[~outside]
    return Scaling(shift.astype(np.float64), scale), far


def _fit(values: F32 | Rows, members: Ints, dtype: Any = np.float32) -> tuple[F32, F64, F64]:
    """Return means, deviations, and the distances of the clips in `members`.

    If squares of type `dtype` overflow or underflow, everything is computed in double precision.
    """
    n, dim = values.shape

    def blocks() -> Iterator[tuple[Ints, F32]]:
        if isinstance(values, Rows):
            is_member = np.isin(np.arange(n), members)
            for rows, block in values.blocks():
                yield np.arange(n)[rows][is_member[rows]], block[is_member[rows]]
            return
        step = max(1, BLOCK // max(1, dim))
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            yield rows, values[rows]

    def squares(block: F32) -> NDArray[Any]:
        z = block.astype(dtype, copy=False) - shift
        return np.square(z, out=z)

    # The shift is rounded like the values, so that the stored shift is the one subtracted.
    total = sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks())
    shift = np.asarray(total / len(members), np.float32)
    with np.errstate(over="ignore"):
        total = sum(squares(block).sum(axis=0, dtype=np.float64) for _, block in blocks())
    variance = np.asarray(total / len(members))
    if dtype is np.float32 and _is_inexact(variance, shift):
        return _fit(values, members, np.float64)
    scale: F64 = np.sqrt(variance)
    scale[scale <= CONSTANT * np.abs(shift)] = 1.0
    scale[scale == 0.0] = 1.0
    distance = np.zeros(n)
    for rows, block in blocks():
        distance[rows] = squares(block) @ (1.0 / np.square(scale))
    return shift, scale, np.sqrt(distance[members] / dim)


def _is_inexact(variance: F64, shift: F32) -> bool:
    """Return True if squares were too large or too small for single precision."""
    # If a column is not constant, its squares can be too small only if its mean is small.
    small = (variance < 1 / HUGE) & (shift != 0) & (np.abs(shift) < 1 / np.sqrt(HUGE))
    return bool(np.any(small | ~(variance < HUGE)))


def standardise_within(
    values: F32, present: Bools, groups: Sequence[str], others: Scaling | None = None
) -> F32:
    """Standardise each group separately; small groups by `others` or, if None, by all clips."""
    others = fit_scaling(values, present)[0] if others is None else others
    result = others.apply(values)
    members = np.flatnonzero(groups_within(present, groups))
    group = codes_of(np.array(groups)[members])
    ordered = members[np.argsort(group, kind="stable")]
    for rows in np.split(ordered, np.cumsum(np.bincount(group))[:-1]) if len(members) else ():
        part = values[rows]
        result[rows] = fit_scaling(part, np.ones(len(part), np.bool_))[0].apply(part)
    result[~present] = 0.0
    return result


def groups_within(present: Bools, groups: Sequence[str]) -> Bools:
    """Return bool (clips,): True for clips with the feature in groups of `MIN_CLIPS` or more."""
    which = codes_of(groups)
    counts = np.bincount(which, present)
    return present & (counts[which] >= MIN_CLIPS)
