"""Kernel ridge regression over standardised vectors of length 1: a head that is not linear.

The dual form follows Saunders et al. 1998, "Ridge regression learning algorithm in dual
variables". The kernel is k(x, y) = exp(-|x - y|²) + 1, whose constant is the intercept.
Classes are fitted as indicators, so that scores estimate their probabilities: the scores s become
max(s, FLOOR)**slope, divided by their sum.
"""

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.features import leave_each_out
from mvemo.fuse.numeric import MIN_PROBABILITY, Link, softmax
from mvemo.manifests.array_types import F32, F64, Ints

# Largest number of training clips; time grows with its third power.
MOST_CLIPS = 5000
# Ridges λ to choose from, by the squared error of inner predictions. These, and the width of the
# kernel, were chosen by looking at EmoMV, emoMusic and 100 music videos.
RIDGES = (0.1, 0.3, 1.0)
# Smallest score of a class, below which scores are noise. Chosen by the log loss on EmoMV.
FLOOR = 0.05


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel head."""

    rows: F32  # float32 (clips, dim): training vectors of length 1
    dual: F32  # float32 (clips, outputs)
    ridge: float

    def scores(self, unit: F32) -> F64:
        """Return scores of vectors of length 1, float32 (clips, dim): float64 (clips, outputs)."""
        return np.asarray(kernel(unit, self.rows) @ self.dual, dtype=np.float64)


def outputs_of(scores: F64, link: Link, slope: float) -> F64:
    """Convert scores to probabilities of classes or of tags; return values unchanged."""
    if link == "softmax":
        return softmax(np.log(np.maximum(scores, FLOOR)) * slope)
    if link == "sigmoid":
        return np.clip(scores, MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
    return scores


def kernel(x: F32, y: F32) -> F32:
    """Return the kernel between vectors of length 1, float32 (rows of x, rows of y)."""
    product: F32 = x @ y.T
    product *= 2.0
    product -= 2.0
    np.exp(product, out=product)
    product += 1.0
    return product


def fit_kernel(unit: F32, target: F64, inner: Ints, weights: F32) -> tuple[KernelRidge, F64]:
    """Return the head of the ridge of least squared error on inner folds, and its inner scores.

    `unit` has vectors of length 1, float32 (clips, dim); `target` indicators of classes, tags, or
    standardised values, float64 (clips, outputs); `inner` the inner fold of each clip; `weights`
    those of the clips' squared errors.
    """
    gram, values = kernel(unit, unit), target.astype(np.float32)
    tried = {ridge: np.zeros_like(target) for ridge in RIDGES}
    for train, rows in leave_each_out(inner):
        part, others = gram[np.ix_(train, train)], gram[np.ix_(rows, train)]
        for ridge, scores in tried.items():
            scores[rows] = others @ _dual(part, ridge / weights[train], values[train])
    ridge = min(RIDGES, key=lambda one: float((weights @ np.square(tried[one] - target)).sum()))
    return KernelRidge(unit, _dual(gram, ridge / weights, values), ridge), tried[ridge]


def refit_kernel(unit: F32, target: F64, ridge: float, weights: F32) -> KernelRidge:
    """Fit a head with a given ridge; the other arguments are those of `fit_kernel`."""
    return KernelRidge(
        unit, _dual(kernel(unit, unit), ridge / weights, target.astype(np.float32)), ridge
    )


def _dual(gram: F32, ridges: F32, target: F32) -> F32:
    """Return the dual coefficients of a fit, float32 (clips, outputs); clips have own ridges."""
    # Only fitting needs SciPy, which is slow to import.
    from scipy.linalg import lapack

    system = gram.copy()
    system[np.diag_indices_from(system)] += ridges
    # A transposed view of the symmetric matrix is in LAPACK's order, so it is not copied again.
    _, dual, failed = lapack.sposv(system.T, target, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the kernel matrix is not positive definite")
    return np.asarray(dual)
