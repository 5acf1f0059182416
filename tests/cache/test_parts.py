"""One writer at a time, also when it is killed at any moment."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import cache_samples
import filelock
import pytest
from cache_samples import VECTOR, contents, current, fill, put, row, table, unfinished

from mvemo.cache import CacheBusy, CacheWriter, open_cache, verify_cache
from mvemo.cache.maintenance import merge_caches, repair_cache
from mvemo.manifests.errors import MissingFile, MvemoError

SAMPLES = str(Path(cache_samples.__file__).parent)
CLIPS = table(f"c{i}" for i in range(100))

# Puts what is not stored, tells each row that was committed, and closes now and then.
WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from cache_samples import CacheWriter, VECTOR, current, put, table
clips = table(f"c{i}" for i in range(100))
print("ready", flush=True)
for start in range(0, 100, 20):
    with CacheWriter(sys.argv[1], clips) as writer:
        stored = current(writer, VECTOR)
        for i in range(start, start + 20):
            if f"c{i}" in stored:
                continue
            put(writer, VECTOR, f"c{i}")
            if i % 4 == 3:
                writer.commit()
                print(i, flush=True)
print("done", flush=True)
"""


def test_a_second_writer_is_told_who_holds_the_cache(tmp_path, path):
    fill(path, table(), VECTOR)
    with CacheWriter(path, table()):
        for use, arguments in (
            (CacheWriter, (path, table())),
            (repair_cache, (path,)),
            (merge_caches, ([path], path)),
        ):
            with pytest.raises(CacheBusy, match=f"another writer: process {os.getpid()} on "):
                use(*arguments)
        assert open_cache(path).present("music1d").all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.h5", "features.h5.lock"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("No locks available")],
)
def test_a_file_system_without_locks_is_told(path, monkeypatch, error):
    monkeypatch.setattr(filelock.FileLock, "acquire", Mock(side_effect=error))
    message = r"cannot be locked for writing \(No locks available\): .* set MVEMO_NO_LOCK=1"
    with pytest.raises(MvemoError, match=message):
        CacheWriter(path, table())


def test_readers_see_the_file_last_closed(path):
    fill(path, table(), VECTOR, leave_out="c5")
    with open_cache(path) as early:
        with CacheWriter(path, table()) as writer:
            put(writer, VECTOR, "c5")
            writer.commit()
            assert open_cache(path).present("music1d").sum() == 5
        assert early.present("music1d").sum() == early.vectors("music1d")[1].sum() == 5
    assert open_cache(path).present("music1d").sum() == 6


def test_killed_at_any_moment_nothing_committed_is_lost(path):
    committed = set()
    # Killed so many reports after its start, and whatever it had begun by then.
    for n_reports in (1, 0, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), SAMPLES], stdout=subprocess.PIPE, text=True
        )
        reports = [process.stdout.readline() for _ in range(1 + n_reports)]
        process.kill()
        reports += process.stdout.readlines()
        process.wait()
        committed.update(int(line) for line in reports if line.strip().isdigit())
        # Whatever moment it was, the file is whole, and reading needs no repair.
        if path.exists():
            assert verify_cache(path) == []
    assert committed
    with CacheWriter(path, CLIPS) as writer:
        stored = current(writer, VECTOR)
        assert stored >= {f"c{j}" for i in committed for j in range(i - 3, i + 1)}
        for clip in set(CLIPS.clip_ids) - stored:
            put(writer, VECTOR, clip)
    assert verify_cache(path) == []
    rows = contents(open_cache(path))
    assert rows == {("music1d", None, c): row(VECTOR, c).tobytes() for c in CLIPS.clip_ids}


def test_repair_takes_up_the_shards_of_a_killed_first_run(tmp_path, path):
    with pytest.raises(MissingFile, match=r"no such file$"):
        repair_cache(path)
    unfinished(path, VECTOR, "c3")
    with pytest.raises(MissingFile, match="an unfinished run left rows"):
        open_cache(path)
    assert repair_cache(path) == ["added 1 parts of an unfinished run"]
    assert verify_cache(path) == []
    assert open_cache(path).present("music1d").tolist() == [False] * 3 + [True] + [False] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.h5", "features.h5.lock"]
