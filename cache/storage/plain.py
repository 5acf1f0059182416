"""Parts of HDF5 files of any origin, read only where they lie in the file itself.

HDF5 can keep a name's data elsewhere: behind soft and external links, in other files as
external or virtual storage. None of that is followed. Every size is checked before
anything is read: an array of a cache has as many bytes in the file as in memory (caches
are not compressed), and texts together are no longer than the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.arrays import most_bytes

# Of one text with variable length in HDF5: its length, and where it lies in the file.
_REFERENCE = np.dtype([("length", "<u4"), ("place", "<u8"), ("number", "<u4")])


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
    link = group.get(name, getlink=True)
    if link is None:
        raise KeyError(f"{name} is missing")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link to elsewhere, which is not followed")
    item = group[name]
    if not isinstance(item, kind):
        what = "group" if kind is h5py.Group else "data set"
        raise ValueError(f"{name} is no {what}")
    return item


def attribute(group: Any, name: str, kind: type[Any]) -> Any:
    """A single value of an attribute, as ``str``, ``int`` or ``bool``.

    Raises
    ------
    KeyError, ValueError
        There is none, or it is of another type or no single value.
    """
    if name not in group.attrs:
        raise KeyError(f"attribute {name} is missing")
    if group.attrs.get_id(name).shape != ():
        raise ValueError(f"attribute {name} is no single value")
    value = group.attrs[name]
    allowed = {str: (str,), int: (int, np.integer), bool: (bool, np.bool_)}[kind]
    if not isinstance(value, allowed) or (kind is int and isinstance(value, (bool, np.bool_))):
        raise ValueError(f"attribute {name} is {type(value).__name__}, needed is {kind.__name__}")
    return kind(value)


def array_of(
    group: Any, name: str, dtype: Any = None, shape: tuple[int, ...] | None = None
) -> h5py.Dataset:
    """A data set of a cache, not read yet; its values take their own bytes of the file.

    Raises
    ------
    KeyError, ValueError
        There is none, it is of another type or shape, compressed, or stored elsewhere.
    """
    item = part(group, name, h5py.Dataset)
    if shape is not None and item.shape != shape:
        raise ValueError(f"{name} is of shape {item.shape}, needed is {shape}")
    if dtype is not None and item.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {item.dtype}, needed is {np.dtype(dtype)}")
    _refuse_elsewhere(item, name)
    if item.chunks is not None or item.id.get_create_plist().get_nfilters():
        raise ValueError(f"{name} is compressed or in chunks, which no cache is")
    text = h5py.check_string_dtype(item.dtype) is not None and item.dtype.kind == "O"
    n_bytes = item.size * (_REFERENCE.itemsize if text else item.id.get_type().get_size())
    if item.id.get_storage_size() != n_bytes or n_bytes > item.file.id.get_filesize():
        raise ValueError(
            f"{name} of shape {item.shape} needs {n_bytes:,} bytes, the file holds "
            f"{item.id.get_storage_size():,} of it"
        )
    return item


def texts_of(group: Any, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.object_]:
    """UTF-8 texts of a cache's data set, together no longer than the file.

    Raises
    ------
    KeyError, ValueError
        As `array_of`, or no texts.
    """
    item = array_of(group, name, shape=shape)
    if h5py.check_string_dtype(item.dtype) is None or item.dtype.kind != "O":
        raise ValueError(f"{name} is {item.dtype}, needed are texts")
    _check_texts(item, name, item.file.id.get_filesize())
    texts: NDArray[np.object_] = item.asstr()[()]
    return texts


def _check_texts(item: h5py.Dataset, name: str, most: int) -> None:
    """Refuse texts of more bytes together: many may refer to one long one."""
    if not item.size:
        return
    with open(item.file.filename, "rb") as raw:
        raw.seek(item.id.get_offset())
        references = np.fromfile(raw, _REFERENCE, item.size)
    total = int(references["length"].astype(np.int64).sum())
    if len(references) != item.size or total > most:
        raise ValueError(f"{name} announces texts of {total:,} bytes, more than the file has")


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
            expected = item.size * (_REFERENCE.itemsize if text else n_bytes // item.size)
            if stored != expected or stored > self._file.id.get_filesize():
                raise ValueError(
                    f"{name} of shape {item.shape} needs {expected:,} bytes, the file holds "
                    f"{stored:,} of it"
                )
            if text and item.id.get_offset() is not None:
                _check_texts(item, name, self._most)
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
