"""Safe reading of HDF5 files of any origin.

HDF5 can store data elsewhere: behind soft and external links, or in other files as external or
virtual storage. None of these is followed. Every size is checked before anything is read: an
array of a cache has as many bytes in the file as in memory (caches are not compressed), and all
texts together are not longer than the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.storage.heap import REFERENCE, read_texts
from mvemo.manifests.array_files import most_bytes

_TEXT: np.dtype[Any] = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class FileFacts:
    """Facts of a file that are needed to read its arrays; queried once per group."""

    n_bytes: int  # size of the file
    handle: int  # file descriptor that HDF5 uses
    sizes: tuple[int, int]  # bytes of an address and of a length
    base: int  # offset that all addresses are relative to (size of the user block)

    @classmethod
    def of(cls, place: Any) -> FileFacts:
        """Return the facts of the file that contains a group or data set."""
        file = h5py.h5i.get_file_id(place)
        created = file.get_create_plist()
        return cls(
            file.get_filesize(),
            file.get_vfd_handle(),
            created.get_sizes(),
            created.get_userblock(),
        )


class PlainGroup(h5py.Group):  # type: ignore[misc]
    """Group with the facts that are needed to read its arrays; returned by `part`."""

    def __init__(self, place: Any) -> None:
        super().__init__(place)
        self.facts = FileFacts.of(place)


def part(group: Any, name: str) -> PlainGroup:
    """Return the group of a name; raise KeyError or ValueError unless it is an ordinary member."""
    item = _member(group, name)
    if not isinstance(item, h5py.h5g.GroupID):
        raise ValueError(f"{name} is no group")
    return PlainGroup(item)


def _member(group: Any, name: str) -> Any:
    """Return HDF5's handle of an ordinary member; h5py's objects would be slower."""
    place, key = group.id, name.encode()
    try:
        link = place.links.get_info(key)
    except (RuntimeError, KeyError):
        if place.links.exists(key):
            raise
        raise KeyError(f"{name} is missing") from None
    if link.type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link to elsewhere, which is not followed")
    return h5py.h5o.open(place, key)


def write_attribute(group: Any, name: str, text: str) -> None:
    """Write a text attribute of fixed length, which lies in the group's own header with a checksum.

    Texts of variable length lie in a heap, and HDF5 loops endlessly if that is damaged.
    """
    content = text.encode()
    dtype = h5py.string_dtype("utf-8", max(1, len(content)))
    group.attrs.create(name, np.array(content, dtype=dtype), dtype=dtype)


def attribute(group: Any, name: str, kind: type[Any]) -> Any:
    """Return an attribute as ``str``, ``int`` or ``bool``, or raise KeyError or ValueError."""
    if not has_attribute(group, name):
        raise KeyError(f"attribute {name} is missing")
    # The low-level API: h5py's attributes take four times as long, and a cache has hundreds.
    stored = h5py.h5a.open(_place(group), name.encode())
    if stored.shape != ():
        raise ValueError(f"attribute {name} is no single value")
    kept = stored.get_type()
    fixed = isinstance(kept, h5py.h5t.TypeStringID) and not kept.is_variable_str()
    dtype = np.dtype(f"S{kept.get_size()}") if fixed else stored.dtype
    # Caches of mvemo 0.1 have texts of variable length.
    text = fixed or h5py.check_string_dtype(dtype)
    allowed = {str: "OS" if text else "", int: "iu", bool: "b"}[kind]
    if dtype.kind not in allowed:
        raise ValueError(
            f"attribute {name} is {'text' if text else dtype}, needed is {kind.__name__}"
        )
    value = np.empty((), dtype)
    stored.read(value, kept if fixed else None)
    single: Any = value[()]
    return single.decode() if kind is str else kind(single)


def has_attribute(group: Any, name: str) -> bool:
    """Return True if a group or data set has an attribute."""
    return bool(h5py.h5a.exists(_place(group), name.encode()))


def _place(group: Any) -> Any:
    """Return HDF5's handle of a group or data set, or the handle itself."""
    return group.id if isinstance(group, h5py.HLObject) else group


