"""The array types of this package, one name for each element type."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
Mask = NDArray[np.bool_]

# Bytes of a file from which it is let go of: of smaller ones it would only cost time.
LARGE = 1 << 26


def file_mapping(array: NDArray[Any]) -> mmap.mmap | None:
    """The mapping of a file that an array's values lie in; None where they lie in memory."""
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def release(array: NDArray[Any]) -> None:
    """Let the system take back the memory of what was read of a mapped file; else nothing.

    It is read again when it is asked for. A file of hours would otherwise be counted as the
    memory of every process that reads it through.
    """
    mapped = file_mapping(array)
    if mapped is not None and len(mapped) > LARGE and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
