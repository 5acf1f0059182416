"""Conversion of a package's members to arrays by name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.packages import PretrainedPackage
from mvemo.extract.pretrained.array_pickle import read_array_pickle
from mvemo.extract.pretrained.tensorflow_checkpoint import read_checkpoint

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
