"""Safe reading of HDF5 files from untrusted sources.

Links and storage in other files are not followed. Every size is checked before anything is read:
an array of a cache has as many bytes in the file as in memory (caches are not compressed), and all
texts together must not be longer than the file.

Texts are read without HDF5, which loops endlessly on a damaged heap collection with an object of
size 0. A data set of texts holds a reference for each text: its length, and the address of a
collection with the number of an object in it (HDF5 File Format Specification, III.E and VIII).
"""

import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.array_files import most_bytes

_TEXT: np.dtype[Any] = h5py.string_dtype("utf-8")
# Reference to a text: its length, address of its collection, number of its object.
_REFERENCE = np.dtype([("length", "<u4"), ("place", "<u8"), ("number", "<u4")])
# Words of a collection to search together; nearly all collections have at most as many.
WORDS = 1 << 13
_COLLECTION = struct.Struct("<4sB3xQ")


def part(group: Any, name: str) -> h5py.Group:
    """Return the group with this name; raise KeyError or ValueError for a link or other object."""
    item = _member(group, name)
    if not isinstance(item, h5py.h5g.GroupID):
        raise ValueError(f"{name} is not a group")
    return h5py.Group(item)


def _member(group: Any, name: str) -> Any:
    """Return HDF5's handle of a member that is not a link; h5py's objects would be slower."""
    place, key = group.id, name.encode()
    if not place.links.exists(key):
        raise KeyError(f"{name} is missing")
    if place.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link to another place, which is not followed")
    return h5py.h5o.open(place, key)


# --- attributes


def write_attribute(group: Any, name: str, text: str) -> None:
    """Write a text attribute of fixed length: HDF5 may loop endlessly on variable lengths."""
    content = text.encode()
    dtype = h5py.string_dtype("utf-8", max(1, len(content)))
    group.attrs.create(name, np.array(content, dtype=dtype), dtype=dtype)


def attribute(group: Any, name: str, kind: type[Any], default: Any = None) -> Any:
    """Return an attribute as ``str``, ``int`` or ``bool``, or raise KeyError or ValueError."""
    # The low-level API is used because h5py's attributes take four times as long.
    place, key = group.id if isinstance(group, h5py.HLObject) else group, name.encode()
    if not h5py.h5a.exists(place, key):
        if default is not None:
            return default
        raise KeyError(f"attribute {name} is missing")
    stored = h5py.h5a.open(place, key)
    if stored.shape != ():
        raise ValueError(f"attribute {name}: expected a scalar, got shape {stored.shape}")
    kept = stored.get_type()
    fixed = isinstance(kept, h5py.h5t.TypeStringID) and not kept.is_variable_str()
    dtype = np.dtype(f"S{kept.get_size()}") if fixed else stored.dtype
    # Caches of mvemo 0.1 have texts of variable length.
    text = fixed or h5py.check_string_dtype(dtype)
    allowed = {str: "OS" if text else "", int: "iu", bool: "b"}[kind]
    if dtype.kind not in allowed:
        raise ValueError(
            f"attribute {name}: expected {kind.__name__}, got {'text' if text else dtype}"
        )
    value = np.empty((), dtype)
    stored.read(value, kept if fixed else None)
    single: Any = value[()]
    return single.decode() if kind is str else kind(single)


# --- arrays