@dataclass(frozen=True)
class PlainArray:
    """Array of a cache that lies in one piece in its file and is not read yet; see `array_of`.

    Values are read directly from the file and not through HDF5, so several threads may read at the
    same time, and nothing is copied twice.
    """

    item: Any  # HDF5's handle
    name: str  # name in messages
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None  # offset of the first byte in the file; None if only HDF5 can read it
    _facts: FileFacts

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return rows `start` to `stop`, or the whole array."""
        if not self.shape:
            values = np.empty((), self.dtype)
        else:
            rows = range(*slice(start, stop).indices(len(self)))
            values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        self.read_into(values, start)
        if self.dtype == np.bool_ and values.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{self.name} has values that are neither true nor false")
        return values

    def read_into(self, values: NDArray[Any], start: int = 0) -> None:
        """Fill a contiguous array of this type with the rows from `start` on."""
        if not values.size:
            return
        if self.offset is None:
            everything = np.empty(self.shape, self.dtype)
            self.item.read(h5py.h5s.ALL, h5py.h5s.ALL, everything)
            values[...] = everything[start : start + len(values)] if self.shape else everything
            return
        left = values.reshape(-1).view(np.uint8).data
        place = self.offset + (start * (values.nbytes // len(values)) if self.shape else 0)
        while left:
            count = os.preadv(self._facts.handle, [left], place)
            if not count:
                raise OSError(f"{self.name} is cut off")
            left, place = left[count:], place + count

    def texts(self) -> NDArray[np.object_]:
        """Return all UTF-8 texts; raise ValueError if they are longer than the file."""
        if self.dtype.kind != "O" or h5py.check_string_dtype(self.dtype) is None:
            raise ValueError(f"{self.name} is {self.dtype}, needed are texts")
        if not math.prod(self.shape):
            return np.empty(self.shape, object)
        texts = np.empty(self.shape, object)
        texts.flat[:] = _texts(self.item, self.name, math.prod(self.shape), self._facts)
        return texts


def array_of(
    group: Any, name: str, dtype: Any = None, shape: tuple[int, ...] | None = None
) -> PlainArray:
    """Return an array of a cache, not read yet.

    KeyError or ValueError is raised if it is missing, of another type or shape, compressed, or not
    stored in the file itself.
    """
    item = _member(group, name)
    if not isinstance(item, h5py.h5d.DatasetID):
        raise ValueError(f"{name} is no data set")
    own_shape, own_dtype = item.shape, _dtype_of(item.get_type(), dtype)
    if own_shape is None:
        raise ValueError(f"{name} is empty")
    if shape is not None and own_shape != shape:
        raise ValueError(f"{name} is of shape {own_shape}, needed is {shape}")
    if dtype is not None and own_dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {own_dtype}, needed is {np.dtype(dtype)}")
    offset = item.get_offset()
    if offset is None:
        _check_layout(item, name)
    text = own_dtype.kind == "O" and h5py.check_string_dtype(own_dtype) is not None
    n_bytes = math.prod(own_shape) * (REFERENCE.itemsize if text else own_dtype.itemsize)
    facts = group.facts if isinstance(group, PlainGroup) else FileFacts.of(item)
    if item.get_storage_size() != n_bytes or n_bytes > facts.n_bytes:
        raise ValueError(
            f"{name} of shape {own_shape} needs {n_bytes:,} bytes, the file holds "
            f"{item.get_storage_size():,} of it"
        )
    if not hasattr(os, "preadv"):
        offset = None
    return PlainArray(item, name, own_shape, own_dtype, offset, facts)


def _dtype_of(kept: Any, expected: Any) -> np.dtype[Any]:
    """Return the numpy type of a stored type; comparing takes a fifth of the time to translate."""
    dtype: np.dtype[Any] | None = None if expected is None else np.dtype(expected)
    if dtype is None or not kept.equal(_hdf5_type(dtype)):
        is_text = isinstance(kept, h5py.h5t.TypeStringID) and kept.is_variable_str()
        dtype = _TEXT if is_text else kept.dtype
    return dtype


@lru_cache(maxsize=32)
def _hdf5_type(dtype: np.dtype[Any]) -> Any:
    return h5py.h5t.py_create(dtype, logical=True)


def _check_layout(item: Any, name: str) -> None:
    """Refuse an array that is not in one piece of its file, unless it is empty or very small."""
    created = item.get_create_plist()
    layout = created.get_layout()
    if layout == h5py.h5d.VIRTUAL or created.get_external_count():
        raise ValueError(f"the values of {name} lie in another file, which is not read")
    if layout == h5py.h5d.CHUNKED or created.get_nfilters():
        raise ValueError(f"{name} is compressed or in chunks, which no cache is")


def _texts(item: Any, name: str, count: int, facts: FileFacts) -> list[str]:
    """Return the texts of a data set that lies in one piece, together not longer than the file."""
    if facts.sizes != (8, 8):
        raise ValueError(f"{name} is in a file of small addresses, which is not read")
    with open(os.fsdecode(h5py.h5f.get_name(item)), "rb", buffering=0) as raw:

        def read_at(place: int, size: int) -> bytes:
            raw.seek(place)
            return raw.read(size)

        stored = read_at(item.get_offset(), count * REFERENCE.itemsize)
        if len(stored) != count * REFERENCE.itemsize:
            raise ValueError(f"{name} is cut off")
        return read_texts(
            np.frombuffer(stored, REFERENCE),
            name,
            facts.n_bytes,
            lambda place, size: read_at(facts.base + place, size),
        )


class PlainDataSets(Mapping[str, Any]):
    """All data sets of another program's HDF5 file by path; they may be compressed.

    `size` is that of the file in bytes; `mvemo.manifests.array_files.most_bytes` limits the memory.
    """

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._most = most_bytes(size)
        self._names: list[str] = []
        file.visititems(self._note)

    def _note(self, name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            self._names.append(name)

    def __getitem__(self, name: str) -> Any:
        item = self._file[name]
        _refuse_elsewhere(item, name)
        n_bytes = item.size * item.id.get_type().get_size()
        if n_bytes > self._most:
            raise ValueError(
                f"{name} of shape {item.shape} would become {n_bytes:,} bytes in memory, at most "
                f"{self._most:,} are read of a file of its size"
            )
        text = item.dtype.kind == "O"
        stored = item.id.get_storage_size()
        if item.chunks is None and item.size and (stored or text):
            expected = item.size * (REFERENCE.itemsize if text else n_bytes // item.size)
            if stored != expected or stored > self._file.id.get_filesize():
                raise ValueError(
                    f"{name} of shape {item.shape} needs {expected:,} bytes, the file holds "
                    f"{stored:,} of it"
                )
            if text and item.id.get_offset() is not None:
                # Checked before HDF5 reads them, because it may loop endlessly on damaged texts.
                _texts(item.id, name, item.size, replace(FileFacts.of(item.id), n_bytes=self._most))
        return item

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _refuse_elsewhere(item: h5py.Dataset, name: str) -> None:
    if item.shape is None:
        raise ValueError(f"{name} is empty")
    if item.external or item.is_virtual:
        raise ValueError(f"the values of {name} lie in another file, which is not read")
