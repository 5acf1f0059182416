"""Arrays of the working cache: written whole, read without loading, checked before use."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mvemo.extract.arrays import release
from mvemo.manifests.files import replacing

# What NumPy writes before the values of an array whose rows come first.
_HEADER = re.compile(
    rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)
# Behind the array, where NumPy does not look: CRC-32 of its values.
_TRAILER = struct.Struct("<8sI")
_MARK = b"mvemoCRC"
# Bytes that are written or checked at a time.
_PART_BYTES = 1 << 24
# Files whose values were found to fit their checksum, and what they were then.
_checked: dict[Path, tuple[int, int, int]] = {}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file with a checksum in one step: it is whole, or not there.

    Raises
    ------
    OSError
        It cannot be written.
    ValueError
        It is empty.
    """
    if array.size == 0:
        raise ValueError(f"{path.name}: an array of shape {array.shape} is empty")
    source, array = array, np.ascontiguousarray(array)
    checksum = 0
    with replacing(path, durable=False) as temp, temp.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        for part in _parts(array):
            file.write(part.data)
            checksum = zlib.crc32(part.data, checksum)
            release(source)
        file.write(_TRAILER.pack(_MARK, checksum))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array's values in their order, some at a time; what is mapped is let go again."""
    flat = array.reshape(-1)
    size = max(_PART_BYTES // array.itemsize, 1)
    for first in range(0, len(flat), size):
        yield flat[first : first + size]
        release(array)


def map_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    """Map a ``.npy`` file into memory; a process reads it through once, for its checksum.

    Parameters
    ----------
    dtype, shape
        What it must hold; None in `shape` for any length above 0.

    Returns
    -------
    The array; None where there is no file, or one that is damaged or holds something else.
    """
    try:
        array = _mapped(path, np.dtype(dtype))
        fits = array.ndim == len(shape) and all(
            length > 0 if expected is None else length == expected
            for length, expected in zip(array.shape, shape, strict=True)
        )
        if not fits or not _is_whole(path, array):
            return None
    except (OSError, ValueError, OverflowError, EOFError):
        return None
    return array


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`numpy.load` of a file of ours, for threads; raises ValueError where it is none.

    NumPy reads headers by Python's own parser, and threads of Python 3.11 that use it at once
    get a SystemError now and then ("AST constructor recursion depth mismatch").
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the format")
        length = int.from_bytes(file.read(2), "little")
        found = _HEADER.fullmatch(file.read(length))
        if found is None or found[1].decode("latin-1") != dtype.str:
            raise ValueError("another header")
        shape = tuple(int(length) for length in found[2].split(b",") if length.strip())
        return np.memmap(file, dtype, "r", file.tell(), shape)


def _is_whole(path: Path, array: NDArray[Any]) -> bool:
    """Whether the values fit the checksum behind them."""
    stat = os.stat(path)
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if _checked.get(path) == state:
        return True
    with path.open("rb") as file:
        file.seek(-_TRAILER.size, os.SEEK_END)
        mark, checksum = _TRAILER.unpack(file.read())
    found = 0
    for part in _parts(array):
        found = zlib.crc32(part.data, found)
    if mark != _MARK or found != checksum:
        return False
    _checked[path] = state
    return True