@dataclass(frozen=True)
class PlainArray:
    """Array of a cache, contiguous in its file and not yet read; see `array_of`."""

    item: Any  # HDF5's handle
    name: str  # name in messages
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None  # offset of the first byte in the file; None if only HDF5 can read it
    file: Any  # HDF5's handle of the file

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return rows `start` to `stop`, or the whole array."""
        rows = range(*slice(start, stop).indices(self.shape[0])) if self.shape else ()
        values = np.empty((len(rows), *self.shape[1:]) if self.shape else (), self.dtype)
        self.read_into(values, start)
        if self.dtype == np.bool_ and values.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{self.name} has values that are neither true nor false")
        return values

    def read_into(self, values: NDArray[Any], start: int = 0) -> None:
        """Fill `values`, a contiguous array of this type, with rows from `start` on."""
        if not values.size:
            return
        if self.offset is None:
            everything = np.empty(self.shape, self.dtype)
            self.item.read(h5py.h5s.ALL, h5py.h5s.ALL, everything)
            values[...] = everything[start : start + len(values)] if self.shape else everything
            return
        handle = self.file.get_vfd_handle()
        remaining = values.reshape(-1).view(np.uint8).data
        place = self.offset + (start * (values.nbytes // len(values)) if self.shape else 0)
        while remaining:
            count = os.preadv(handle, [remaining], place)
            if not count:
                raise OSError(f"{self.name} is cut off")
            remaining, place = remaining[count:], place + count

    def texts(self) -> NDArray[np.object_]:
        """Return all UTF-8 texts; raise ValueError if they are longer than the file."""
        if not _is_text(self.dtype):
            raise ValueError(f"{self.name}: expected texts, got {self.dtype}")
        if not math.prod(self.shape):
            return np.empty(self.shape, object)
        most = self.file.get_filesize()
        return _texts(self.item, self.name, self.file, most).reshape(self.shape)


def array_of(
    group: Any, name: str, dtype: Any = None, shape: tuple[int, ...] | None = None
) -> PlainArray:
    """Return an array of a cache, not yet read; raise KeyError or ValueError if it is invalid."""
    item = _member(group, name)
    if not isinstance(item, h5py.h5d.DatasetID):
        raise ValueError(f"{name} is not a data set")
    stored_shape, stored_dtype = item.shape, _dtype_of(item.get_type(), dtype)
    if stored_shape is None:
        raise ValueError(f"{name} is empty")
    if shape is not None and stored_shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {stored_shape}")
    if dtype is not None and stored_dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected {np.dtype(dtype)}, got {stored_dtype}")
    offset = item.get_offset()
    if offset is None:
        # Without an offset, the array is empty, very small, or not contiguous in the file.
        created = item.get_create_plist()
        layout = created.get_layout()
        if layout == h5py.h5d.VIRTUAL or created.get_external_count():
            raise ValueError(f"the values of {name} lie in another file, which is not read")
        if layout == h5py.h5d.CHUNKED or created.get_nfilters():
            raise ValueError(f"{name} is compressed or in chunks; arrays of a cache must not be")
    file = h5py.h5i.get_file_id(item)
    size = _REFERENCE.itemsize if _is_text(stored_dtype) else stored_dtype.itemsize
    _check_size(item, name, math.prod(stored_shape) * size, file.get_filesize())
    if not hasattr(os, "preadv"):
        offset = None
    return PlainArray(item, name, stored_shape, stored_dtype, offset, file)


def _dtype_of(kept: Any, expected: Any) -> np.dtype[Any]:
    """Return the NumPy type of a stored type; comparing with `expected` first is faster."""
    dtype: np.dtype[Any] = _TEXT
    if expected is not None and kept.equal(_hdf5_type(np.dtype(expected))):
        dtype = np.dtype(expected)
    elif not isinstance(kept, h5py.h5t.TypeStringID) or not kept.is_variable_str():
        dtype = kept.dtype
    return dtype


@lru_cache(maxsize=32)
def _hdf5_type(dtype: np.dtype[Any]) -> Any:
    return h5py.h5t.py_create(dtype, logical=True)


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "O" and h5py.check_string_dtype(dtype) is not None


def _check_size(item: Any, name: str, n_bytes: int, most: int) -> None:
    """Raise ValueError for an array that is not completely in the file."""
    stored = item.get_storage_size()
    if stored != n_bytes or n_bytes > most:
        raise ValueError(
            f"{name} of shape {item.shape} needs {n_bytes:,} bytes, but the file holds {stored:,}"
        )


# --- texts


def _texts(item: Any, name: str, file: Any, most: int) -> NDArray[np.object_]:
    """Return the texts of a contiguous data set, together at most `most` bytes."""
    created = file.get_create_plist()
    if created.get_sizes() != (8, 8):
        raise ValueError(f"{name} is in a file whose addresses do not have 8 bytes")
    with open(os.fsdecode(h5py.h5f.get_name(item)), "rb", buffering=0) as raw:

        def read_at(place: int, size: int) -> bytes:
            raw.seek(place)
            return raw.read(size)

        size = math.prod(item.shape) * _REFERENCE.itemsize
        stored = read_at(item.get_offset(), size)
        if len(stored) != size:
            raise ValueError(f"{name} is cut off")
        references = np.frombuffer(stored, _REFERENCE)
        total = int(references["length"].sum(dtype=np.int64))
        # Many references may point to one long text.
        if total > most:
            raise ValueError(
                f"{name}: truncated file ({total:,} bytes of text declared, {most:,} present)"
            )
        # Addresses are relative to the end of the user block.
        base = created.get_userblock()
        rows = np.flatnonzero(references["length"])
        rows = rows[np.argsort(references["place"][rows], kind="stable")]
        length, place, number = (references[k][rows] for k in ("length", "place", "number"))
        firsts = np.flatnonzero(np.diff(place, prepend=~place[:1])).tolist()
        found: list[str] = []
        for first, last in pairwise([*firsts, len(rows)]):
            content = _read_collection(base + int(place[first]), most, read_at)
            starts, ends = _objects_of(content)
            objects = np.minimum(number[first:last], len(starts) - 1)
            start, end = starts[objects], starts[objects] + length[first:last]
            if (end > ends[objects]).any():
                raise ValueError(f"the texts of {name} are damaged")
            bounds = zip(start.tolist(), end.tolist(), strict=True)
            found += [content[a:b].decode() for a, b in bounds]
        texts = np.full(len(references), "", object)
        texts[rows] = found
        return texts


def _read_collection(place: int, most: int, read_at: Callable[[int, int], bytes]) -> bytes:
    """Return the bytes of an HDF5 heap collection (signature GCOL); empty if it is damaged."""
    head = read_at(place, _COLLECTION.size)
    if len(head) == _COLLECTION.size:
        mark, version, size = _COLLECTION.unpack(head)
        if mark == b"GCOL" and version == 1 and _COLLECTION.size <= size <= most:
            content = read_at(place, size)
            if len(content) == size:
                return content
    return b""


# Data sets share collections, so parsed ones are cached.
@lru_cache(maxsize=8)
def _objects_of(content: bytes) -> NDArray[np.int64]:
    """Return int64 (2, numbers + 1), start and end of each object's data by its number.

    An object has a header of two words (its number, its size in bytes), then its data. Both are 0
    for numbers without an object, such as the last, and for all objects of a damaged collection.
    """
    n, first = len(content) // 8, _COLLECTION.size // 8
    if n < first + 2:
        return np.zeros((2, 1), np.int64)
    words, place, chains, last = np.frombuffer(content, "<i8", n), first, [], first
    while place < n - 1:
        size = words[place + 1 : place + 1 + WORDS]
        number = words[place : place + len(size)] & 0xFFFF
        # For each word, as if it started an object: the start of the next object, or `end`.
        behind, end = np.arange(len(size)) + 2 + (size >> 3) + (size & 7 > 0), len(size)
        after = np.append(np.where((number > 0) & (size >= 0) & (behind < end), behind, end), end)
        # The number of known objects doubles in each step, because so does the width of the jumps.
        chain = np.zeros(1, np.int64)
        while chain[-1] < end:
            chain, after = np.concatenate([chain, after[chain]]), after[after]
        chain = chain[chain < end]
        chains.append(place + chain)
        last = place + int(chain[-1])
        if not number[chain[-1]] or size[chain[-1]] < 0:
            break
        place += int(behind[chain[-1]])
    chain, last_size = np.concatenate(chains), int(words[last + 1])
    if words[last] & 0xFFFF:
        whole = last_size >= 0 and 8 * place <= len(content)
    else:
        # Object 0 is the free space at the end; its size includes the header.
        whole, chain = 8 * last + last_size == len(content), chain[:-1]
    chain = chain[: len(chain) if whole else 0]
    number = words[chain] & 0xFFFF
    objects = np.zeros((2, number.max(initial=0) + 2), np.int64)
    objects[:, number] = 8 * chain + 16, 8 * chain + 16 + words[chain + 1]
    return objects


# --- files of other programs


def data_set_names(file: Any) -> list[str]:
    """Return the paths of all data sets of another program's HDF5 file."""
    names: list[str] = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


def data_set(file: Any, name: str, size: int) -> Any:
    """Return a data set of another program's HDF5 file of `size` bytes; it may be compressed."""
    item, most = file[name], most_bytes(size)
    if item.shape is None:
        raise ValueError(f"{name} is empty")
    if item.external or item.is_virtual:
        raise ValueError(f"the values of {name} lie in another file, which is not read")
    n_bytes = item.size * item.id.get_type().get_size()
    if n_bytes > most:
        raise ValueError(
            f"{name} of shape {item.shape} would need {n_bytes:,} bytes of memory, but at most "
            f"{most:,} are allowed for a file of its size"
        )
    text = item.dtype.kind == "O"
    if item.chunks is None and item.size and (item.id.get_storage_size() or text):
        expected = item.size * _REFERENCE.itemsize if text else n_bytes
        _check_size(item.id, name, expected, file.id.get_filesize())
        if text and item.id.get_offset() is not None:
            # They are checked before HDF5 reads them: it may loop endlessly on damaged texts.
            _texts(item.id, name, file.id, most)
    return item
