"""Faults of tables of numbers: repeated columns, and rows whose cells moved by a column."""

from __future__ import annotations

import numpy as np

from mvemo.fuse.near_pairs import distinct_rows
from mvemo.fuse.scaling import CONSTANT, row_blocks
from mvemo.manifests.array_types import F32, F64, Bools

# Columns that are read at a time, and rows on which columns are first compared.
COLUMNS, ROWS = 256, 2000
# Largest squared distance of two standardised columns of which one repeats the other.
ROUNDING = 1e-6
# Directions on which columns are projected.
DIRECTIONS = 4
# Least log-likelihood ratio of a shifted row, beyond the logarithm of the number of rows; its ratio
# to that of the median row; and the share of cells that fit better.
SURELY, MIRRORED, CELLS = 10.0, 0.5, 0.5


def repeated_columns(values: F32, far: Bools) -> Bools:
    """Return a mask of varying columns that equal an earlier one, but for scale and rounding.

    Rows of `far` are left out of the comparison: an outlier makes all columns proportional.
    """
    varies = np.flatnonzero(values.min(axis=0) != values.max(axis=0))
    repeated = np.zeros(values.shape[1], np.bool_)
    first, _ = distinct_rows(
        column
        for start in range(0, len(varies), COLUMNS)
        for column in np.ascontiguousarray(values[:, varies[start : start + COLUMNS]].T)
    )
    repeated[np.delete(varies, first)] = True
    columns, rows = varies[np.sort(first)], np.flatnonzero(~far)
    for i, j in _proportional(values[rows[:: -(-len(rows) // ROWS)]], columns):
        if not repeated[[i, j]].any():
            pair = np.column_stack([values[rows, i], values[rows, j]])
            # Tails hide that the rest differs, and sparse columns differ only in their tails.
            units = _unit(pair), _unit(pair, tails=True)
            repeated[j] = all(2 - 2 * abs(u[:, 0] @ u[:, 1]) < ROUNDING for u in units)
    return repeated


def _proportional(values: F32, columns: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of columns that may be proportional, in order, by projections on few rows."""
    from scipy.spatial import KDTree

    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, len(values)))
    points = np.zeros((len(columns), DIRECTIONS))
    for start in range(0, len(columns), COLUMNS):
        part = slice(start, start + COLUMNS)
        points[part] = (directions @ _unit(values[:, columns[part]])).T
    told = np.flatnonzero(points.any(axis=1))
    points[told] *= np.sign(points[told, :1])
    pairs = KDTree(points[told]).query_pairs(4 * np.sqrt(DIRECTIONS * ROUNDING))
    return sorted((int(columns[told[i]]), int(columns[told[j]])) for i, j in pairs)


def _unit(columns: F32, *, tails: bool = False) -> F64:
    """Return columns (rows, columns) without their mean and tails, with length 1.

    Columns that vary only by rounding are zero.
    """
    x = columns.astype(np.float64)
    low, high = np.quantile(x, (0.05, 0.95), axis=0)
    # A column may vary only in its tails.
    x = np.where(tails | (high <= low), x, np.clip(x, low, high))
    mean = x.mean(axis=0)
    x -= mean
    length = np.linalg.norm(x, axis=0)
    x[:, length <= CONSTANT * np.abs(mean) * np.sqrt(len(x))] = 0.0
    return np.asarray(x / np.where(length > 0, length, 1.0))


def shifted_rows(values: F32) -> Bools:
    """Return a mask of rows whose values fit the columns far better after a shift by one column.

    Values of a column have Student's t distribution with 3 degrees of freedom, so that outliers
    count little. Columns of the same distribution cannot be told apart.
    """
    few = values[:: -(-len(values) // ROWS)]
    low, centre, high = np.quantile(few, (0.05, 0.5, 0.95), axis=0).astype(np.float32)
    # A column with long tails, such as of sigmoids, has values far from its middle half.
    spread = np.maximum(1.48 * np.median(np.abs(few - centre), axis=0), (high - low) / 6)
    told = spread > 0
    shifted = np.zeros(len(values), np.bool_)
    if told.sum() < 3:
        return shifted
    centre, spread = centre[told], spread[told]
    for step in (-1, 1):
        ratio, better = np.empty(len(values)), np.empty(len(values))
        for block in np.array_split(np.arange(len(values)), len(row_blocks(values))):
            block_values, other = values[block], np.roll(values[block], step, axis=1)
            gain = _misfit(block_values[:, told], centre, spread) - _misfit(
                other[:, told], centre, spread
            )
            ratio[block], better[block] = gain.sum(axis=1), (gain > 0).mean(axis=1)
        least = max(SURELY + np.log(len(values)), -MIRRORED * np.median(ratio))
        shifted |= (ratio > least) & (better >= CELLS)
    return shifted


def _misfit(rows: F32, centre: F32, spread: F32) -> F32:
    """Return minus the log-likelihood of each cell, without constants."""
    return np.asarray(2 * np.log1p(np.square((rows - centre) / spread) / 3), np.float32)
