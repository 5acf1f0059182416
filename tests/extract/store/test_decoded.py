"""The working cache: nothing is decoded twice, nothing broken is read, nothing is lost."""

import json
import os
import re
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from media_samples import film, sine

from mvemo.cache import content_digest
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.errors import BadMedia, OutOfMemory, WorkerDied
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import NO_VIDEO, FrameSampling, MediaProblem
from mvemo.extract.store import contents, decoding, folders
from mvemo.extract.store import decoded as store_module
from mvemo.extract.store.decoded import (
    DecodedStore,
    DecodeSettings,
    DescribedStore,
    decode_many,
    describe_many,
)
from mvemo.extract.store.folders import (
    DecodeJob,
    DecodeRequest,
    array_path,
    map_array,
    read_problems,
    stamp_of,
    write_array,
)
from mvemo.extract.workers import pool, process
from mvemo.manifests.array_files import file_mapping
from mvemo.manifests.errors import MvemoError

SMALL = FrameSampling(n_frames=4, size=16)
LARGER, MORE = FrameSampling(n_frames=4, size=20), FrameSampling(n_frames=8, size=16)
REQUEST = DecodeRequest(sample_rates=(16000,), pictures=(SMALL,))
SOUND = DecodeRequest(sample_rates=(8000,))


@pytest.fixture
def clip(tmp_path):
    return film(tmp_path / "a [1].mp4", 10, sound=sine(0.4, 16000))


@pytest.fixture
def song(tmp_path):
    soundfile.write(tmp_path / "song.wav", sine(0.5, 8000)[0], 8000)
    return tmp_path / "song.wav"


@pytest.fixture
def calls(monkeypatch):
    requests = []

    def counted(calls, *, workers):
        requests.extend(call.arguments[2] for call in calls)
        return pool.run_calls(calls, workers=workers)

    monkeypatch.setattr(store_module, "run_calls", counted)
    return requests


def job(path, clip_id="one", **stretch):
    content = content_digest(path) if path.exists() else "0" * 64
    return DecodeJob(clip_id, path, content, **stretch)


def stamped(path, clip_id="one"):
    content = contents.content_of(path)
    return DecodeJob(clip_id, path, content.digest, stamp=content.stamp)


def decode(folder, *jobs, request=REQUEST, settings=None):
    store, found = DecodedStore(folder, request), {}
    decode_many(store, jobs, settings or DecodeSettings(1), on_clip=found.__setitem__)
    return store, found


def reasons(folder, *jobs, settings=None):
    """The store, and for each clip why it has no sound; empty if it has."""
    store, found = decode(folder, *jobs, request=SOUND, settings=settings)
    return store, {clip: str(problems.get("audio", "")) for clip, problems in found.items()}


def test_arrays_are_those_of_the_clip(tmp_path, clip):
    store, found = decode(tmp_path / "store", job(clip), job(clip, "cut", start=0.1, duration=0.2))
    assert found == {"one": {}, "cut": {}}
    for clip_id, stretch in (("one", {}), ("cut", {"start": 0.1, "duration": 0.2})):
        decoded = decode_clip(clip, pictures=(SMALL,), **stretch)
        wave, frames = store.array(clip_id, 16000), store.array(clip_id, SMALL)
        assert file_mapping(wave) is not None
        assert np.array_equal(wave, decoded.waveforms[16000])
        assert np.array_equal(frames, decoded.frames[SMALL])
    with pytest.raises(BadMedia, match="not in the working cache"):
        store.array("one", LARGER)
    with pytest.raises(BadMedia, match="'two'"):
        store.array("two", 16000)


def test_nothing_is_decoded_twice(tmp_path, clip, calls):
    same = clip.with_name("same.mp4")
    same.write_bytes(clip.read_bytes())
    store, found = decode(tmp_path / "store", job(clip), job(same, "two"))
    assert found == {"one": {}, "two": {}}
    assert len(calls) == 1
    assert np.array_equal(store.array("one", SMALL), store.array("two", SMALL))
    decode(tmp_path / "store", job(clip))
    decode(tmp_path / "store", job(clip), request=DecodeRequest((16000,), ()))
    assert len(calls) == 1
    # Only what is new: a rate, a size, a count.
    decode(tmp_path / "store", job(clip), request=DecodeRequest((16000, 12000), (SMALL,)))
    assert (calls[1].sample_rates, calls[1].pictures) == ((12000,), ())
    decode(tmp_path / "store", job(clip), request=DecodeRequest((12000,), (SMALL, LARGER)))
    assert (calls[2].sample_rates, calls[2].pictures) == ((), (LARGER,))
    decode(tmp_path / "store", job(clip), request=DecodeRequest((), (MORE,)))
    assert calls[3].pictures == (MORE,)
    decode(tmp_path / "store", job(clip, start=0.1))
    assert len(calls) == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "junk", "other", "bare", "value", "mark"])
