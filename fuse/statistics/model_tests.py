"""Corrected tests of the differences between two models over folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from mvemo.fuse.arrays import F64

NAN = float("nan")


def nadeau_bengio(
    differences: ArrayLike, n_train: float, n_test: float
) -> tuple[float, float, float]:
    """Test score differences over folds and repeats: return their mean, t and two-sided p.

    The corrected resampled t-test of Nadeau & Bengio 2003, "Inference for the generalization
    error", section 5.4: training sets overlap, so the variance of the mean of J differences is
    (1 / J + n_test / n_train) times their sample variance, with J - 1 degrees of freedom. Only
    the ratio of the numbers of clips counts. NaN differences are left out; with fewer than two,
    t and p are NaN. Equal differences give t = 0 and p = 1 if they are 0, otherwise infinite t
    and p = 0.

    Examples
    --------
    >>> mean, t, p = nadeau_bengio([0.0, 0.01, 0.02, 0.03, 0.04], n_train=80, n_test=20)
    >>> round(mean, 3), round(t, 3), round(p, 3)
    (0.02, 1.886, 0.132)
    """
    if not (n_train > 0 and n_test > 0):
        raise ValueError(f"n_train {n_train} and n_test {n_test} must be above 0")
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    count = len(values)
    mean = float(values.mean()) if count else NAN
    if count < 2:
        return mean, NAN, NAN
    # Equal numbers have a variance of rounding errors only.
    variance = 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))
    if variance == 0:
        return (mean, 0.0, 1.0) if mean == 0 else (mean, float(np.copysign(np.inf, mean)), 0.0)
    t = mean / float(np.sqrt((1 / count + n_test / n_train) * variance))
    return mean, t, float(2 * stdtr(count - 1, -abs(t)))


def holm(p_values: ArrayLike) -> F64:
    """Correct p-values by Holm's step-down method (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, made monotone and limited to 1. NaN stay
    NaN and are not counted in m.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    finite = np.flatnonzero(np.isfinite(p))
    order = finite[np.argsort(p[finite], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return result
