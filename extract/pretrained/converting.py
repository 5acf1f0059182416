"""Conversion of a package's members to arrays by name: torch, pickles and TensorFlow.

The SHA-256 of the package's file was checked, so its members are known and not checked again. A
pickle is a program that may call everything that it names: here it may name only NumPy's arrays.

TensorFlow checkpoints (bundles of version 2) are read without TensorFlow: a file of raw
little-endian numbers, and an index, a sorted table in the format of LevelDB, whose values are small
protocol buffers (``tensorflow/core/protobuf/tensor_bundle.proto``).
"""

import io
import math
import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.cards import PretrainedPackage

Arrays = dict[str, NDArray[Any]]

# Suffixes of the names of tensors that belong to an optimizer, and of counters of batches.
NOT_WEIGHTS = (
    *("/Adam", "/Adam_1", "beta1_power", "beta2_power", "global_step"),
    "num_batches_tracked",
)
# Size of the footer of TensorFlow's index.
FOOTER_BYTES = 48
# Types by their number in tensorflow/core/framework/types.proto.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
# Wire types of protocol buffers, and the sizes of those with a fixed size.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}


def convert(package: PretrainedPackage, members: list[bytes]) -> Arrays:
    if package.layout == "tensorflow":
        arrays = read_checkpoint(*members)
    elif package.layout == "pickle":
        arrays = dict(_flat(_ArrayUnpickler(io.BytesIO(members[0])).load()))
    else:
        # The import of torch takes seconds, and nothing else here needs it.
        import torch

        state = torch.load(io.BytesIO(members[0]), weights_only=True)
        arrays = {name: value.numpy() for name, value in state.items()}
    return {name: value for name, value in arrays.items() if not name.endswith(NOT_WEIGHTS)}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in (
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "numpy.ndarray",
            "numpy.dtype",
        ):
            raise BadWeights(f"refers to {module}.{name}, but only NumPy arrays are allowed")
        return super().find_class(module, name)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of nested dictionaries; a slash joins the keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def read_checkpoint(index: bytes, data: bytes) -> Arrays:
    """Return the tensors of a checkpoint from its ``.index`` and its only data file."""
    arrays: Arrays = {}
    footer = io.BytesIO(index[-FOOTER_BYTES:])
    # Offset and size of the meta-index come first; it is empty in bundles.
    _varint(footer), _varint(footer)
    for _, handle in _rows(index, footer):
        for name, value in _rows(index, io.BytesIO(handle)):
            # The header of the bundle has an empty name.
            if name:
                entry = _message(value)
                axes = [axis for shape in entry[2] for axis in _message(shape)[2]]
                sizes = [_message(axis)[1][0] for axis in axes]
                offset = entry[4][0] if entry[4] else 0
                raw = np.frombuffer(data, DTYPES[entry[1][0]], math.prod(sizes), offset)
                arrays[name.decode()] = raw.reshape(sizes)
    return arrays


def _rows(index: bytes, handle: io.BytesIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; a key shares its beginning with the previous key."""
    offset, size = _varint(handle), _varint(handle)
    block = index[offset : offset + size]
    # The block ends with a list of restart points and the length of this list.
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    rows, key = io.BytesIO(block), b""
    while rows.tell() < end:
        shared, rest, length = _varint(rows), _varint(rows), _varint(rows)
        key = key[:shared] + rows.read(rest)
        yield key, rows.read(length)


def _message(data: bytes) -> dict[int, list[Any]]:
    """Return the values of a protocol buffer by field number: integers or bytes."""
    fields: dict[int, list[Any]] = defaultdict(list)
    rest = io.BytesIO(data)
    while rest.tell() < len(data):
        field, wire = divmod(_varint(rest), 8)
        if wire == VARINT:
            fields[field].append(_varint(rest))
        else:
            fields[field].append(rest.read(_varint(rest) if wire == BYTES else FIXED[wire]))
    return fields


def _varint(stream: io.BytesIO) -> int:
    """Read an unsigned number, seven bits per byte, lowest bits first."""
    byte = stream.read(1)[0]
    return byte if byte < 0x80 else byte - 0x80 + (_varint(stream) << 7)