def test_damaged_arrays_are_decoded_again(tmp_path, clip, calls, damage):
    store, _ = decode(tmp_path / "store", job(clip))
    whole = np.array(store.array("one", SMALL))
    (path,) = (tmp_path / "store").rglob("4x16.npy")
    data = path.read_bytes()
    path.unlink()
    if damage in ("other", "bare"):
        # Of another shape, or without a checksum.
        np.save(path, whole[: 3 if damage == "other" else None])
    else:
        changed = {"cut": data[:-100], "empty": b"", "junk": b"junk" * 99}
        # A bit of the values, or of what announces their checksum.
        for name, at in (("value", -30), ("mark", -10)):
            changed[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_bytes(changed[damage])
    store, found = decode(tmp_path / "store", job(clip))
    assert found == {"one": {}}
    assert (calls[1].sample_rates, calls[1].pictures) == ((), (SMALL,))
    assert np.array_equal(store.array("one", SMALL), whole)


def test_problems_are_stored_and_other_clips_are_decoded(tmp_path, clip, song, calls):
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    jobs = [job(text, "text"), job(song, "sound"), job(clip, "clip")]
    for _ in range(2):
        store, found = decode(tmp_path / "store", *jobs, settings=DecodeSettings(2))
        assert found["clip"] == {}
        assert found["sound"] == {"video": NO_VIDEO}
        assert set(found["text"]) == {"audio", "video"}
        assert "cannot be read as media" in found["text"]["audio"].reason
        assert len(store.array("sound", 16000)) == 8000
        assert len(calls) == 3
    # Who does not ask for pictures has no problem with them.
    _, found = decode(tmp_path / "store", jobs[1], request=DecodeRequest((16000,)))
    assert found == {"sound": {}}


def test_problems_of_another_form_are_found_out_again(tmp_path, song, calls):
    decode(tmp_path / "store", job(song))
    (path,) = (tmp_path / "store").rglob("problems.json")
    for text in ('{"video": "no video stream"}', '["video"]', "{", '{"video": {"reason": "x"}}'):
        path.write_text(text)
        calls.clear()
        assert decode(tmp_path / "store", job(song))[1] == {"one": {"video": NO_VIDEO}}
        assert [(call.sample_rates, call.pictures) for call in calls] == [((), (SMALL,))]


def test_a_file_that_comes_back_is_decoded(tmp_path, clip):
    one = job(clip)
    away = clip.rename(tmp_path / "away.mp4")
    _, found = decode(tmp_path / "store", one)
    gone = MediaProblem("no such media file", passing=True)
    assert found == {"one": {"audio": gone, "video": gone}}
    away.rename(clip)
    assert decode(tmp_path / "store", one)[1] == {"one": {}}


def test_a_full_disk(tmp_path, clip, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folders, "_parts", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(MvemoError, match="No space left on device") as caught:
            # What a worker does, in this process.
            decoding.decode_job(job(clip), tmp_path / "store" / "clip", REQUEST, 1)
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert decode(tmp_path / "store", job(clip))[1] == {"one": {}}


def test_a_store_that_cannot_be_written(tmp_path, clip):
    (tmp_path / "store").write_text("a file, no folder")
    with pytest.raises(MvemoError, match="cannot be written"):
        decode(tmp_path / "store", job(clip))


@pytest.mark.parametrize("changed", [0, 1])
def test_a_file_that_changes_costs_no_other_of_the_same_bytes(tmp_path, clip, changed):
    other = tmp_path / "copy.mp4"
    other.write_bytes(clip.read_bytes())
    jobs = [job(path, name, stamp=stamp_of(path)) for path, name in ((clip, "a"), (other, "b"))]
    jobs[changed].path.write_bytes(b"another")
    store, found = decode(tmp_path / "store", *jobs)
    unchanged = "ab"[1 - changed]
    assert found[unchanged] == {}
    assert len(store.array(unchanged, 16000))


def test_a_clip_that_ends_its_worker_costs_itself(tmp_path, monkeypatch):
    errors = {
        "crash": WorkerDied("the decoder crashed"),
        "hang": WorkerDied("it took longer", passing=True),
        "greedy": OutOfMemory("it needs more"),
        "odd": ValueError("math domain"),
    }

    def failing(calls, *, workers):
        for index, call in enumerate(calls):
            error = errors.get(call.arguments[0].clip_id)
            value = None if error else process.resolve(call.function)(*call.arguments)
            yield process.CallResult(index, value, error)

    monkeypatch.setattr(store_module, "run_calls", failing)
    jobs = []
    for i, name in enumerate(("first", *errors, "last")):
        soundfile.write(tmp_path / f"{name}.wav", sine(0.5, 8000, 100.0 + i)[0], 8000)
        jobs.append(stamped(tmp_path / f"{name}.wav", name))
    settings = DecodeSettings(1, process.ClipLimits(memory=0.25))
    store, found = reasons(tmp_path / "store", *jobs, settings=settings)
    assert found == {
        **{"first": "", "last": "", "crash": "the decoder crashed", "hang": "it took longer"},
        "greedy": "decoding it takes more than 0.25 GiB of memory",
        "odd": "cannot be decoded: ValueError: math domain",
    }
    # The crash comes again; the others may pass.
    assert {name for name in found if read_problems(store.folder_of(name))} == {"crash"}
    errors.clear()
    _, found = reasons(tmp_path / "store", *jobs)
    assert [name for name, reason in found.items() if reason] == ["crash"]
    _, found = reasons(tmp_path / "store", *jobs, settings=DecodeSettings(retry_failed=True))
    assert not any(found.values())


def test_workers_import_no_torch(tmp_path, song):
    reasons(tmp_path / "store", stamped(song))
    loaded = process.Call("builtins:eval", ("sorted(__import__('sys').modules)",))
    (outcome,) = pool.run_calls([loaded], workers=1)
    assert "av" in outcome.result()
    assert not {"torch", "h5py", "sklearn", "librosa"} & set(outcome.result())


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changes_is_noticed(tmp_path, song, when, monkeypatch):
    one = stamped(song)

    def change():
        stat = os.stat(song)
        soundfile.write(song, -sine(0.5, 8000)[0], 8000)
        # Size and time of change are as before.
        os.utime(song, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    real = decoding.decode_clip

    def slow(*path, **asked):
        found = real(*path, **asked)
        change()
        return found

    if when == "before":
        change()
    else:
        monkeypatch.setattr(decoding, "decode_clip", slow)
    folder = tmp_path / "store"
    problems = decoding.decode_job(one, folder, SOUND, 1)
    assert problems["audio"].passing
    assert re.search(r"changed (after|while)", problems["audio"].reason)
    # Neither its sound nor its problem is kept.
    assert not folder.exists()
    monkeypatch.undo()
    assert decoding.decode_job(stamped(song), folder, SOUND, 1) == {}


def test_the_same_bytes_in_a_new_file_are_no_change(tmp_path, song):
    one = stamped(song)
    data = song.read_bytes()
    song.unlink()
    song.write_bytes(data)
    assert reasons(tmp_path / "store", one)[1] == {"one": ""}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "song.wav")
    pipe = DecodeJob("pipe", tmp_path / "song.wav", "0" * 64)
    assert "it is a pipe" in reasons(tmp_path / "store", pipe)[1]["pipe"]


def test_a_remembered_failure_has_its_time_and_versions(tmp_path, monkeypatch):
    (tmp_path / "bad.wav").write_text("no sound")
    bad = stamped(tmp_path / "bad.wav")
    store, found = reasons(tmp_path / "store", bad)
    assert "cannot be read as media" in found["one"]
    (path,) = (tmp_path / "store").rglob("problems.json")
    saved = json.loads(path.read_text())["audio"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", saved["time"])
    assert re.match(r"mvemo \S+, av \d", saved["versions"])
    # What another version could not read is read again.
    assert read_problems(store.folder_of("one"))
    monkeypatch.setattr(folders, "decoder_versions", lambda: "mvemo 99")
    assert not read_problems(store.folder_of("one"))


def test_empty_arrays_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 4), np.float32))
    assert map_array(tmp_path / "a.npy", np.float32, (None, 4)) is None


