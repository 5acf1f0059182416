"""Reader of torch checkpoints of any origin, with limits that are checked first.

torch's ``weights_only`` reader runs no code of a file. But it inflates any amount of data, and
returns any object that the file describes: dictionaries that contain themselves, or tensors
that repeat one number thousands of millions of times. This module refuses them.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvemo.extract.errors import BadWeights
from mvemo.manifests.arrays import check_inflated, most_bytes
from mvemo.manifests.files import shown

Tensors = dict[str, Tensor]

# Keys under which training scripts store the tensors of a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "weights", "model", "net")
# Maximum depth of nested dictionaries, and maximum number of entries in all of them.
_MOST_DEPTH = 16
_MOST_ENTRIES = 100_000


def read_torch(path: Path) -> Tensors:
    """Return all tensors of a checkpoint by name; nested names are joined by a dot.

    The messages of `BadWeights` do not name the file.
    """
    most = most_bytes(path.stat().st_size)
    _check_archive(path, most)
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        if "Unsupported" in text or "Weights only" in text or "weights_only" in text:
            raise BadWeights(
                "holds Python objects besides tensors, or is damaged; such files are not "
                "opened: save the net's state_dict() alone"
            ) from error
        raise
    for _ in range(_MOST_DEPTH):
        if not isinstance(saved, dict):
            break
        inner = next((saved[key] for key in _WRAPPERS if isinstance(saved.get(key), dict)), None)
        if inner is None:
            break
        saved = inner
    if isinstance(saved, Tensor):
        saved = {path.stem: saved}
    if not isinstance(saved, dict):
        raise BadWeights(f"holds a {type(saved).__name__}, not a dictionary of tensors")
    tensors = _Flattening(most).run(saved)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def numbers(name: str, array: Any) -> Tensor:
    """Return an array as a tensor; `BadWeights` if it does not hold numbers."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise BadWeights(f"tensor {name} is of type {array.dtype}, not of numbers")
    # torch needs the byte order of the machine.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _check_archive(path: Path, most: int) -> None:
    """Refuse a zip that would inflate too much, and pickles that allocate memory by a number."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                _check_pickle(file.read())
            return
        with zipfile.ZipFile(path) as archive:
            check_inflated(archive, most)
            for info in archive.infolist():
                if info.filename.endswith("data.pkl"):
                    _check_pickle(archive.read(info))
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise BadWeights(f"damaged or incomplete: {error}") from error
    except ValueError as error:
        raise BadWeights(str(error)) from error


def _check_pickle(program: bytes) -> None:
    names: list[str] = []
    # A program that ends early is an old file of several pickles, or damaged: torch reports it.
    with suppress(ValueError):
        for operation, argument, _ in pickletools.genops(program):
            if "GLOBAL" in operation.name or "UNICODE" in operation.name:
                names.append(str(argument).rpartition(" ")[2])
    if "bytearray" in names:
        raise BadWeights("asks for memory by a number (bytearray), which no weights do")


class _Flattening:
    """Flattens nested dictionaries of tensors into one, within limits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tensors: Tensors = {}
        self._bytes = 0
        self._entries = 0

    def run(self, tree: Mapping[Any, Any]) -> Tensors:
        self._visit(tree, "", ())
        return self._tensors

    def _visit(self, tree: Mapping[Any, Any], prefix: str, above: tuple[int, ...]) -> None:
        if id(tree) in above:
            raise BadWeights(f"{shown(prefix)} is a dictionary that holds itself")
        if len(above) >= _MOST_DEPTH:
            raise BadWeights(f"{shown(prefix)} is nested more than {_MOST_DEPTH} deep")
        for key, value in tree.items():
            self._entries += 1
            if self._entries > _MOST_ENTRIES:
                raise BadWeights(f"has more than {_MOST_ENTRIES:,} entries, which no net has")
            name = f"{prefix}{key}"
            if isinstance(value, Tensor):
                self._tensors[name] = self._checked(name, value.detach())
            elif isinstance(value, np.ndarray):
                self._tensors[name] = self._checked(name, numbers(name, value))
            elif isinstance(value, dict):
                self._visit(value, f"{name}.", (*above, id(tree)))

    def _checked(self, name: str, value: Tensor) -> Tensor:
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise BadWeights(f"tensor {name} is sparse, quantised or without values: not read")
        # A tensor may describe more numbers than it stores: a stride of 0 repeats one.
        self._bytes += value.numel() * value.element_size()
        if self._bytes > self._most:
            raise BadWeights(
                f"tensor {name} of shape {tuple(value.shape)}: the tensors would become "
                f"{self._bytes:,} bytes, at most {self._most:,} are read of a file of its size"
            )
        return value
