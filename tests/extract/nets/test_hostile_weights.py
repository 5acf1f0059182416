"""Weight files that were made to harm: sizes are checked before anything is inflated."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.weights import read_weight_file


def zeros_npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 25,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("weight.npy", header.getvalue() + bytes(1 << 27))


def repeated(path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 30)}, path)


def inflated_torch(path: Path) -> None:
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, content)
    with (
        zipfile.ZipFile(content) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for info in source.infolist():
            data = source.read(info)
            archive.writestr(info.filename, bytes(1 << 27) if "data/0" in info.filename else data)


def holds_itself(path: Path) -> None:
    tree: dict[str, Any] = {"weight": torch.zeros(2)}
    tree["inner"] = tree
    torch.save(tree, path)


def wraps_itself(path: Path) -> None:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    torch.save(tree, path)


def doubling(path: Path) -> None:
    tree: dict[str, Any] = {"weight": torch.zeros(2)}
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    torch.save(tree, path)


def many_paths(path: Path) -> None:
    tree: dict[str, Any] = {"weight": torch.zeros(2)}
    for _ in range(12):
        tree = {str(i): tree for i in range(8)}
    torch.save(tree, path)


def memory_by_number(path: Path) -> None:
    program = (
        pickle.dumps({"weight": 1}, 2)[:-1] + b"0cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3")


def objects(path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "path": Path("x")}, path)


def sparse(path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 3).to_sparse()}, path)


def other_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", (8,), "<f4", external=[("/etc/passwd", 0, 32)])


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((8,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weight", (8,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("weight", layout)


def never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", (1 << 31,), "<f4", chunks=(1 << 20,), compression=1)


def text_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight.npy", "hello")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (zeros_npz, "bytes"),
        (repeated, "bytes"),
        (inflated_torch, "bytes"),
        (holds_itself, "holds itself"),
        (wraps_itself, "holds itself"),
        (doubling, "nested more than 16"),
        (many_paths, "entries"),
        (memory_by_number, "bytearray"),
        (objects, r"only the net.s state_dict"),
        (sparse, "sparse"),
        (other_file, "another file"),
        (virtual, "another file"),
        (never_written, "bytes"),
        (text_member, "damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_in_one_line(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "weights"
    make(path)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(BadWeights, match=words) as error:
        read_weight_file(path)
    text = str(error.value)
    assert text.count(str(path)) == 1
    assert "\n" not in text
    assert "weights_only" not in text
    assert "trust" not in text


def test_any_truncation_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(OrderedDict(weight=torch.arange(64.0)), path)
    content = path.read_bytes()
    for size in range(1, len(content) - 1, 97):
        path.write_bytes(content[:size])
        with pytest.raises(BadWeights) as error:
            read_weight_file(path)
        assert "weights_only" not in str(error.value)


def test_equal_numbers_compress_and_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, weight=np.zeros((512, 512), np.float32))
    tensors, _ = read_weight_file(path)
    assert tensors["weight"].shape == (512, 512)
