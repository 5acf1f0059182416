"""Kernel ridge regression over standardised vectors of length 1: a head that is not linear.

The kernel is k(x, y) = exp(-|x - y|²) + 1, whose constant is the intercept. With A = K + λI and
a = A⁻¹Y, a fit without a set B of training clips predicts Y_B - (A⁻¹)_BB⁻¹ a_B for them (Rasmussen
and Williams 2006, section 5.4.2, for sets), so that inner folds cost no further fit.
Classes are fitted as indicators; the scores become probabilities by a softmax whose slope is fitted
on inner predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from mvemo.fuse.numeric import F32, F64, Ints

# Largest number of training clips; time grows with its third power.
MOST_CLIPS = 5000
# Ridges λ to choose from, by the squared error of inner predictions. These, and the width of the
# kernel, were chosen by looking at EmoMV, emoMusic and 100 music videos.
RIDGES = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel head."""

    rows: F32  # float32 (clips, dim): training vectors of length 1
    dual: F32  # float32 (clips, outputs)
    ridge: float

    def scores(self, unit: F32) -> F64:
        """Return scores of vectors of length 1, float32 (clips, dim): float64 (clips, outputs)."""
        return np.asarray(kernel(unit, self.rows) @ self.dual, dtype=np.float64)


def kernel(x: F32, y: F32) -> F32:
    """Return the kernel between vectors of length 1, float32 (rows of x, rows of y)."""
    product: F32 = x @ y.T
    product *= 2.0
    product -= 2.0
    np.exp(product, out=product)
    product += 1.0
    return product


def unit_rows(z: F32) -> F32:
    """Divide each row by its length; rows of zeros stay zero."""
    length = np.linalg.norm(z, axis=1, keepdims=True)
    return np.asarray(z / np.where(length > 0, length, 1.0), dtype=np.float32)


def fit_kernel(unit: F32, target: F64, inner: Ints) -> tuple[KernelRidge, F64]:
    """Fit a head, and predict its training clips by fits without their inner fold.

    Parameters
    ----------
    unit
        float32 (clips, dim): vectors of length 1 (`unit_rows`).
    target
        float64 (clips, outputs): indicators of classes, tags, or standardised values.
    inner
        int64 (clips,): inner fold of each clip, from 0.

    Returns
    -------
    The head with the ridge of least squared error on inner folds, and its inner scores, float64
    (clips, outputs).
    """
    gram = kernel(unit, unit)
    diagonal = np.diag_indices_from(gram)
    members = [np.flatnonzero(inner == fold) for fold in range(int(inner.max()) + 1)]
    tried = []
    for ridge in RIDGES:
        system = gram.copy()
        system[diagonal] += np.float32(ridge)
        inverse = _inverse(system)
        dual = inverse @ target.astype(np.float32)
        scores = np.empty_like(target)
        for rows in members:
            block = inverse[np.ix_(rows, rows)].astype(np.float64)
            scores[rows] = target[rows] - np.linalg.solve(block, dual[rows].astype(np.float64))
        tried.append((float(np.square(scores - target).mean()), ridge, dual, scores))
    _, ridge, dual, scores = min(tried, key=lambda one: one[0])
    return KernelRidge(unit, dual, ridge), scores


def _inverse(system: F32) -> F32:
    """Return the inverse of a symmetric positive definite matrix, which is overwritten."""
    factor, failed = lapack.spotrf(system, lower=1, overwrite_a=1)
    inverse, failed = (factor, failed) if failed else lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError("the kernel matrix is not positive definite")
    lower = np.tril(inverse, -1)
    result: F32 = lower + lower.T
    result[np.diag_indices_from(result)] = np.diagonal(inverse)
    return result
