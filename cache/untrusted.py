"""Safe reading of HDF5 files from untrusted sources.

Links and storage in other files are not followed. Every size is checked before anything is read:
an array of a cache has as many bytes in the file as in memory, because caches are not compressed
and their texts have a fixed width. HDF5 reads texts of variable width, of other programs' files,
only in a process with limited time and memory: it loops endlessly on some damaged ones.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.manifests import array_files, text_files

# Memory in GiB, in addition to the file's size, of a process that opens an untrusted file.
MEMORY_GIB = 4
# Time limit in seconds of a process that reads texts of another program's file.
TEXT_SECONDS = 120.0


def group_of(group: Any, name: str) -> h5py.Group:
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


def write_attribute(group: Any, name: str, text: str) -> None:
    """Write a text attribute."""
    content = text_array([text]).reshape(())
    group.attrs.create(name, content, dtype=content.dtype)


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
    dtype = _dtype_of(kept)
    if dtype.kind not in {str: "S", int: "iu", bool: "b"}[kind]:
        raise ValueError(f"attribute {name}: expected {kind.__name__}, got {dtype}")
    value = np.empty((), dtype)
    stored.read(value, kept if kind is str else None)
    single: Any = value[()]
    return single.decode() if kind is str else kind(single)


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
            self.item.read(h5py.h5s.ALL, h5py.h5s.ALL, everything, self.item.get_type())
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
        """Return all UTF-8 texts."""
        if self.dtype.kind != "S":
            raise ValueError(f"{self.name}: expected texts, got {self.dtype}")
        stored = self.read().ravel().tolist()
        texts = np.empty(len(stored), object)
        texts[:] = [text.decode() for text in stored]
        return texts.reshape(self.shape)


def array_of(
    group: Any, name: str, dtype: Any = None, shape: tuple[int, ...] | None = None
) -> PlainArray:
    """Return an array of a cache, not yet read; raise KeyError or ValueError if it is invalid."""
    item = _member(group, name)
    if not isinstance(item, h5py.h5d.DatasetID):
        raise ValueError(f"{name} is not a data set")
    stored_shape, stored_dtype = item.shape, _dtype_of(item.get_type())
    if stored_dtype.hasobject:
        raise ValueError(f"{name}: expected values of fixed width")
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
    n_bytes = math.prod(stored_shape) * stored_dtype.itemsize
    _check_size(item, name, n_bytes, file.get_filesize())
    return PlainArray(item, name, stored_shape, stored_dtype, offset, file)


def _dtype_of(kept: Any) -> np.dtype[Any]:
    """Return the NumPy type of a stored type."""
    if isinstance(kept, h5py.h5t.TypeStringID) and not kept.is_variable_str():
        return np.dtype(f"S{kept.get_size()}")
    dtype: np.dtype[Any] = kept.dtype
    return dtype


def _check_size(item: Any, name: str, n_bytes: int, most: int) -> None:
    """Raise ValueError for an array that is not completely in the file."""
    stored = item.get_storage_size()
    if stored != n_bytes or n_bytes > most:
        raise ValueError(
            f"{name} of shape {item.shape} needs {n_bytes:,} bytes, but the file holds {stored:,}"
        )


def text_array(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Return texts as an array of UTF-8 bytes of fixed width, of a type that HDF5 stores."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


_LIMITED = """
import json, resource, sys
try:
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ValueError, OSError):
    pass
"""
_READ_TEXTS = """
import h5py
with h5py.File(sys.argv[1], "r") as file:
    texts = file[sys.argv[3]].asstr(errors="replace")[()].ravel().tolist()
if sum(map(len, texts)) > int(sys.argv[4]):
    sys.exit("the texts are longer than a file of its size may have")
print(json.dumps(texts))
"""


def run_limited(code: str, path: Path, size: int, seconds: float, *arguments: str) -> Any:
    """Run Python code on a file of `size` bytes in a limited process, and return its JSON output.

    A crash, a timeout or a failure is a ValueError of one line.
    """
    limits = str(path), str(size + (MEMORY_GIB << 30))
    command = [sys.executable, "-c", _LIMITED + code, *limits, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"did not finish within {seconds:g} s") from None
    if done.returncode < 0:
        raise ValueError(f"crashed (signal {-done.returncode})")
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"failed: {(last or ['it gave no message'])[-1][:200]}")
    return text_files.parse_json(done.stdout)


@dataclass(frozen=True)
class ForeignTexts:
    """Texts of variable width in another program's HDF5 file, not yet read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    most: int  # bytes that all texts together may have

    def __getitem__(self, _: object) -> NDArray[np.object_]:
        arguments = self.name, str(self.most)
        try:
            texts = run_limited(_READ_TEXTS, self.path, self.most, TEXT_SECONDS, *arguments)
        except ValueError as error:
            raise ValueError(f"reading the texts of {self.name} {error}") from None
        return np.array(texts, object).reshape(self.shape)


def data_set_names(file: Any) -> list[str]:
    """Return the paths of all data sets of another program's HDF5 file."""
    names: list[str] = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


def data_set(file: Any, name: str, size: int) -> Any:
    """Return a data set of another program's HDF5 file of `size` bytes; it may be compressed."""
    item, most = file[name], array_files.most_bytes(size)
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
    if item.dtype.hasobject:
        return ForeignTexts(Path(file.filename), name, item.shape, item.dtype, most)
    if item.chunks is None and item.size and item.id.get_storage_size():
        _check_size(item.id, name, n_bytes, file.id.get_filesize())
    return item
