"""Arrays and records that the modules of the cache share, by one name each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Checksums.
Bytes = NDArray[np.uint8]

# Curve's name to its series: ``{"music1d@fold0": {"train_loss": [...]}}``.
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, order=True)
class Reason:
    """Why something failed."""

    text: str  # in one line
    time: str = ""  # when, as ISO 8601 in UTC, and of mvemo; empty in files of mvemo 0.1
    version: str = ""  # when, as ISO 8601 in UTC, and of mvemo; empty in files of mvemo 0.1


# Clip id and stage to the reason; None where an earlier failure was cleared.
Failures = dict[tuple[str, str], Reason | None]
