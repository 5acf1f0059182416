"""Short names of the types of arrays and training curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

# Series of each training curve: ``{"music1d@fold0": {"train_loss": [...]}}``.
Curves = dict[str, dict[str, list[float]]]