def test_arrays_are_read_without_the_parser_of_python(tmp_path, monkeypatch):
    def parse(*_):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("ast.literal_eval", parse)
    for array in (np.arange(9, dtype=np.float32), np.ones((2, 3, 3, 3), np.uint8)):
        path = tmp_path / f"{array.ndim}.npy"
        write_array(path, array)
        read = map_array(path, array.dtype, array.shape)
        assert read is not None
        np.testing.assert_array_equal(read, array)


NARROW = {"sr": 8000, "n_fft": 512, "hop_length": 256, "n_mels": 16, "n_mfcc": 8}


def test_a_setting_that_one_descriptor_depends_on_computes_no_other(tmp_path, monkeypatch):
    asked = []

    def here(calls, *, workers):
        for index, call in enumerate(calls):
            asked.append(set(call.arguments[3]))
            problem = process.resolve(call.function)(*call.arguments)
            assert not problem
            yield process.CallResult(index, problem)

    monkeypatch.setattr(store_module, "run_calls", here)
    decoded = DecodedStore(tmp_path, DecodeRequest((8000,)))
    decoded.assign_folder(DecodeJob("clip", tmp_path / "clip.wav", "content"))
    path = array_path(decoded.folder_of("clip"), 8000)
    path.parent.mkdir(parents=True)
    np.save(path, sine(0.3, 8000)[0])
    names = ["mfcc_rp", "chroma"]
    found = []
    for alpha in (0.5, 0.0, 0.5):
        settings = DescriptorSettings(**NARROW, alpha=alpha)
        store = DescribedStore(decoded, settings, names)
        kept = []
        describe_many(store, ["clip"], DecodeSettings(1), on_kept=kept.append)
        found.append((kept, store.joined("clip", names)))
    assert asked == [{"mfcc_rp", "chroma"}, {"mfcc_rp"}]
    assert [kept for kept, _ in found] == [[0], [0], [1]]
    (_, first), (_, other), (_, again) = found
    assert np.array_equal(first, again)
    assert np.array_equal(first[:, 8:], other[:, 8:])
    assert not np.allclose(first[:, :8], other[:, :8])
