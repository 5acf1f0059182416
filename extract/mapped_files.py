"""Memory-mapped files, and the release of their memory."""

import mmap
from typing import Any

from numpy.typing import NDArray

# Mapped files above this size in bytes are released; for smaller files, that only costs time.
LARGE = 1 << 26


def file_mapping(array: NDArray[Any]) -> mmap.mmap | None:
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def release(array: NDArray[Any]) -> None:
    """Free the memory pages of a large mapped file; the system rereads them when needed."""
    mapped = file_mapping(array)
    if mapped is not None and len(mapped) > LARGE and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
