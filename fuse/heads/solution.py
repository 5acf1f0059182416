"""Start and solution of the solver."""

from __future__ import annotations

from dataclasses import dataclass

from mvemo.fuse.arrays import F32, F64, Bools, Ints


@dataclass(frozen=True)
class Start:
    """Start of the steps; the minimum does not depend on it, only the number of steps."""

    # One per block, float32 (its problems, outputs, dim), of standardised columns.
    coef: tuple[F32, ...]
    intercept: F64  # float64 (problems, outputs)


@dataclass(frozen=True)
class Solution:
    """Solution of all problems."""

    scores: F32  # float32 (problems, outputs, clips): of all clips, in training or not
    # One per block, float32 (its problems, outputs, dim), of its columns times the factor.
    coef: tuple[F32, ...]
    intercept: F64  # float64 (problems, outputs)
    iterations: Ints  # int64 (problems,)
    converged: Bools  # bool (problems,): True if the loss is within the tolerance of its minimum
