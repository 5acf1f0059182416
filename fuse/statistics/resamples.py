"""Resamples of groups of clips, and percentile intervals of scores over them.

Whole groups are drawn with replacement, as many as there are, because clips of one song
or film are not independent (Efron & Tibshirani 1993, sections 8.3 and 13.3). A resample is
kept as the number of times that each group was drawn, not as a list of clips: every score here
is a function of weighted sums over the clips, and the sums of all resamples are one product
with the matrix of counts.

Models that are scored on the same resamples can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.metrics.averages import ratio

N_RESAMPLES = 2000
LEVEL = 0.95
# Resamples per block: a row of 256 float32 sums stays in the nearest cache.
CHUNK = 256


@dataclass(frozen=True)
class Resamples:
    """Groups drawn with replacement, many times."""

    codes: Ints  # int64 (clips,): index of each clip's group
    # uint16 (resamples, groups): how often each group was drawn; rows sum to the number of groups.
    counts: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, rows: Bools | Ints) -> Resamples:
        """Return the same resamples for some clips: a mask, or indices that may repeat."""
        return Resamples(self.codes[rows], self.counts)

    def sums(self, values: F64) -> F64:
        """Sum `values` (clips, columns) over each resample: float64 (resamples, columns)."""
        n_clips, n_groups = len(self.codes), self.counts.shape[1]
        membership = csr_matrix(
            (np.ones(n_clips), (self.codes, np.arange(n_clips))), shape=(n_groups, n_clips)
        )
        per_group = np.asarray(membership @ values, dtype=np.float64)
        result = np.empty((len(self), values.shape[1]))
        for start in range(0, len(self), CHUNK):
            block = self.counts[start : start + CHUNK].astype(np.float64)
            np.matmul(block, per_group, out=result[start : start + CHUNK])
        return result

    def shares(self, correct: Bools, mask: Bools) -> F64:
        """Return the share of correct clips in each row of `mask`, float64 (rows, resamples)."""
        sums = self.sums(np.concatenate([correct & mask, mask]).T.astype(np.float64)).T
        return ratio(*np.split(sums, 2))


def resample_groups(
    groups: Sequence[object], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Resamples:
    """Draw groups with replacement; equal groups and seed give equal resamples.

    Examples
    --------
    >>> resamples = resample_groups(["song a", "song a", "song b"], n_resamples=4)
    >>> resamples.codes.tolist()
    [0, 0, 1]
    >>> resamples.counts.sum(axis=1).tolist()
    [2, 2, 2, 2]
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(names)
    rng = np.random.default_rng(seed)
    counts = np.empty((n_resamples, n), dtype=np.uint16)
    for start in range(0, n_resamples, CHUNK):
        rows = min(CHUNK, n_resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(
            rows, n
        )
    return Resamples(codes.reshape(-1).astype(np.int64), counts)


def percentile_interval(values: F64, level: float = LEVEL) -> F64:
    """Return the percentile interval over the last axis, (..., 2); NaN are left out.

    Examples
    --------
    >>> percentile_interval(np.array([0.5, 0.6, 0.7, np.nan]), level=0.5)
    array([0.55, 0.65])
    """
    ends = [50 * (1 - level), 50 * (1 + level)]
    if not np.isnan(values).any():
        result: F64 = np.moveaxis(np.percentile(values, ends, axis=-1), 0, -1)
        return result
    finite = [row[np.isfinite(row)] for row in values.reshape(-1, values.shape[-1])]
    rows = [np.percentile(row, ends) if len(row) else np.full(2, np.nan) for row in finite]
    return np.array(rows).reshape((*values.shape[:-1], 2))
