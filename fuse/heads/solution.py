"""Where the solver starts, and where it ended."""

from __future__ import annotations

from dataclasses import dataclass

from mvemo.fuse.arrays import F32, F64, Bools, Ints


@dataclass(frozen=True)
class Start:
    """Where the steps begin: anywhere gives the same minimum, near it in fewer steps."""

    # For each block, float32 (its problems, outputs, dim), of standardised columns.
    coef: tuple[F32, ...]
    intercept: F64  # float64 (problems, outputs)


@dataclass(frozen=True)
class Solution:
    """All fitted problems."""

    scores: F32  # float32 (problems, outputs, clips): of every clip, in training or not
    # For each block, float32 (its problems, outputs, dim), of its columns times the factor.
    coef: tuple[F32, ...]
    intercept: F64  # float64 (problems, outputs)
    iterations: Ints  # int64 (problems,)
    converged: Bools  # bool (problems,): the loss is within about the tolerance of its minimum
