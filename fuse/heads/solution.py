"""Where the solver starts, and where it ended."""

from __future__ import annotations

from dataclasses import dataclass

from mvemo.fuse.arrays import F32, F64, Bools, Ints


@dataclass(frozen=True)
class Start:
    """Where the steps begin: anywhere gives the same minimum, near it in fewer steps.

    Parameters
    ----------
    coef
        For each block, float32 (its problems, outputs, dim), of standardised columns.
    intercept
        float64 (problems, outputs).
    """

    coef: tuple[F32, ...]
    intercept: F64


@dataclass(frozen=True)
class Solution:
    """All fitted problems.

    Parameters
    ----------
    scores
        float32 (problems, outputs, clips): of every clip, in training or not.
    coef
        For each block, float32 (its problems, outputs, dim), of its columns times the factor.
    intercept
        float64 (problems, outputs).
    iterations
        int64 (problems,).
    converged
        bool (problems,): the loss is within about the tolerance of its minimum.
    """

    scores: F32
    coef: tuple[F32, ...]
    intercept: F64
    iterations: Ints
    converged: Bools
