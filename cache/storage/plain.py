"""Parts of HDF5 files of any origin, read only where they lie in the file itself.

HDF5 can keep a name's data elsewhere: behind soft and external links, in other files as
external or virtual storage. None of that is followed. Every size is checked before
anything is read: an array of a cache has as many bytes in the file as in memory (caches
are not compressed), and texts together are no longer than the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.storage.heap import REFERENCE, read_texts
from mvemo.manifests.arrays import most_bytes


def part(group: Any, name: str, kind: type) -> Any:
    """The group or data set of a name, if it is an ordinary member.

    Parameters
    ----------
    kind
        ``h5py.Group`` or ``h5py.Dataset``.

    Raises
    ------
    KeyError, ValueError
        There is none, it is of the other kind, or a link to elsewhere.
    """
    return kind(_member(group, name, kind))


def _member(group: Any, name: str, kind: type) -> Any:
    """As `part`, as HDF5's own handle: a cache has hundreds of small arrays."""
    place, key = group.id, name.encode()
    if not place.links.exists(key):
        raise KeyError(f"{name} is missing")
    if place.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link to elsewhere, which is not followed")
    item = h5py.h5o.open(place, key)
    if not isinstance(item, h5py.h5g.GroupID if kind is h5py.Group else h5py.h5d.DatasetID):
        what = "group" if kind is h5py.Group else "data set"
        raise ValueError(f"{name} is no {what}")
    return item


def write_attribute(group: Any, name: str, text: str) -> None:
    """An attribute of text, of fixed length: it lies in the group's own header, with a checksum.

    Texts of variable length lie in a heap, and HDF5 runs for ever where that is damaged.
    """
    content = text.encode()
    dtype = h5py.string_dtype("utf-8", max(1, len(content)))
    group.attrs.create(name, np.array(content, dtype=dtype), dtype=dtype)


def attribute(group: Any, name: str, kind: type[Any]) -> Any:
    """A single value of an attribute, as ``str``, ``int`` or ``bool``.

    Parameters
    ----------
    group
        A group or data set, or HDF5's handle of one.

    Raises
    ------
    KeyError, ValueError
        There is none, or it is of another type or no single value.
    """
    place = group.id if isinstance(group, h5py.HLObject) else group
    if not h5py.h5a.exists(place, name.encode()):
        raise KeyError(f"attribute {name} is missing")
    # Past h5py's own reading of attributes, which takes twice as long: a cache has hundreds.
    stored = h5py.h5a.open(place, name.encode())
    if stored.shape != ():
        raise ValueError(f"attribute {name} is no single value")
    dtype = stored.dtype
    text = h5py.check_string_dtype(dtype)
    # Caches of mvemo 0.1 have texts of variable length.
    allowed = {str: "OS" if text else "", int: "iu", bool: "b"}[kind]
    if dtype.kind not in allowed:
        raise ValueError(f"attribute {name} is {text or dtype}, needed is {kind.__name__}")
    value = np.empty((), dtype)
    stored.read(value)
    single: Any = value[()]
    return single.decode() if kind is str else kind(single)


@dataclass(frozen=True)
class PlainArray:
    """An array of a cache, in one piece of its file and not read yet; made by `array_of`.

    Values are read where they lie, past HDF5: several threads may read at once, and nothing
    is copied twice.

    Parameters
    ----------
    item
        HDF5's handle.
    name
        For messages.
    shape, dtype
        Of all of it.
    offset
        Of its first byte in the file; None where only HDF5 can read it.
    """

    item: Any
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    _handle: int

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows `start` to `stop`, or all of an array of any shape."""
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
        """Fill a contiguous array of this type with the rows from `start` on.

        Raises
        ------
        OSError
            The file ends before them.
        """
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
            count = os.preadv(self._handle, [left], place)
            if not count:
                raise OSError(f"{self.name} is cut off")
            left, place = left[count:], place + count

    def texts(self) -> NDArray[np.object_]:
        """All UTF-8 texts, together no longer than the file.

        Raises
        ------
        ValueError
            They are no texts, or longer.
        """
        if self.dtype.kind != "O" or h5py.check_string_dtype(self.dtype) is None:
            raise ValueError(f"{self.name} is {self.dtype}, needed are texts")
        if not math.prod(self.shape):
            return np.empty(self.shape, object)
        texts = np.empty(self.shape, object)
        texts.flat[:] = _texts(h5py.Dataset(self.item), self.name)
        return texts


def array_of(
    group: Any, name: str, dtype: Any = None, shape: tuple[int, ...] | None = None
) -> PlainArray:
    """An array of a cache, not read yet; its values take their own bytes of the file.

    Raises
    ------
    KeyError, ValueError
        There is none, it is of another type or shape, compressed, or stored elsewhere.
    """
    item = _member(group, name, h5py.Dataset)
    own_shape, own_dtype = item.shape, item.dtype
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
    file = h5py.h5i.get_file_id(item)
    if item.get_storage_size() != n_bytes or n_bytes > file.get_filesize():
        raise ValueError(
            f"{name} of shape {own_shape} needs {n_bytes:,} bytes, the file holds "
            f"{item.get_storage_size():,} of it"
        )
    if not hasattr(os, "preadv"):
        offset = None
    handle = -1 if offset is None else file.get_vfd_handle()
    return PlainArray(item, name, own_shape, own_dtype, offset, handle)


def _check_layout(item: Any, name: str) -> None:
    """Refuse an array that is in no one piece of its file, unless it is empty or very small."""
    created = item.get_create_plist()
    layout = created.get_layout()
    if layout == h5py.h5d.VIRTUAL or created.get_external_count():
        raise ValueError(f"the values of {name} lie in another file, which is not read")
    if layout == h5py.h5d.CHUNKED or created.get_nfilters():
        raise ValueError(f"{name} is compressed or in chunks, which no cache is")


def texts_of(group: Any, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.object_]:
    """UTF-8 texts of a cache's data set, together no longer than the file.

    Raises
    ------
    KeyError, ValueError
        As `array_of`, or no texts.
    """
    return array_of(group, name, shape=shape).texts()


def _texts(item: h5py.Dataset, name: str, most: int | None = None) -> list[str]:
    """Texts of a data set in one piece of its file, of `most` bytes: by default the file's."""
    file = h5py.h5i.get_file_id(item.id)
    created = file.get_create_plist()
    if created.get_sizes() != (8, 8):
        raise ValueError(f"{name} is in a file of small addresses, which is not read")
    with open(os.fsdecode(h5py.h5f.get_name(item.id)), "rb", buffering=0) as raw:

        def read_at(place: int, size: int) -> bytes:
            raw.seek(place)
            return raw.read(size)

        stored = read_at(item.id.get_offset(), item.size * REFERENCE.itemsize)
        if len(stored) != item.size * REFERENCE.itemsize:
            raise ValueError(f"{name} is cut off")
        # Of addresses in references, a block of another program before the file's is no part.
        base = created.get_userblock()
        return read_texts(
            np.frombuffer(stored, REFERENCE),
            name,
            file.get_filesize() if most is None else most,
            lambda place, size: read_at(base + place, size),
        )


class PlainDataSets(Mapping[str, Any]):
    """All data sets of another program's HDF5 file by path, which may be compressed.

    Parameters
    ----------
    file
        The open file.
    size
        Of the file, in bytes; see `mvemo.manifests.arrays.most_bytes`.
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
                # HDF5 reads them again, but may never end where they are damaged.
                _texts(item, name, self._most)
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
