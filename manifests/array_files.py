"""Reader of NumPy's ``.npy`` and ``.npz`` files from unknown sources, and mapped arrays.

Sizes are checked before any number is read, so that a file cannot ask for more memory than its
size suggests (`most_bytes`). Nothing is unpickled.
"""

from __future__ import annotations

import math
import mmap
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import shown

# Compressed arrays may need this many times the size of their file in memory.
MOST_INFLATED = 20
# This many bytes are always allowed, because equal numbers compress to a small file.
ALWAYS = 64 << 20
_HEADER = 10_000  # maximum length of an array's header in characters, as in NumPy
_MEMBERS = 100_000  # maximum number of members of an archive
# Mapped files above this size in bytes are released; for smaller files, that only costs time.
LARGE = 1 << 26
# Exceptions that readers raise for damaged files. RuntimeError includes RecursionError.
DAMAGED = (
    *(OSError, EOFError, LookupError, TypeError, ValueError, AttributeError, SyntaxError),
    *(RuntimeError, OverflowError, MemoryError, tokenize.TokenError, zipfile.BadZipFile),
    zlib.error,
)


@contextmanager
def refuse_damaged(path: Path, kind: str) -> Iterator[None]:
    """Raise `MvemoError` if reading `path`, which is expected to be `kind`, fails."""
    try:
        yield
    except MvemoError:
        raise
    except DAMAGED as error:
        raise MvemoError(f"{path}: is damaged, or is not {kind}: {error}") from error


def most_bytes(size: int) -> int:
    """Return how many bytes of memory a file of this size may need."""
    return max(ALWAYS, MOST_INFLATED * size)


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of an ``.npy`` file; raise a one-line ValueError for any other file."""
    with path.open("rb") as file, _as_value_error():
        return _read(file, path.stat().st_size)


class NpzFile(Mapping[str, NDArray[Any]]):
    """Arrays of an open ``.npz`` by name; damaged or too large files raise ValueError."""

    def __init__(self, path: Path) -> None:
        with _as_value_error():
            self._zip = zipfile.ZipFile(path)
        try:
            check_inflated(self._zip, most_bytes(path.stat().st_size))
            self._members = _members(self._zip)
        except BaseException:
            self._zip.close()
            raise

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._members[name]
        with _as_value_error(name), self._zip.open(info) as file:
            # zipfile never returns more than the declared size.
            return _read(file, info.file_size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


def check_inflated(archive: zipfile.ZipFile, most: int) -> None:
    """Raise ValueError for encrypted members, or more than `most` bytes after decompression."""
    infos = archive.infolist()
    if len(infos) > _MEMBERS:
        raise ValueError(f"it has {len(infos)} members, but at most {_MEMBERS} are allowed")
    total = sum(info.file_size for info in infos)
    if total > most:
        raise ValueError(
            f"it would need {total:,} bytes of memory, but at most {most:,} are allowed for a file "
            "of its size"
        )
    for info in infos:
        if info.flag_bits & 1:
            raise ValueError(f"member {shown(info.filename)} is encrypted")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"member {shown(info.filename)} is not an array (.npy)")
        if name in members:
            raise ValueError(f"member {shown(info.filename)} occurs twice")
        members[name] = info
    return members


def _read(file: Any, size: int) -> NDArray[Any]:
    """Return the array of an open file of `size` bytes, header included."""
    form = np.lib.format
    version = form.read_magic(file)
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array file version {version}; expected one of {list(readers)}")
    shape, _, dtype = readers[version](file, max_header_size=_HEADER)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read: save numbers or text")
    if not all(type(axis) is int and axis >= 0 for axis in shape) or len(shape) > 32:
        raise ValueError(f"invalid array shape {shown(str(shape))}")
    n_bytes, available = math.prod(shape) * dtype.itemsize, size - file.tell()
    if n_bytes > available:
        raise ValueError(
            f"truncated: shape {shown(str(shape))} of {dtype} needs {n_bytes:,} bytes, but the "
            f"file has {available:,}"
        )
    file.seek(0)
    return form.read_array(file, allow_pickle=False, max_header_size=_HEADER)


@contextmanager
def _as_value_error(name: str = "") -> Iterator[None]:
    place = f"member {shown(name)}: " if name else ""
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, RecursionError):
            text = "it is nested too deeply"
        raise ValueError(f"{place}{text[:300]}") from None


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
