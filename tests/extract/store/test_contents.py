"""A file that did not change is not read again, wherever it lies; any other file is."""

import multiprocessing
import os
import shutil
from contextlib import closing

import pytest
import soundfile
from media_samples import sine

from mvemo.extract.media.isolated import read_each
from mvemo.extract.store import contents
from mvemo.extract.store.contents import (
    KnownContents,
    content_of,
    contents_of,
    forget_contents,
    keep_content,
)
from mvemo.manifests.files import stamp_of


@pytest.fixture
def song(tmp_path, monkeypatch):
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    soundfile.write(tmp_path / "song.wav", sine(0.5, 8000)[0], 8000)
    return tmp_path / "song.wav"


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read."""
    names = []

    def noted(function, calls):
        names.extend(path.name for path, _ in calls)
        return read_each(function, calls)

    monkeypatch.setattr(contents, "read_each", noted)
    return names


def test_unchanged_and_renamed_files_are_not_read_again(song, read, tmp_path):
    digest = content_of(song).digest
    (tmp_path / "x").mkdir()
    for other in (song, tmp_path / "x" / ".." / song.name):
        assert content_of(other).digest == digest
    renamed = song.rename(tmp_path / "x" / "other.wav")
    assert content_of(renamed).digest == digest
    (tmp_path / "x").rename(tmp_path / "y")
    assert content_of(tmp_path / "y" / "other.wav").digest == digest
    assert read == ["song.wav"]
    copy = shutil.copy2(tmp_path / "y" / "other.wav", song)
    assert content_of(copy).digest == digest
    forget_contents()
    assert content_of(copy).digest == digest
    assert read == ["song.wav"] * 3


def test_a_changed_file_is_read_again(song, read):
    digest = content_of(song).digest
    soundfile.write(song, -sine(0.5, 8000)[0], 8000)
    assert content_of(song).digest != digest
    # A tagged copy keeps the digest of the file that it replaces.
    digest, before = content_of(song).digest, stamp_of(song)
    song.write_bytes(song.read_bytes() + b"LIST\4\0\0\0INFO")
    keep_content(song, before)
    assert content_of(song).digest == digest
    assert read == ["song.wav"] * 2
    forget_contents()
    assert content_of(song).digest == digest


def test_a_file_that_changes_while_it_is_read_is_not_kept(song, monkeypatch):
    def changing(function, calls):
        for found in read_each(function, calls):
            soundfile.write(song, sine(0.7, 8000)[0], 8000)
            yield found

    with monkeypatch.context() as patched:
        patched.setattr(contents, "read_each", changing)
        assert "is changing" in content_of(song).reason
    assert content_of(song).digest


def test_files_that_cannot_be_read_have_a_reason(song, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    missing, folder, pipe, whole = contents_of(
        [tmp_path / "no.wav", tmp_path, tmp_path / "pipe.wav", song]
    )
    assert "no.wav: file not found" in missing.reason
    assert "it is a folder" in folder.reason
    assert "it is a pipe" in pipe.reason
    assert (whole.reason, bool(whole.digest)) == ("", True)


@pytest.mark.parametrize("kind", ["file", "damaged", "folder"])
def test_without_a_database_files_are_read_each_time(song, read, tmp_path, kind):
    if kind == "file":
        (tmp_path / "home").write_text("a file where the folder would be")
    elif kind == "damaged":
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "contents.sqlite").write_bytes(b"no database" * 999)
    else:
        (tmp_path / "home" / "contents.sqlite").mkdir(parents=True)
    assert content_of(song).digest == content_of(song).digest
    assert read == ["song.wav"] * 2
    forget_contents()


def put(folder, first):
    for i in range(first, first + 50):
        with closing(KnownContents()) as known:
            known.put(folder / f"{i}.wav", (i, i, i, i), str(i))


def test_two_processes_write_at_once(song, tmp_path):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=put, args=(tmp_path, first)) for first in (0, 1000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with closing(KnownContents()) as known:
        for i in (*range(50), *range(1000, 1050)):
            assert known.find(tmp_path / f"{i}.wav", (i, i, i, i)) == str(i)


def test_a_long_run_blocks_nobody_and_keeps_what_it_read_when_killed(song, monkeypatch, tmp_path):
    monkeypatch.setattr(contents, "AT_ONCE", 2)
    with closing(KnownContents()) as long:
        for i in range(3):
            long.put(tmp_path / f"{i}.wav", (i, i, i, i), str(i))
        put(tmp_path, 1000)
        with closing(KnownContents()) as other:
            found = [other.find(tmp_path / f"{i}.wav", (i, i, i, i)) for i in (0, 1, 2, 1000)]
    assert found == ["0", "1", "", "1000"]
