"""Array files of the working cache: written atomically, memory-mapped, checked before use."""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mvemo.extract.arrays import release
from mvemo.manifests.files import replacing

# NumPy's header of an array in C order.
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)
# CRC-32 of the values, behind the array, where NumPy ignores it.
_TRAILER = struct.Struct("<8sI")
_MARK = b"mvemoCRC"
# Bytes written or checked at a time.
_PART_BYTES = 1 << 24


@dataclass(frozen=True)
class _Checked:
    """Header of a file whose values match its checksum."""

    state: tuple[int, int, int]  # inode, size and time of change when it was checked
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int  # of the values, in bytes


# Training opens the same files in each epoch: their headers are read only once.
_checked: dict[Path, _Checked] = {}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file with a checksum atomically; an empty array is a `ValueError`."""
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
    """Yield an array's values in order, in parts of `_PART_BYTES`; release mapped ones."""
    flat = array.reshape(-1)
    size = max(_PART_BYTES // array.itemsize, 1)
    for first in range(0, len(flat), size):
        yield flat[first : first + size]
        release(array)


def map_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    """Map a ``.npy`` file into memory; the first time, the process verifies its checksum.

    A length of None in `shape` stands for any length above 0. Returns None if the file is
    missing or damaged, or has another type or shape.
    """
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            known = _checked.get(path)
            if known is None or known.state != state:
                known = _check(file, state)
            fits = len(known.shape) == len(shape) and all(
                length > 0 if expected is None else length == expected
                for length, expected in zip(known.shape, shape, strict=True)
            )
            if not fits or known.dtype != dtype:
                return None
            _checked[path] = known
            return _map(file, known)
    except (OSError, ValueError, TypeError, OverflowError, EOFError):
        return None


def _map(file: IO[bytes], known: _Checked) -> NDArray[Any]:
    """Map an array like `numpy.load`, in an eighth of the time, with fewer system calls."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    count = math.prod(known.shape)
    flat: NDArray[Any] = np.frombuffer(mapped, known.dtype, count, known.offset)
    return flat.reshape(known.shape)


def _check(file: IO[bytes], state: tuple[int, int, int]) -> _Checked:
    """Read a file's header and verify the checksum of its values.

    NumPy parses headers with Python's parser, which in concurrent threads of Python 3.11
    sometimes raises a SystemError ("AST constructor recursion depth mismatch").
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the format")
    header = _HEADER.fullmatch(file.read(int.from_bytes(file.read(2), "little")))
    if header is None:
        raise ValueError("another header")
    dtype = np.dtype(header[1].decode("ascii"))
    shape = tuple(int(length) for length in header[2].split(b",") if length.strip())
    if dtype.hasobject or not math.prod(shape):
        raise ValueError("not an array of the working cache")
    checked = _Checked(state, dtype, shape, file.tell())
    found = 0
    for part in _parts(_map(file, checked)):
        found = zlib.crc32(part.data, found)
    file.seek(-_TRAILER.size, os.SEEK_END)
    if _TRAILER.unpack(file.read()) != (_MARK, found):
        raise ValueError("the values do not fit their checksum")
    return checked
