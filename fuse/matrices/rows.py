"""Values of clips that need not lie in memory: products with them, a block of rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F32, Bools, Ints


class Rows(ABC):
    """float32 (clips, dim) of values, zero where missing."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Clips and numbers of each."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Ints | slice, F32]]:
        """Which rows, each once, and their values, not to be changed; those missing may lack."""

    def take(self, rows: Bools) -> Rows:
        """Those of bool (clips,)."""
        return self if rows.all() else _TakenRows(self, rows)

    def scores(self, coef: F32) -> F32:
        """(scores, dim) of coefficients to (scores, clips)."""
        product: F32 = np.zeros((len(coef), self.shape[0]), np.float32)
        # Problems that use other features alone have nothing to be read for.
        for rows, block in self.blocks() if len(coef) else ():
            product[:, rows] = coef @ block.T
        return product

    def gradient(self, residual: F32) -> F32:
        """(scores, clips) of residuals to (scores, dim)."""
        total = np.zeros((len(residual), self.shape[1]))
        for rows, block in self.blocks() if len(residual) else ():
            total += residual[:, rows] @ block
        return total.astype(np.float32)


@dataclass(frozen=True)
class ArrayRows(Rows):
    """Of an array: one block.

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
    """Read again each time, as `mvemo.cache.Cache.blocks` reads.

    Parameters
    ----------
    read
        Begins anew.
    n, dim
        Of all clips.
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
    """Those of others, each block changed on its way."""

    source: Rows  # the others
    change: Callable[[F32], F32]  # of (rows, dim) to new values of the same shape

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
    """Rows as they are, an array as such."""
    return values if isinstance(values, Rows) else ArrayRows(values)
