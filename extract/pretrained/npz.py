"""Writer of reproducible ``.npz`` archives, which hold numbers only."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadWeights

Arrays = Mapping[str, NDArray[Any]]

# Earliest time that a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)


def npz_bytes(arrays: Arrays) -> bytes:
    """Return an ``.npz`` archive of arrays; equal arrays give equal bytes on every machine.

    Examples
    --------
    >>> content = npz_bytes({"dense/bias": np.zeros(2, dtype=np.float32)})
    >>> np.load(io.BytesIO(content), allow_pickle=False)["dense/bias"].tolist()
    [0.0, 0.0]
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            if value.dtype.kind not in "fiu":
                raise BadWeights(f"tensor {name} is of type {value.dtype}, not of numbers")
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            # Otherwise the bytes depend on the operating system.
            info.create_system = 3
            info.external_attr = 0o644 << 16
            part = io.BytesIO()
            little = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
            np.lib.format.write_array(part, little, version=(1, 0), allow_pickle=False)
            archive.writestr(info, part.getvalue())
    return buffer.getvalue()
