"""Features as the solver multiplies with them: blocks of columns that problems share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F32, F64, Bools, Ints

# A column that varies less than this in training, its spread over all clips being one, is
# constant: single precision tells no smaller variance from none.
CONSTANT = 1e-3
# Columns squared at once, so that no second copy of the features is held.
CHUNK = 256


@dataclass(frozen=True)
class Block:
    """One feature, and the problems that use it.

    Parameters
    ----------
    values
        float32 (clips, dim), finite; about zero mean and unit spread, for accuracy.
    problems
        int64: indices of the problems that have these columns.
    factors
        float64 (problems of the block,): what each multiplies its standardised columns by;
        None for 1.
    """

    values: F32
    problems: Ints
    factors: F64 | None = None

    def moments(self, weights: F32) -> tuple[F64, F64]:
        """Mean, and divisor of the columns, of each of the block's problems.

        `weights`, float32 (problems of the block, clips), have rows that sum to 1.
        """
        mean, scale = weighted_moments(self.values, weights)
        return mean, scale if self.factors is None else scale / self.factors[:, None]


class RunningBlock:
    """One block as the problems that still run see it.

    Each problem has the columns standardised on its own training clips. That is never
    written out: shift and scale are taken into the products.

    Parameters
    ----------
    block
        The feature.
    mean, scale
        float64 (problems of the block, dim), of `Block.moments`.

    Attributes
    ----------
    slots
        int64: positions of the block's problems among those that run.
    rows
        int64: their positions among all problems of the block.
    """

    def __init__(self, block: Block, mean: F64, scale: F64) -> None:
        self.values = block.values
        self.slots = block.problems
        self.rows = np.arange(len(block.problems))
        # float32 (problems, 1, dim)
        self._mean = mean.astype(np.float32)[:, None, :]
        self._inverse = (1.0 / scale).astype(np.float32)[:, None, :]

    def scores(self, coef: F32) -> F32:
        """(problems, outputs, dim) of coefficients to (problems, outputs, clips) of scores."""
        scaled = coef * self._inverse
        flat = scaled.reshape(scaled.shape[0] * scaled.shape[1], scaled.shape[2])
        shape = (*coef.shape[:2], len(self.values))
        product: NDArray[np.floating] = (flat @ self.values.T).reshape(shape)
        product -= np.matmul(scaled, self._mean.transpose(0, 2, 1))
        return product.astype(np.float32, copy=False)

    def gradient(self, residual: F32) -> F32:
        """(problems, outputs, clips) of residuals to (problems, outputs, dim), by `coef`."""
        flat = residual.reshape(residual.shape[0] * residual.shape[1], residual.shape[2])
        product: F32 = (flat @ self.values).reshape(*residual.shape[:2], self.values.shape[1])
        total = residual.sum(axis=2, dtype=np.float64).astype(np.float32)
        product -= total[:, :, None] * self._mean
        product *= self._inverse
        return product

    def drop(self, done: Bools) -> Bools:
        """Run on without the problems that are done, bool (running problems,).

        Returns
        -------
        bool (problems of the block that ran,): those that run on.
        """
        kept: Bools = ~done[self.slots]
        new_slots = np.cumsum(~done) - 1
        self.slots, self.rows = new_slots[self.slots[kept]], self.rows[kept]
        self._mean, self._inverse = self._mean[kept], self._inverse[kept]
        return kept


def weighted_moments(values: F32, weights: F32) -> tuple[F64, F64]:
    """Mean and standard deviation of columns, under many weightings of the clips at once.

    Parameters
    ----------
    values
        float32 (clips, dim).
    weights
        float32 (problems, clips), whose rows sum to 1.

    Returns
    -------
    float64 (problems, dim) each; the deviation of a constant column is 1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0, 5.0], [2.0, 5.0], [9.0, 5.0]], np.float32)
    >>> mean, scale = weighted_moments(x, np.array([[0.5, 0.5, 0.0]], np.float32))
    >>> mean, scale
    (array([[1., 5.]]), array([[1., 1.]]))
    """
    mean = (weights @ values).astype(np.float64)
    squares = np.empty_like(mean)
    for start in range(0, values.shape[1], CHUNK):
        columns = slice(start, start + CHUNK)
        squares[:, columns] = weights @ np.square(values[:, columns])
    variance = np.maximum(squares - np.square(mean), 0.0)
    scale = np.sqrt(variance)
    scale[scale < CONSTANT * np.maximum(1.0, np.abs(mean))] = 1.0
    return mean, scale
