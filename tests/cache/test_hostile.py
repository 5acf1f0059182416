"""Caches that were made to harm: nothing is followed out of the file, nothing large is read."""

import json
import os
import struct
import zipfile

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, contents, fill

from mvemo.cache import BadCache, open_cache, read_array, untrusted, verify_cache
from mvemo.cache.cache_file import DAMAGE
from mvemo.cache.maintenance import merge_caches, repair_cache
from mvemo.cache.schema import write_text
from mvemo.cache.untrusted import array_of
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
            write_text(file, name, text)
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
    write_text(group, "spec", json.dumps({**facts, "dim": "four"}))


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
    **{name: state("features/mel", name, "0") for name in ("quick_checksum", "digest")},
}
PAST_REPAIR = {
    "labels": lambda file: file["clips/labels"].__setitem__(0, 1),
    "float folds": swap("clips/folds", astype="<f8"),
    "no features": unset("features"),
    "no failures": unset("failures"),
    "schema": state("/", "schema", np.arange(3)),
    "format": state("/", "format", np.zeros((2, 2))),
}


def read_all(path):
    with open_cache(path) as cache:
        _ = contents(cache), cache.curves, cache.provenance, cache.failures


@pytest.mark.parametrize("name", [*ATTACKS, *PAST_REPAIR])
def test_reading_checking_merging_and_repairing_agree(path, tmp_path, name):
    change(path, (ATTACKS | PAST_REPAIR)[name])
    assert verify_cache(path)
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


def test_texts_that_refer_to_one_long_text_are_not_read(path):
    with h5py.File(path, "r+") as file:
        file.create_dataset("x", data=["y" * 50_000], dtype=h5py.string_dtype())
        place = file["x"].id.get_offset()
        size, at = file["clips/ids"].size, file["clips/ids"].id.get_offset()
    content = path.read_bytes()
    path.write_bytes(content[:at] + size * content[place : place + 16] + content[at + 16 * size :])
    assert "300,000 bytes of text declared" in verify_cache(path)[0]


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


def test_older_caches_have_only_slow_checksums(path):
    with h5py.File(path, "r+") as file:
        for group in file["features"].values():
            del group.attrs["values_checksum"], group.attrs["quick_checksum"]
    assert verify_cache(path) == repair_cache(path) == []
    change(path, lambda file: file["features/mel/values"].__setitem__(0, 1.0))
    with open_cache(path) as cache, pytest.raises(BadCache, match="mel are damaged"):
        cache.sequence("mel", "c0")
    change(path, lambda file: file["features/mel/keys"].__setitem__(0, b"another"))
    assert any("feature mel cannot be read" in problem for problem in verify_cache(path))


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


def end_no_heap(path):
    """Set the size of the free space of each heap to 0: HDF5 2.0 then never stops reading it."""
    content = bytearray(path.read_bytes())
    place = content.find(b"GCOL")
    while place >= 0:
        end = place + int.from_bytes(content[place + 8 : place + 16], "little")
        at = place + 16
        while at + 16 <= end and any(content[at : at + 2]):
            at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
        content[at + 8 : at + 16] = bytes(8)
        place = content.find(b"GCOL", end)
    path.write_bytes(content)


def test_texts_whose_heap_never_ends_are_refused(path, tmp_path):
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["values"] = np.zeros((2, 3))
        file.create_dataset("clip_ids", data=["a", "b"], dtype=h5py.string_dtype())
    end_no_heap(tmp_path / "theirs.h5")
    with pytest.raises(BadCache, match="texts of clip_ids are damaged"):
        read_array(tmp_path / "theirs.h5")
    end_no_heap(path)
    assert any("texts of" in problem for problem in verify_cache(path))


@pytest.mark.parametrize("userblock", [0, 512])
def test_texts_are_those_that_hdf5_reads(tmp_path, userblock):
    draw = np.random.default_rng(0)
    texts = ["ä" * int(n) for n in draw.integers(0, 90, 400)]
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
        # One behind it, so that the heaps are not the file's end.
        file["values"] = np.zeros(100)
    with h5py.File(path) as file:
        assert (
            array_of(file, "texts").texts().tolist() == texts == file["texts"].asstr()[()].tolist()
        )


def walk_heap(content, references):
    """Read texts object by object, as HDF5's specification says; None if they are damaged."""
    texts = []
    for length, place, number in references:
        header, version, size = struct.unpack("<4sB3xQ", content[place:][:16].ljust(16))
        if (header, version) != (b"GCOL", 1) or size > len(content) - place:
            return None
        objects, at, end = {}, place + 16, place + size
        while at + 16 <= end:
            found, size = struct.unpack_from("<H6xQ", content, at)
            if not found:
                break
            objects[found] = content[at + 16 : at + 16 + size]
            at += 16 + (size + 7) // 8 * 8
        if at > end or (at + 16 <= end and at + size != end):
            return None
        if length > len(objects.get(number, b"")):
            return None
        texts.append(objects[number][:length])
    return texts


@pytest.mark.parametrize("words", [64, untrusted.WORDS])
def test_damaged_texts_are_those_of_a_walk_through_the_heap(tmp_path, monkeypatch, words):
    monkeypatch.setattr(untrusted, "WORDS", words)
    untrusted._objects_of.cache_clear()
    path, draw = tmp_path / "texts.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name in ("some", "more"):
            texts = [f"{name} {'x' * int(n)}" for n in draw.integers(0, 90, 60)]
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        place, size = file["more"].id.get_offset(), 60 * 16
    whole = path.read_bytes()
    outcomes = set()
    for _ in range(200):
        data = bytearray(whole)
        # Headers of collections and objects are at multiples of 8 bytes, with low bytes first.
        words, low_bytes = draw.integers(len(whole) // 8, size=2), draw.integers(3, size=2)
        for at, bit in zip(8 * words + low_bytes, draw.integers(8, size=2), strict=True):
            data[at] ^= 1 << bit
        path.write_bytes(data)
        try:
            with h5py.File(path) as file:
                found = [text.encode() for text in array_of(file, "more").texts()]
        except DAMAGE as error:
            found = None
            if "the texts of more are damaged" not in str(error):
                continue
        assert found == walk_heap(
            bytes(data), struct.iter_unpack("<IQI", data[place : place + size])
        )
        outcomes.add(found == [text.encode() for text in texts] if found else None)
    assert outcomes == {True, False, None}
