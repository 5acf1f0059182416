"""Journals keep every entry that was appended, whatever a kill or a full disk left in the file."""

import errno
import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests.errors import DiskFailed
from mvemo.manifests.journal import Journal

ENTRIES = st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()), max_size=3)


@given(st.lists(st.tuples(ENTRIES, st.none() | st.floats(0, 1, exclude_max=True))))
def test_only_torn_entries_are_lost(tmp_path_factory, steps):
    """Each step appends an entry, and a kill may leave only a part of its line."""
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    whole = []
    for entry, torn in steps:
        before = path.stat().st_size if path.exists() else 0
        Journal(path).append([entry])
        if torn is None:
            whole.append(entry)
        else:
            written = path.stat().st_size - before
            os.truncate(path, before + int(torn * (written - 1)))
    found, n_bad = Journal(path).read(dict)
    assert found == whole
    assert n_bad <= len(steps) - len(whole)


@pytest.mark.parametrize(
    "bad", [b"\0" * 40, b"\xff\xfe", b"[" * 100_000, b"[1]", b"7", b'"text"', b"9" * 6000, b"{}"]
)
def test_unreadable_lines_are_skipped_and_counted(tmp_path, bad):
    journal = Journal(tmp_path / "a.jsonl")
    journal.path.write_bytes(b'{"n": 1}\n' + bad)
    journal.append([{"n": 2}, {"n": 3}])
    assert journal.read(lambda entry: entry["n"]) == ([1, 2, 3], 1)
    journal.replace([{"n": 4}])
    assert journal.read(lambda entry: entry["n"]) == ([4], 0)


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "a.jsonl")
    journal.append([{"n": 1}])
    content = journal.path.read_bytes()
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFailed, match=r"a\.jsonl: cannot be written: No space"):
        journal.append([{"n": 2}, {"n": 3}, {"n": 4}])
    assert journal.path.read_bytes() == content


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DiskFailed, match="cannot be read: Is a directory"):
        Journal(tmp_path).read(dict)
    assert Journal(tmp_path / "none.jsonl").read(dict) == ([], 0)


def test_two_processes_append_whole_lines(tmp_path):
    script = (
        "import sys; from pathlib import Path; from mvemo.manifests.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), durable=False)\n"
        "for i in range(200): journal.append([{'by': sys.argv[2], 'i': i}] * 3)\n"
    )
    path = tmp_path / "a.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", script, path, by]) for by in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    found, n_bad = Journal(path).read(dict)
    assert n_bad == 0
    assert [e["i"] for e in found if e["by"] == "a"] == [i for i in range(200) for _ in "123"]
    assert len(found) == 1200
