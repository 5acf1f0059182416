"""Caches that were made to harm: nothing is followed out of the file, nothing large is read."""

import json
import os
import zipfile

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, contents, fill

from mvemo.cache import BadCache, open_cache, read_array, untrusted, verify_cache
from mvemo.cache.maintenance import merge_caches, repair_cache
from mvemo.cache.schema import text_checksum, write_json
from mvemo.cache.untrusted import text_array, write_attribute
from mvemo.manifests import array_files
from mvemo.manifests.errors import MvemoError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "features.h5"
    fill(path, CLIPS, VECTOR, SEQUENCE)
    return path.read_bytes()


@pytest.fixture
def path(sound, tmp_path):
    (tmp_path / "features.h5").write_bytes(sound)
    return tmp_path / "features.h5"


def change(path, attack):
    with h5py.File(path, "r+") as file:
        return attack(file)


def swap(name, link=None, text=None, astype=None, **options):
    """Replace a data set by another, or by a link."""

    def attack(file):
        shape, values = file[name].shape, file[name][()]
        del file[name]
        if link is not None:
            file[name] = link
        elif text is not None:
            file[name] = text_array([text]).reshape(())
            write_attribute(file[name], "checksum", text_checksum(text))
        elif astype is not None:
            file.create_dataset(name, data=values.astype(astype))
        else:
            file.create_dataset(name, **{"shape": shape, "dtype": "<f4", **options})

    return attack


def unset(name):
    return lambda file: file.__delitem__(name)


def state(name, attribute, value):
    return lambda file: file[name].attrs.update({attribute: value})


def strange_spec(file):
    group = file["features/music1d"]
    facts = json.loads(group["spec"].asstr()[()])
    del group["spec"]
    write_json(group, "spec", {**facts, "dim": "four"})


VALUES = "features/music1d/values"
ELSEWHERE = {"external": [("/etc/passwd", 0, 96)]}
ATTACKS = {
    "soft link": swap(VALUES, link=h5py.SoftLink("/features/mel/values")),
    "external link": lambda file: (
        unset("features/music1d")(file),
        file.__setitem__("features/music1d", h5py.ExternalLink("/etc/passwd", "/")),
    ),
    "external storage": swap(VALUES, **ELSEWHERE),
    "bomb": swap(VALUES, chunks=(6, 4), compression=1),
    "never written": swap("features/mel/values", shape=(1 << 40, 3)),
    "doubles": swap(VALUES, astype="<f8"),
    "type of the checksum": state("features/music1d", "checksum", 3.5),
    "curves of text": swap("curves", text='{"music1d": {"loss": ["low"]}}'),
    "deep provenance": swap("provenance", text="[" * 100_000),
    "history": swap("provenance", text='{"history": 3}'),
    "strange spec": strange_spec,
    "checksum": state("features/mel", "checksum", "0"),
    "no failures": unset("failures"),
    "failures of numbers": swap("failures", text='[["c0", 3]]'),
}
PAST_REPAIR = {
    "labels": lambda file: file["clips/labels"].__setitem__(0, 1),
    "float folds": swap("clips/folds", astype="<f8"),
    "no features": unset("features"),
    "schema": state("/", "schema", np.arange(3)),
    "format": state("/", "format", np.zeros((2, 2))),
    "variable width": swap("clips/ids", data=["c0"] * 6, dtype=h5py.string_dtype()),
}


def read_all(path):
    with open_cache(path) as cache:
        _ = contents(cache), cache.curves, cache.provenance, cache.failures


@pytest.mark.parametrize("name", [*ATTACKS, *PAST_REPAIR])
def test_reading_checking_merging_and_repairing_agree(path, tmp_path, name):
    change(path, (ATTACKS | PAST_REPAIR)[name])
    problems = verify_cache(path)
    assert problems
    assert name != "variable width" or "ids: expected values of fixed width" in problems[0]
    for use in (read_all, lambda p: merge_caches([p], tmp_path / "merged.h5")):
        with pytest.raises(BadCache) as error:
            use(path)
        assert len(str(error.value).splitlines()) == 1
    if name in PAST_REPAIR:
        with pytest.raises(BadCache):
            repair_cache(path)
    else:
        assert repair_cache(path)
        assert verify_cache(path) == []


def test_a_pipe_is_no_cache_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "features.h5")
    with pytest.raises(MvemoError, match="expected a feature cache, got a pipe"):
        open_cache(tmp_path / "features.h5")


def test_repair_rewrites_what_only_verify_used_to_find(path):
    path.unlink()
    fill(path, CLIPS, VECTOR, leave_out="c4")
    change(path, lambda file: file["features/music1d/values"].__setitem__(4, 1.0))
    assert verify_cache(path) == ["music1d of clip 'c4' is marked missing, but has values"]
    assert repair_cache(path)
    assert verify_cache(path) == []


# A header that states 512 GiB of values, of which the file has none.
HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1073741824, 64), }\n"
HUGE = b"\x93NUMPY\x01\x00" + len(HUGE).to_bytes(2, "little") + HUGE


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", HUGE, "bytes"),
        ("a.npz", {"values.npy": HUGE}, "bytes"),
        ("a.npz", {"values.npy": b"", "readme.txt": b"hello"}, "readme.txt' is not an array"),
        ("a.npz", {"values.npy": b"text"}, "member 'values'"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 5000, "cannot be read"),
        ("a.npy", b"\x93NUMPY\x03\x00" + bytes(40), "version"),
        ("a.h5", {"shape": (1 << 30, 64), "chunks": (1 << 12, 64), "compression": 1}, "bytes"),
        ("a.h5", {"shape": (6, 4), **ELSEWHERE}, "another file"),
    ],
)
def test_arrays_that_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    if name == "a.npy":
        path.write_bytes(content)
    elif name == "a.npz":
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in content.items():
                archive.writestr(member, data)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("values", dtype="<f4", **content)
    with pytest.raises(BadCache, match=words) as error:
        read_array(path)
    assert len(str(error.value).splitlines()) == 1


def test_texts_whose_heap_never_ends_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros((2, 3))
        file.create_dataset("clip_ids", data=["a", "b"], dtype=h5py.string_dtype())
    assert read_array(path).clip_ids == ("a", "b")
    # If the free space of a heap has size 0, HDF5 2.0 never stops reading it.
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    while any(content[at : at + 2]):
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    monkeypatch.setattr(untrusted, "TEXT_SECONDS", 2.0)
    with pytest.raises(BadCache, match=r"the texts of clip_ids (did not finish|crashed|failed)"):
        read_array(path)


def test_texts_that_refer_to_one_long_text_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "ALWAYS", 0)
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros((100, 3))
        ids = file.create_dataset(
            "clip_ids", data=["y" * 50_000, *"a" * 99], dtype=h5py.string_dtype()
        )
        at = ids.id.get_offset()
    content = path.read_bytes()
    path.write_bytes(content[:at] + 100 * content[at : at + 16] + content[at + 1600 :])
    with pytest.raises(BadCache, match="longer than a file of its size may have"):
        read_array(path)
