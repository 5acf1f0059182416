"""What one clip does to the others, and what is remembered of it."""

import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from media_samples import sine

from mvemo.extract.errors import MediaUnavailable
from mvemo.extract.media.request import Problem
from mvemo.extract.store import decoded as store_module
from mvemo.extract.store import decoding, folders
from mvemo.extract.store.decoded import DecodedStore, DecodeSettings, decode_many
from mvemo.extract.store.decoding import decode_job
from mvemo.extract.store.folders import (
    DecodeJob,
    DecodeRequest,
    digest_file,
    map_array,
    read_problems,
    write_array,
)
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call, ClipLimits

REQUEST = DecodeRequest(sample_rates=(8000,))
RETRY = DecodeSettings(retry_failed=True)


@pytest.fixture
def song(tmp_path):
    soundfile.write(tmp_path / "song.wav", sine(0.5, 8000)[0], 8000)
    return tmp_path / "song.wav"


def job_of(path, clip_id="one"):
    content, stamp = digest_file(path)
    return DecodeJob(clip_id, path, content, stamp=stamp)


def decode(folder, *jobs, settings=None):
    """Reasons by clip, empty where there is sound."""
    store = DecodedStore(folder, REQUEST)
    found = {}
    decode_many(
        store,
        jobs,
        settings,
        on_clip=lambda clip, problems: found.update({clip: str(problems.get("audio", ""))}),
    )
    return store, found


@pytest.fixture
def instead(monkeypatch):
    """By clip id, what a worker does in place of decoding."""
    others = {}

    def changed(calls, *, workers):
        given = []
        for call in calls:
            other = others.get(call.arguments[0].clip_id, call)
            given.append(replace(other, seconds=min(call.seconds, other.seconds or call.seconds)))
        return run_calls(given, workers=workers)

    monkeypatch.setattr(store_module, "run_calls", changed)
    return others


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_clip_that_ends_its_worker_costs_itself(tmp_path, song, instead):
    jobs = []
    for i, name in enumerate(("first", "crash", "kill", "hang", "greedy", "odd", "last")):
        soundfile.write(tmp_path / f"{name}.wav", sine(0.5, 8000, 100.0 + i)[0], 8000)
        jobs.append(job_of(tmp_path / f"{name}.wav", name))
    instead["crash"] = Call("signal:raise_signal", (signal.SIGSEGV,))
    instead["kill"] = Call("signal:raise_signal", (signal.SIGKILL,))
    instead["hang"] = Call("time:sleep", (1000,), seconds=0.2)
    instead["greedy"] = Call("operator:mul", (b"x", 1 << 30), memory=1 << 28)
    instead["odd"] = Call("math:sqrt", (-1.0,))
    settings = DecodeSettings(1, ClipLimits(memory=0.25))
    store, found = decode(tmp_path / "store", *jobs, settings=settings)
    assert found.pop("first") == found.pop("last") == ""
    patterns = {
        "crash": r"it crashes its decoder \(SIGSEGV\)",
        "kill": r"the process that read it was killed \(SIGKILL\)",
        "hang": r"reading it took longer than 0\.2 s",
        "greedy": r"decoding it takes more than 0\.25 GiB of memory",
        "odd": r"cannot be decoded: ValueError: ",
    }
    for name, pattern in patterns.items():
        assert re.match(pattern, found[name]), found[name]
    # The crash comes again; the others may pass.
    kept = {name for name in found if read_problems(store.folder_of(name))}
    assert kept == {"crash"}
    instead.clear()
    _, found = decode(tmp_path / "store", *jobs)
    assert [name for name, reason in found.items() if reason] == ["crash"]
    _, found = decode(tmp_path / "store", *jobs, settings=RETRY)
    assert not any(found.values())


