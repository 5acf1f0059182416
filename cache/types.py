"""Short names of array types, and records that several modules of the cache use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

# Series of each training curve: ``{"music1d@fold0": {"train_loss": [...]}}``.
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, order=True)
class Reason:
    """Reason of a failure."""

    text: str  # cause, in one line
    time: str = ""  # ISO 8601 in UTC; empty in files of mvemo 0.1
    version: str = ""  # version of mvemo; empty in files of mvemo 0.1


# (clip id, stage) to the reason; None if an earlier failure was cleared.
Failures = dict[tuple[str, str], Reason | None]
