"""Weight files: what is read, what is refused, what is reported."""

import hashlib
import io
import pickle
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_net import Toy

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import weights_digest
from mvemo.extract.nets.parts.weights import (
    load_weights,
    read_weight_file,
)
from mvemo.manifests.errors import MissingFile


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "hidden.weight": rng.normal(size=(8, 20)).astype(np.float32),
        "hidden.bias": rng.normal(size=8).astype(np.float32),
    }


def tensors_of(arrays):
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def write(path, arrays, form):
    tensors = tensors_of(arrays)
    if form == "torch":
        torch.save(tensors, path)
    elif form == "legacy":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif form == "wrapped":
        wrapped = {f"module.{name}": value for name, value in tensors.items()}
        torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 0.1}}, path)
    elif form == "job":
        torch.save({"weights": tensors}, path)
    elif form == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif form == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(tensors, path)
    elif form == "hdf5":
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


FORMS = ("torch", "legacy", "wrapped", "job", "npz", "safetensors", "hdf5")


# The name never tells the format: all are written as .bin.
@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_tensors(tmp_path, arrays, form):
    path = write(tmp_path / "w.bin", arrays, form)
    tensors, sha256 = read_weight_file(path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_equal({name: value.numpy() for name, value in tensors.items()}, arrays)


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_file_is_one_line(tmp_path, arrays, form):
    path = write(tmp_path / "w.bin", arrays, form)
    whole = path.read_bytes()
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadWeights) as caught:
            read_weight_file(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


def test_nested_and_single_arrays_have_names(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/b/c"] = np.arange(3, dtype=">f8")
        file["a/text"] = "words"
    np.save(tmp_path / "mean.npy", np.arange(3.0))
    for file, name in (("w.h5", "a/b/c"), ("mean.npy", "mean")):
        ((found, value),) = read_weight_file(tmp_path / file)[0].items()
        assert found == name
        assert value.tolist() == [0.0, 1.0, 2.0]


def test_what_is_missing_or_no_weight_file(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.pt: no such weight file"):
        read_weight_file(tmp_path / "none.pt")
    with pytest.raises(BadWeights, match="is a folder"):
        read_weight_file(tmp_path)
    for content, message in (
        (b"", "is empty"),
        (b"<html>not found</html>\n", "is text"),
        (bytes(range(1, 200)), "unknown format"),
        (b"PK\x05\x06" + bytes(18), "without tensors"),
    ):
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(BadWeights, match=message):
            read_weight_file(tmp_path / "w.pt")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY"]),
    st.binary(),
)
def test_no_bytes_cause_any_other_error(tmp_path_factory, head, rest):
    path = tmp_path_factory.mktemp("any") / "w"
    path.write_bytes(head + rest)
    with pytest.raises(BadWeights):
        read_weight_file(path)


class Bomb:
    fired = False

    def __reduce__(self):
        return (_fire, ())


def _fire():
    Bomb.fired = True


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(BadWeights):
        read_weight_file(path)
    torch.save({"state_dict": {"x": torch.ones(2)}, "args": Bomb()}, path)
    with pytest.raises(BadWeights, match="state_dict"):
        read_weight_file(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(BadWeights, match="Python objects"):
        read_weight_file(path)
    with path.open("wb") as file:
        np.savez(file, x=np.array([Bomb()], dtype=object))
    with pytest.raises(BadWeights):
        read_weight_file(path)
    with tarfile.open(path, "w") as archive:
        (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb()))
        archive.add(tmp_path / "pickle", "pickle")
    with pytest.raises(BadWeights):
        read_weight_file(path)
    assert not Bomb.fired


def test_no_tensors_and_no_dictionary(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(BadWeights, match="holds no tensors"):
        read_weight_file(tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(BadWeights, match="holds a list"):
        read_weight_file(tmp_path / "w.pt")


def test_report_names_every_tensor_that_did_not_match(tmp_path, arrays):
    arrays["extra"] = np.zeros(2, dtype=np.float32)
    arrays["classifier.bias"] = np.zeros(50, dtype=np.float32)
    path = write(tmp_path / "w.npz", arrays, "npz")
    net = Toy(2)
    report = load_weights(net, path)
    assert report.loaded == ("hidden.weight", "hidden.bias")
    assert report.missing == ("classifier.weight",)
    assert report.unexpected == ("extra",)
    assert report.mismatched == ("classifier.bias: file (50,), net (2,)",)
    assert report.complete
    assert report.known_as == ""
    for name in (*report.missing, *report.unexpected, *report.mismatched):
        assert name in report.text()
    np.testing.assert_array_equal(net.hidden.weight.detach().numpy(), arrays["hidden.weight"])
    del arrays["hidden.bias"]
    assert not load_weights(net, write(path, arrays, "npz")).complete


def test_wrong_file_leaves_the_net_as_it_was(tmp_path, arrays):
    net = Toy(2)
    before = weights_digest(net)
    wrong = write(tmp_path / "w.npz", {"conv1.weight": arrays["hidden.bias"]}, "npz")
    with pytest.raises(
        BadWeights, match=r"no tensor fits toy: the file has conv1\.weight, but the net"
    ):
        load_weights(net, wrong)
    narrow = {"hidden.weight": arrays["hidden.weight"][:3]}
    with pytest.raises(BadWeights, match=r"file \(3, 20\), net \(8, 20\)"):
        load_weights(net, write(tmp_path / "w3.npz", narrow, "npz"))
    arrays["hidden.bias"][1] = np.nan
    with pytest.raises(BadWeights, match=r"hidden\.bias holds values that are not finite"):
        load_weights(net, write(tmp_path / "nan.npz", arrays, "npz"))
    assert weights_digest(net) == before


def test_the_classifier_alone_is_no_fit(tmp_path):
    path = write(tmp_path / "w.npz", {"classifier.bias": np.zeros(2, dtype=np.float32)}, "npz")
    with pytest.raises(BadWeights, match="no tensor fits toy"):
        load_weights(Toy(2), path)


def test_a_net_that_fails_half_way_is_restored(tmp_path, arrays):
    class Fussy(Toy):
        def from_published(self, tensors):
            with torch.no_grad():
                self.hidden.weight.zero_()
            raise BadWeights("tensor z is odd")

    net = Fussy(2)
    before = weights_digest(net)
    path = write(tmp_path / "w.npz", arrays, "npz")
    with pytest.raises(BadWeights, match=r"w\.npz: tensor z is odd"):
        load_weights(net, path)
    assert weights_digest(net) == before


# --- files made to harm: sizes are checked before anything is inflated


def zeros_npz(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 25,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("weight.npy", header.getvalue() + bytes(1 << 27))


def repeated(path):
    torch.save({"weight": torch.zeros(1).expand(1 << 30)}, path)


def inflated_torch(path):
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, content)
    with (
        zipfile.ZipFile(content) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for info in source.infolist():
            data = source.read(info)
            archive.writestr(info.filename, bytes(1 << 27) if "data/0" in info.filename else data)


def holds_itself(path):
    tree = {"weight": torch.zeros(2)}
    tree["inner"] = tree
    torch.save(tree, path)


def wraps_itself(path):
    tree = {}
    tree["model"] = tree
    torch.save(tree, path)


def many_paths(path):
    tree = {"weight": torch.zeros(2)}
    for _ in range(12):
        tree = {str(i): tree for i in range(8)}
    torch.save(tree, path)


def memory_by_number(path):
    program = (
        pickle.dumps({"weight": 1}, 2)[:-1] + b"0cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3")


def sparse(path):
    torch.save({"weight": torch.zeros(3, 3).to_sparse()}, path)


def other_file(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", (8,), "<f4", external=[("/etc/passwd", 0, 32)])


def never_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", (1 << 31,), "<f4", chunks=(1 << 20,), compression=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (zeros_npz, "bytes"),
        (repeated, "bytes"),
        (inflated_torch, "bytes"),
        (holds_itself, "nested more than 16"),
        (wraps_itself, "nested more than 16"),
        (many_paths, "entries"),
        (memory_by_number, "bytearray"),
        (sparse, "must be dense"),
        (other_file, "another file"),
        (never_written, "bytes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_in_one_line(tmp_path, make, words):
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


def test_equal_numbers_compress_and_are_read(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, weight=np.zeros((512, 512), np.float32))
    tensors, _ = read_weight_file(path)
    assert tensors["weight"].shape == (512, 512)
