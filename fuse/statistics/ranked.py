"""ROC-AUC and average precision of a ranking of clips, in every resample."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_matrix

from mvemo.fuse.arrays import F32, F64, Bools, Ints
from mvemo.fuse.metrics.averages import ratio
from mvemo.fuse.statistics.resamples import CHUNK, Resamples

# Memory of a block of resamples: 51 MB for 50,000 groups. Parts, such as folds, have shorter
# columns, so more resamples fit.
BLOCK_BYTES = 1 << 26
# Matrices that sum the positive and the negative clips of a resample, by level of their score.
Sides = tuple[csr_matrix, csr_matrix]


def areas(positive: Bools, scores: F64, mask: Bools, resamples: Resamples) -> F64:
    """Return the area under the ROC curve, ties counted half.

    `positive` is (clips, columns), `scores` (models, clips, columns), and `mask` (models, clips)
    or, for several parts such as folds, (parts, models, clips). The result is float64 (models,
    columns, resamples), with the parts first; NaN if a resample has only one class.
    """
    return _ranked(_area_sides, _area, positive, scores, mask, resamples)


def average_precisions(positive: Bools, scores: F64, mask: Bools, resamples: Resamples) -> F64:
    """Return the average precision, without interpolation; shapes as in `areas`.

    This is the sum, over the distinct scores, of the gain in recall times the precision there;
    NaN if a resample has no positive clip.
    """
    return _ranked(_precision_sides, _average_precision, positive, scores, mask, resamples)


def _ranked(
    prepare: Callable[[Bools, F64, Ints, int], Sides],
    score: Callable[[F32, F32], F64],
    positive: Bools,
    scores: F64,
    mask: Bools,
    resamples: Resamples,
) -> F64:
    """Return `score` of every model, column and resample; shapes as in `areas`.

    `prepare` makes the sparse matrices that sum a resample's positive and negative clips into
    the levels of one column. Threads share the columns of all models and one block of resamples,
    which bounds the memory.
    """
    n_resamples, n_groups = resamples.counts.shape
    parts = mask if mask.ndim == 3 else mask[None]
    sides = []
    for part in parts:
        for model, rows in enumerate(part):
            codes, y_true, values = resamples.codes[rows], positive[rows], scores[model, rows]
            for column in range(scores.shape[2]):
                sides.append(prepare(y_true[:, column], values[:, column], codes, n_groups))
    result = np.empty((len(sides), n_resamples))
    chunk = max(CHUNK, min(CHUNK * len(parts), BLOCK_BYTES // (4 * n_groups)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, n_resamples, chunk):
            # Counts are whole numbers, exact in float32.
            block = np.ascontiguousarray(resamples.counts[start : start + chunk].T, np.float32)

            def score_block(pair: Sides, block: F32 = block) -> F64:
                return score(np.asarray(pair[0] @ block), np.asarray(pair[1] @ block))

            for i, values in enumerate(pool.map(score_block, sides)):
                result[i, start : start + chunk] = values
    return result.reshape(*mask.shape[:-1], scores.shape[2], n_resamples)


def _area_sides(positive: Bools, score: F64, codes: Ints, n_groups: int) -> Sides:
    """Return the sums for `_area`; levels are the distinct scores of positive clips, ascending.

    A negative clip counts from the first level above it. If it is tied with a level, it counts
    half at that level and fully from the next.
    """
    levels, level = np.unique(score[positive], return_inverse=True)
    shape = (len(levels) + 1, n_groups)
    negative, negative_codes = score[~positive], codes[~positive]
    rows = [np.searchsorted(levels, negative, side) for side in ("left", "right")]
    return (
        _sums_by_level(level.reshape(-1), codes[positive], 1.0, shape),
        _sums_by_level(np.concatenate(rows), np.tile(negative_codes, 2), 0.5, shape),
    )


def _area(positive: F32, negative: F32) -> F64:
    """Return the share of (positive, negative) pairs in the right order (Mann-Whitney)."""
    np.cumsum(negative, axis=0, out=negative)
    pairs = positive.sum(axis=0, dtype=np.float64) * negative[-1]
    return ratio(np.einsum("ld,ld->d", positive, negative, dtype=np.float64), pairs)


def _precision_sides(positive: Bools, score: F64, codes: Ints, n_groups: int) -> Sides:
    """Return the sums for `_average_precision`; levels descend, and ties count fully."""
    levels, level = np.unique(-score[positive], return_inverse=True)
    shape = (len(levels) + 1, n_groups)
    return (
        _sums_by_level(level.reshape(-1), codes[positive], 1.0, shape),
        _sums_by_level(np.searchsorted(levels, -score[~positive]), codes[~positive], 1.0, shape),
    )


def _average_precision(positive: F32, negative: F32) -> F64:
    """Return the precision at each level, weighted by the gain in recall."""
    hits = np.cumsum(positive, axis=0)
    above = np.cumsum(negative, axis=0) + hits
    precision = np.divide(hits, above, out=np.zeros(hits.shape), where=above > 0, dtype=np.float64)
    gained = np.einsum("ld,ld->d", positive, precision, dtype=np.float64)
    return ratio(gained, hits[-1].astype(np.float64))


def _sums_by_level(rows: Ints, codes: Ints, weight: float, shape: tuple[int, int]) -> csr_matrix:
    """Return a sparse float32 (levels, groups) that sums a group's weight into its levels."""
    data = np.full(len(rows), weight, dtype=np.float32)
    return csr_matrix((data, (rows, codes)), shape=shape)
