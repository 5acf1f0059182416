"""Means and ratios that allow for undefined values, and the scores of one set of clips."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import F64


class Measures(NamedTuple):
    """Scores of one set of clips; NaN for an undefined score."""

    overall: Mapping[str, float]  # name of a score to its value over all outputs
    per_output: Mapping[str, F64]  # name of a score to float64 (outputs,)


def mean_of_finite(values: F64) -> float:
    """Return the mean of the finite numbers; NaN if there are none."""
    return float(mean_finite(values, axis=0))


def mean_finite(values: F64, axis: int) -> F64:
    """Return the mean of the finite numbers along an axis; NaN if there are none."""
    finite = np.isfinite(values)
    n = finite.sum(axis=axis)
    total = np.where(finite, values, 0.0).sum(axis=axis)
    return ratio(total, n)


def ratio(numerator: F64, denominator: F64) -> F64:
    """Divide two arrays, with NaN where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    result = np.full(shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def complete(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return True for each row (last axis) that has no NaN or infinity."""
    return np.asarray(np.isfinite(values).all(axis=-1), bool)


class Spread(NamedTuple):
    """Smallest, mean and largest of the finite values; NaN if there are none."""

    min: float
    mean: float
    max: float


def spread(values: F64) -> Spread:
    """Return the minimum, mean and maximum of the finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Spread(np.nan, np.nan, np.nan)
    return Spread(float(finite.min()), float(finite.mean()), float(finite.max()))
