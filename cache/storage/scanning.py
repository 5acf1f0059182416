"""Single pass over a feature's values that reads, checksums and checks them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xxhash

from mvemo.cache.storage.layout import values_checksum
from mvemo.cache.storage.plain import PlainArray
from mvemo.cache.types import F32, Bools

# Bytes per step: small enough for the CPU cache, large enough that threads rarely wait.
STEP = 2 << 20


class Scan:
    """Single pass over all rows of an array.

    `values` is float32 or float16 (rows, dim); `into` receives the values, or None to discard them.
    """

    def __init__(self, values: PlainArray, into: F32 | None = None) -> None:
        self._values = values
        self._into = into
        self._state: xxhash.xxh3_128 = values_checksum()

    def blocks(self) -> Iterator[tuple[slice, F32, Bools]]:
        """Yield a slice of rows, their values until the next block, and True for finite rows."""
        n, dim = self._values.shape
        step = max(1, STEP // (4 * dim))
        half = self._values.dtype.itemsize == 2
        into = self._into
        block = np.empty((min(step, n), dim), self._values.dtype) if into is None else into[:step]
        # Weights that prevent overflow: then a weighted sum is finite if all its terms are. This
        # is ten times as fast as checking each number.
        weights = np.full(dim, 2.0 ** -dim.bit_length(), np.float32)
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            part = block[: rows.stop - start] if into is None else into[rows]
            self._values.read_into(part, start)
            self._state.update(part.data.cast("B"))
            with np.errstate(all="ignore"):
                yield rows, part, np.isfinite((part.astype("<f4") if half else part) @ weights)

    def checksum(self) -> str:
        """Return `values_checksum` of the blocks so far, as hexadecimal."""
        return self._state.hexdigest()
