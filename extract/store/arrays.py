"""Arrays of the working cache: written whole, read without loading, checked by type and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mvemo.manifests.files import replacing


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file in one step: it is whole, or not there.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with replacing(path, durable=False) as temp, temp.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def map_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    """Map a ``.npy`` file into memory.

    Parameters
    ----------
    dtype, shape
        What it must hold; None in `shape` for any length.

    Returns
    -------
    The array; None where there is no file, or one that is damaged or holds something else.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = array.ndim == len(shape) and all(
        expected is None or length == expected
        for length, expected in zip(array.shape, shape, strict=True)
    )
    return array if fits and array.dtype == dtype else None