def test_workers_import_no_torch(tmp_path, song):
    decode(tmp_path / "store", job_of(song))
    loaded = Call("builtins:eval", ("sorted(__import__('sys').modules)",))
    (outcome,) = run_calls([loaded], workers=1)
    assert "av" in outcome.result()
    assert not {"torch", "h5py", "sklearn", "librosa"} & set(outcome.result())


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changes_is_noticed(tmp_path, song, when, monkeypatch):
    one = job_of(song)

    def change():
        stat = os.stat(song)
        soundfile.write(song, -sine(0.5, 8000)[0], 8000)
        # Size and time of change are as before.
        os.utime(song, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    if when == "before":
        change()
    else:
        real = decoding.decode_clip

        def slow(*path, **asked):
            found = real(*path, **asked)
            change()
            return found

        monkeypatch.setattr(decoding, "decode_clip", slow)
    folder = tmp_path / "store"
    problems = decode_job(one, folder, REQUEST, 1)
    assert problems["audio"].passing
    assert re.search(r"changed (after|while)", problems["audio"].reason)
    # Neither its sound nor its problem is kept.
    assert not folder.exists()
    monkeypatch.undo()
    assert decode_job(job_of(song), folder, REQUEST, 1) == {}


def test_the_same_bytes_in_a_new_file_are_no_change(tmp_path, song):
    one = job_of(song)
    data = song.read_bytes()
    song.unlink()
    song.write_bytes(data)
    assert decode(tmp_path / "store", one)[1] == {"one": ""}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "song.wav")
    with pytest.raises(OSError, match="a pipe"):
        digest_file(tmp_path / "song.wav")
    pipe = DecodeJob("pipe", tmp_path / "song.wav", "0" * 64)
    assert "it is a pipe" in decode(tmp_path / "store", pipe)[1]["pipe"]


def test_a_failure_that_may_pass_is_not_remembered(tmp_path, song, monkeypatch):
    def fail(*_, **__):
        raise MediaUnavailable("cannot be read now: Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_clip", fail)
        problems = decode_job(job_of(song), tmp_path / "store", REQUEST, 1)
    reason = "cannot be read now: Too many open files"
    assert problems == {"audio": Problem(reason, passing=True)}
    assert read_problems(tmp_path / "store") == {}


def test_a_remembered_failure_has_its_time_and_versions(tmp_path, monkeypatch):
    (tmp_path / "bad.wav").write_text("no sound")
    bad = job_of(tmp_path / "bad.wav")
    store, found = decode(tmp_path / "store", bad)
    assert "cannot be read as media" in found["one"]
    (path,) = (tmp_path / "store").rglob("problems.json")
    saved = json.loads(path.read_text())["audio"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", saved["time"])
    assert re.match(r"mvemo \S+, av \d", saved["versions"])
    # What another version could not read is read again.
    assert read_problems(store.folder_of("one"))
    monkeypatch.setattr(folders, "decoder_versions", lambda: "mvemo 99")
    assert not read_problems(store.folder_of("one"))


def test_an_array_that_does_not_fit_its_checksum_is_not_read(tmp_path):
    path = tmp_path / "a.npy"
    write_array(path, np.arange(9, dtype=np.float32))
    data = path.read_bytes()
    for at in (len(data) - 1, len(data) - 14, len(data) - 30):
        changed = bytearray(data)
        changed[at] ^= 1
        path.unlink()
        path.write_bytes(changed)
        assert map_array(path, np.float32, (None,)) is None
    np.save(path, np.arange(9, dtype=np.float32))
    assert map_array(path, np.float32, (None,)) is None
    path.unlink()
    path.write_bytes(data)
    assert map_array(path, np.float32, (9,)) is not None


def test_empty_arrays_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(0, 4\) is empty"):
        write_array(tmp_path / "a.npy", np.zeros((0, 4), np.float32))
    assert list(tmp_path.iterdir()) == []
    np.save(tmp_path / "a.npy", np.zeros((0, 4), np.float32))
    assert map_array(tmp_path / "a.npy", np.float32, (None, 4)) is None


def test_arrays_are_read_without_the_parser_of_python(tmp_path, monkeypatch):
    """It fails now and then in threads of Python 3.11, and clips are looked for by threads."""

    def parse(*_):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("ast.literal_eval", parse)
    for array in (np.arange(9, dtype=np.float32), np.ones((2, 3, 3, 3), np.uint8)):
        path = tmp_path / f"{array.ndim}.npy"
        write_array(path, array)
        read = map_array(path, array.dtype, array.shape)
        assert read is not None
        np.testing.assert_array_equal(read, array)
