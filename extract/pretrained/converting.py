"""Conversion of a package's members to arrays by name.

A pickle is a program, and an ordinary unpickler calls everything that it names. Here only the
names with which NumPy pickles an array are allowed, and they refer to the two classes below.
No function of NumPy or of any other package is called.
"""

from __future__ import annotations

import io
import math
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.cards import PretrainedPackage
from mvemo.extract.pretrained.tensorflow_checkpoint import read_checkpoint

MOST_AXES = 8
MOST_DEPTH = 16


class _DType:
    """Stand-in for ``numpy.dtype`` that accepts types of numbers only."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        if self.code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise BadWeights(f"an array is of type {self.code!r}, not of numbers")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """Stand-in for ``numpy.ndarray`` and for the function that makes an empty one."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise BadWeights("an array's state is not as NumPy writes it")
        _, shape, kind, columns_first, raw = state
        if not isinstance(kind, _DType) or not isinstance(raw, bytes):
            raise BadWeights("an array's state is not as NumPy writes it")
        dtype = kind.dtype()
        if (
            not isinstance(shape, tuple)
            or len(shape) > MOST_AXES
            or not all(type(axis) is int and axis > 0 for axis in shape)
            or math.prod(shape) * dtype.itemsize != len(raw)
        ):
            raise BadWeights(f"an array of shape {shape!r} has {len(raw)} bytes of {dtype}")
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
            raise BadWeights(f"names {module}.{name}, which is no array: such files are not read")
        return stand_in


def read_array_pickle(data: bytes) -> dict[str, NDArray[Any]]:
    """Return all arrays of a pickled dictionary; keys of nested ones are joined by a slash.

    The protocol is 3 or 4; pickles of other protocols build the bytes of an array by functions.
    """
    try:
        tree = _Unpickler(io.BytesIO(data)).load()
    except BadWeights:
        raise
    except Exception as error:
        # The reader raises many types of error for a damaged file.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BadWeights(f"damaged or incomplete as a pickle: {reason[0]}") from error
    arrays: dict[str, NDArray[Any]] = {}
    _flatten(tree, (), arrays)
    if not arrays:
        raise BadWeights("holds no arrays")
    return arrays


def _flatten(tree: object, path: tuple[str, ...], into: dict[str, NDArray[Any]]) -> None:
    if isinstance(tree, _Array) and tree.values is not None and path:
        into["/".join(path)] = tree.values
        return
    place = "/".join(path) or "the file"
    if not isinstance(tree, dict):
        raise BadWeights(f"{place} is a {type(tree).__name__.lstrip('_')}, not arrays by name")
    # A dictionary may contain itself.
    if len(path) >= MOST_DEPTH:
        raise BadWeights(f"{place} is nested more than {MOST_DEPTH} deep")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise BadWeights(f"{place} has the key {key!r}, which is no text")
        _flatten(value, (*path, key), into)


# Suffixes of the names of tensors that belong to an optimizer.
OPTIMIZER_STATE = ("/Adam", "/Adam_1", "beta1_power", "beta2_power", "global_step")
# Suffix of the counters of training batches.
BATCH_COUNT = "num_batches_tracked"


def convert(package: PretrainedPackage, members: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """Return the weights of a package under the names given by its authors."""
    parts = [members[name] for name in package.members]
    arrays: Mapping[str, NDArray[Any]]
    if package.layout == "tensorflow":
        index, data = parts
        arrays = read_checkpoint(index, data)
    elif package.layout == "pickle":
        arrays = read_array_pickle(parts[0])
    else:
        arrays = _read_torch(parts[0])
    weights = {
        name: value
        for name, value in arrays.items()
        if not name.endswith((*OPTIMIZER_STATE, BATCH_COUNT))
    }
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise BadWeights(f"tensor {name} holds values that are not finite")
    return weights


def _read_torch(content: bytes) -> dict[str, NDArray[Any]]:
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
