"""Rows of feature values that need not lie in memory, multiplied a block at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F32, Bools, Ints


class Rows(ABC):
    """Values of clips, float32 (clips, dim), zero where missing."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return the number of clips, and of values per clip."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        """Yield row numbers and their read-only values; missing rows may be left out."""

    def take(self, rows: Bools) -> Rows:
        """Return the rows of a mask, bool (clips,)."""
        return self if rows.all() else _TakenRows(self, rows)

    def scores(self, coef: F32) -> F32:
        """Multiply coefficients (scores, dim) with the rows: (scores, clips)."""
        product: F32 = np.zeros((len(coef), self.shape[0]), np.float32)
        # Without coefficients, nothing needs to be read.
        for rows, block in self.blocks() if len(coef) else ():
            product[:, rows] = coef @ block.T
        return product

    def gradient(self, residual: F32) -> F32:
        """Multiply residuals (scores, clips) with the rows: (scores, dim)."""
        total = np.zeros((len(residual), self.shape[1]))
        for rows, block in self.blocks() if len(residual) else ():
            total += residual[:, rows] @ block
        return total.astype(np.float32)


@dataclass(frozen=True)
class ArrayRows(Rows):
    """Rows of an in-memory array, served as one block.

    Examples
    --------
    >>> rows = ArrayRows(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    >>> rows.take(np.array([False, True])).scores(np.array([[1.0, 0.5]], np.float32))
    array([[5.]], dtype=float32)
    """

    values: F32

    @property
    def shape(self) -> tuple[int, int]:
        n, dim = self.values.shape
        return n, dim

    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        yield slice(None), self.values

    def take(self, rows: Bools) -> Rows:
        return self if rows.all() else ArrayRows(self.values[rows])

    def scores(self, coef: F32) -> F32:
        product: F32 = coef @ self.values.T
        return product

    def gradient(self, residual: F32) -> F32:
        product: F32 = residual @ self.values
        return product


@dataclass(frozen=True)
class StoredRows(Rows):
    """Rows that are read again each time, as `mvemo.cache.Cache.blocks` reads them.

    Parameters
    ----------
    read
        Function that starts a new reading.
    n, dim
        Number of clips, and of values per clip.
    """

    read: Callable[[], Iterator[tuple[Ints, F32]]]
    n: int
    dim: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.dim

    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        yield from self.read()


@dataclass(frozen=True)
class MappedRows(Rows):
    """Rows of another source, each block transformed."""

    source: Rows
    change: Callable[[F32], F32]  # maps (rows, dim) to new values of the same shape

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        for rows, block in self.source.blocks():
            yield rows, self.change(block)


@dataclass(frozen=True)
class _TakenRows(Rows):
    source: Rows
    rows: Bools

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.rows.sum()), self.source.shape[1]

    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        numbers = np.cumsum(self.rows) - 1
        for rows, block in self.source.blocks():
            taken = self.rows[rows]
            if taken.any():
                yield numbers[rows][taken], block[taken]


def rows_of(values: F32 | Rows) -> Rows:
    """Return rows as they are, and an array as `ArrayRows`."""
    return values if isinstance(values, Rows) else ArrayRows(values)
