"""One pass over a feature's values: read, summed up and looked at while they are in cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xxhash

from mvemo.cache.storage.encoding import values_checksum
from mvemo.cache.storage.plain import PlainArray
from mvemo.cache.types import F32, Bools

# Bytes at a time: small enough for the processor's cache, large enough that threads rarely meet.
STEP = 2 << 20


class Scan:
    """Reads all rows of an array once.

    Parameters
    ----------
    values
        float32 or float16 (rows, dim).
    into
        Where to keep them, of the same shape; None to forget them.
    """

    def __init__(self, values: PlainArray, into: F32 | None = None) -> None:
        self._values = values
        self._into = into
        self._state: xxhash.xxh3_128 = values_checksum()

    def blocks(self) -> Iterator[tuple[slice, F32, Bools]]:
        """Which rows, their values until the next block, and whether each is finite."""
        n, dim = self._values.shape
        step = max(1, STEP // (4 * dim))
        half = self._values.dtype.itemsize == 2
        into = self._into
        block = np.empty((min(step, n), dim), self._values.dtype) if into is None else into[:step]
        # A power of two that keeps a sum of the largest numbers finite: a sum is finite where
        # all its terms are, and ten times as fast as looking at each.
        weights = np.full(dim, 2.0 ** -dim.bit_length(), np.float32)
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            part = block[: rows.stop - start] if into is None else into[rows]
            self._values.read_into(part, start)
            self._state.update(part.data.cast("B"))
            with np.errstate(all="ignore"):
                yield rows, part, np.isfinite((part.astype("<f4") if half else part) @ weights)

    def checksum(self) -> str:
        """`values_checksum` of the blocks so far, as hexadecimal."""
        return self._state.hexdigest()
