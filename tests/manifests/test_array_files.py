"""Shapes of arrays in files of others."""

import numpy as np
import pytest

from mvemo.manifests.array_files import NpzFile, read_npy


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 0), (2, 3), (1,) * 32])
def test_shapes_that_are_read(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    np.savez(tmp_path / "a.npz", x=np.ones(shape))
    with NpzFile(tmp_path / "a.npz") as arrays:
        assert arrays["x"].shape == read_npy(tmp_path / "a.npy").shape == shape


@pytest.mark.parametrize("shape", [(-1, 4), (True, 4), (2.0,), (1,) * 33])
def test_shapes_that_no_array_has(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + bytes(64))
    with pytest.raises(ValueError, match=r"invalid array shape '\(|shape is not valid"):
        read_npy(tmp_path / "a.npy")
