"""What the writer accepts, keeps, replaces and refuses."""

import os
import resource
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import h5py
import numpy as np
import pytest
from cache_samples import (
    CLIPS,
    SEQUENCE,
    VECTOR,
    contents,
    crossfit,
    current,
    fill,
    flip,
    put,
    row,
    table,
)

from mvemo.cache import CacheWriter, Failure, merge_caches, open_cache, verify_cache
from mvemo.cache.errors import BadCache
from mvemo.manifests.errors import MissingFile, MvemoError


def shards_of(path):
    return sorted(path.with_name(f"{path.name}.parts").glob("0*.h5"))


def test_round_trip(path):
    nets = (replace(crossfit(f, CLIPS, a=1), name="c3d", modality="video") for f in range(3))
    specs = {(s.name, s.fold): s for s in (SEQUENCE, VECTOR, *nets)}
    fill(path, CLIPS, *specs.values(), leave_out="c3")
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        assert {(s.name, s.fold): s for s in cache.specs} == specs
        assert all(s.trained_on == specs[s.name, s.fold].trained_on for s in cache.specs)
        for (*at, clip), stored in contents(cache).items():
            assert stored == (None if clip == "c3" else row(specs[tuple(at)], clip).tobytes())
        for field in ("name", "task", "classes", "clip_ids", "groups", "k", "fold_seed", "digest"):
            assert getattr(cache.table, field) == getattr(CLIPS, field)
        np.testing.assert_array_equal(cache.table.labels, CLIPS.labels)
        np.testing.assert_array_equal(cache.table.folds, CLIPS.folds)
        values, present = cache.vectors("music1d")
        assert np.isnan(values[3]).all()
        assert present.tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_of_other_tasks(path, task):
    kind = np.int64 if task == "multilabel" else np.float64
    labels = (np.arange(12).reshape(6, 2) % 2).astype(kind)
    fill(path, replace(CLIPS, task=task, labels=labels, synthetic=True), VECTOR)
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        assert cache.table.labels.dtype == kind
        np.testing.assert_array_equal(cache.table.labels, labels)
        assert cache.table.synthetic


def test_no_clips_at_all(path):
    with CacheWriter(path, CLIPS) as writer:
        writer.fail("c0", "decode:audio", "no stream")
    fill(path, table([]))
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        assert (len(cache.table), cache.specs, cache.failures) == (0, (), ())


@pytest.mark.parametrize(
    ("limit", "value"), [("commit_rows", 2), ("commit_bytes", 32), ("commit_seconds", 0.0)]
)
def test_puts_commit_by_themselves(path, limit, value):
    writer = CacheWriter(path, CLIPS, **{limit: value})
    for salt in range(12):
        put(writer, VECTOR, f"c{salt % 6}", salt)
        assert writer._memory.n_bytes < 32
    assert len(shards_of(path)) >= 6
    writer.close()


def test_an_exception_keeps_the_rows_and_leaves_the_file(path):
    fill(path, CLIPS, VECTOR, leave_out="c5")
    before = path.read_bytes()
    with suppress(KeyboardInterrupt), CacheWriter(path, CLIPS) as writer:
        put(writer, VECTOR, "c5")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    with CacheWriter(path, CLIPS) as writer:
        assert len(current(writer, VECTOR)) == 6


def test_rows_follow_their_clips_and_labels_are_those_of_the_table(path):
    fill(path, table(["c0", "c1", "c2", "c3"]), VECTOR, SEQUENCE)
    before = contents(open_cache(path))
    kept = table(["c4", "c3", "c0"])
    with CacheWriter(path, replace(kept, labels=1 - kept.labels, digest="e" * 64)) as writer:
        assert current(writer, VECTOR) == {"c0", "c3"}
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        assert contents(cache) == {at: before.get(at) for at in contents(cache)}
        assert cache.table.clip_ids == ("c4", "c3", "c0")
        assert cache.present("mel").tolist() == [False, True, True]
        np.testing.assert_array_equal(cache.table.labels, 1 - kept.labels)


OTHER = replace(VECTOR, params={"sr": 12000})
NETS_1, NETS_2 = ([crossfit(f, CLIPS, a=a) for f in range(3)] for a in (1, 2))


@pytest.mark.parametrize(
    ("before", "asked", "written", "after"),
    [
        ([VECTOR], [OTHER], [OTHER], [OTHER]),
        # Old values cannot replace values that failed.
        ([VECTOR, SEQUENCE], [OTHER], [], [SEQUENCE]),
        (NETS_1, [], [NETS_2[1]], [NETS_2[1]]),
        ([VECTOR], [], NETS_1, NETS_1),
        (NETS_1, [], [VECTOR], [VECTOR]),
    ],
)
def test_other_settings_replace(path, before, asked, written, after):
    fill(path, CLIPS, *before)
    with CacheWriter(path, CLIPS) as writer:
        for spec in before:
            writer.curve(spec.label, {"epoch": [1]})
    with CacheWriter(path, CLIPS) as writer:
        assert not any(current(writer, spec) for spec in asked)
        for spec in written:
            put(writer, spec, "c0")
            writer.curve(spec.label, {"epoch": [2]})
    with open_cache(path) as cache:
        assert list(cache.specs) == after
        assert set(cache.curves) == {spec.label for spec in after}
        for spec in written:
            assert cache.present(spec.name, spec.fold).tolist() == [True] + 5 * [False]


# Folds 0 and 1 swap their clips, or have clips of one group; fold 2 stays as it was.
SWAPPED = replace(CLIPS, folds=np.array([1, 0, 2])[CLIPS.folds])
JOINED = replace(CLIPS, groups=("g0", "g0", "g0", *CLIPS.groups[3:]))


@pytest.mark.parametrize("clips", [SWAPPED, JOINED])
def test_nets_that_saw_clips_or_groups_now_in_their_fold_are_dropped(path, clips):
    fill(path, CLIPS, *(crossfit(f, CLIPS) for f in range(3)), SEQUENCE)
    fill(path, clips)
    assert not any("trained" in problem for problem in verify_cache(path))
    with open_cache(path) as cache:
        assert [s.fold for s in cache.variants("music1d")] == [2]
        assert cache.names() == ("mel", "music1d")


def test_a_changed_medium_is_extracted_again_or_missing(path):
    fill(path, CLIPS, VECTOR)
    keys = {c: VECTOR.key(f"{c}-{int(c in ('c1', 'c2'))}") for c in CLIPS.clip_ids}
    with CacheWriter(path, CLIPS) as writer:
        assert writer.current(VECTOR, keys) == {"c0", "c3", "c4", "c5"}
        put(writer, VECTOR, "c1", salt=1)
        writer.fail("c2", "decode:audio", "truncated")
    stored = contents(open_cache(path))
    assert stored["music1d", None, "c1"] == row(VECTOR, "c1", 1).tobytes()
    assert stored["music1d", None, "c2"] is None


def test_failures_are_overwritten_and_cleared(path):
    with CacheWriter(path, CLIPS) as writer:
        writer.fail("c0", "decode:audio", "first")
        writer.fail("c0", "decode:audio", "second\n  line")
        for at in (("c0", "decode:video"), ("c1", "decode:audio"), ("c1", "decode:video")):
            writer.fail(*at, "x")
        writer.commit()
        writer.clear_failures("c0", "decode:video")
    with CacheWriter(path, CLIPS) as writer:
        writer.clear_failures("c1")
        assert writer.failures == (("c0", "decode:audio", "second line"),)
        writer.commit()
    (stored,) = open_cache(path).failures
    assert (stored.clip_id, stored.stage, stored.reason) == ("c0", "decode:audio", "second line")


def test_failures_keep_their_time_and_version(path, tmp_path, monkeypatch):
    days = iter(["2026-01-01", "2026-01-02", "2026-01-03"])
    monkeypatch.setattr(
        "mvemo.cache.row_writer.failure_now", lambda *why: Failure(*why, next(days), "1.0")
    )
    merged = tmp_path / "merged.h5"
    for reason, day in (("cut", "2026-01-01"), ("cut", "2026-01-01"), ("none", "2026-01-03")):
        with CacheWriter(path, CLIPS) as writer:
            writer.fail("c0", "decode:audio", reason)
        merge_caches([path], merged)
        assert open_cache(merged).failures == (Failure("c0", "decode:audio", reason, day, "1.0"),)


def test_provenance_keeps_earlier_runs(path):
    for command in ("one", "two", "two", "three"):
        with CacheWriter(path, CLIPS, provenance={"command": command}) as writer:
            writer.provenance["seeds"] = (np.int64(1), Path("x"), float("nan"))
    CacheWriter(path, CLIPS).close()
    facts = open_cache(path).provenance
    assert (facts["command"], facts["seeds"]) == ("three", [1, "x", None])
    assert [run["command"] for run in facts["history"]] == ["two", "one"]


def test_shards_left_by_a_kill_during_their_removal_do_not_return(path, monkeypatch):
    writer = CacheWriter(path, CLIPS)
    put(writer, OTHER, "c0")
    writer.commit()
    put(writer, VECTOR, "c0")
    monkeypatch.setattr("mvemo.cache.writer.remove_parts", lambda parts: None)
    writer.close()
    monkeypatch.undo()
    # The newer shard is gone, the older one, of the spec that lost, still there.
    shards_of(path)[1].unlink()
    fill(path, CLIPS)
    assert open_cache(path).specs == (VECTOR,)


SHORT, ZEROS = np.zeros(3, np.float32), np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (VECTOR, SHORT, r"expected shape \(4,\), got \(3,\)"),
        (VECTOR, np.zeros(4), "expected a float32 array, got float64"),
        (VECTOR, [0.0] * 4, "got list"),
        (VECTOR, np.array([0, np.nan, 0, 0], np.float32), "NaN or infinite"),
        (VECTOR, np.array([0, np.inf, 0, 0], np.float32), "NaN or infinite"),
        (SEQUENCE, SHORT, r"expected shape \(frames, 3\)"),
        (SEQUENCE, np.zeros((0, 3), np.float32), "frames above 0"),
        (replace(VECTOR, name="a/b"), ZEROS, "no slash"),
        (replace(VECTOR, fold=1), ZEROS, "'frozen' does not match fold 1"),
        (replace(VECTOR, protocol="crossfit"), ZEROS, "not match fold None"),
        (replace(VECTOR, kind="matrix"), ZEROS, "kind 'matrix': expected one of"),
    ],
)
def test_bad_rows(path, spec, values, message):
    with CacheWriter(path, CLIPS) as writer:
        for use, arguments, expected in (
            (writer.put, (spec, "c0", "k", values), message),
            (writer.put, (VECTOR, "c9", "k", ZEROS), "no such clip"),
            (writer.fail, ("c9", "decode:audio", "x"), "no such clip"),
            (writer.put, (VECTOR, "c0", "", ZEROS), "invalid key ''"),
        ):
            with pytest.raises(BadCache, match=expected):
                use(*arguments)
    assert open_cache(path).specs == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_ids": ("c0",) * 6}, "duplicate clip id 'c0'"),
        ({"task": "tagging"}, "unknown task 'tagging'; expected one of multiclass, multilabel"),
        ({"groups": ("g",)}, r"groups of 6 clips .* got \(1,\)"),
        ({"labels": np.zeros((6, 2), np.int64)}, r"expected shape \(6,\), got \(6, 2\)"),
        ({"groups": ("g\0",) * 6}, "has a NUL"),
        ({"k": 0, "splits": SHORT}, "splits of 6 clips .*: expected shape"),
        ({"splits": np.zeros(6, np.int64)}, "splits and 3 folds"),
        ({"disagreement": np.zeros((6, 9))}, r"disagreement of 6 clips .* shape \(6, 2\), got"),
        ({"groups": ("g\udcff",) * 6}, "not valid Unicode"),
    ],
)
def test_bad_tables(path, change, message):
    with pytest.raises(BadCache, match=message):
        CacheWriter(path, replace(CLIPS, **change))
    assert not list(path.parent.iterdir())


def test_bad_places_and_a_closed_writer(path, tmp_path):
    with pytest.raises(MissingFile, match="its folder does not exist"):
        CacheWriter(tmp_path / "none" / "x.h5", CLIPS)
    with pytest.raises(BadCache, match="is a folder"):
        CacheWriter(tmp_path, CLIPS)
    writer = CacheWriter(path, CLIPS)
    writer.close()
    writer.close()
    with pytest.raises(BadCache, match="this writer is closed"):
        put(writer, VECTOR, "c0")


def test_a_corrupt_row_is_dropped_with_its_reason_and_extracted_again(path):
    fill(path, CLIPS, VECTOR)
    flip(path, row(VECTOR, "c2").tobytes())
    with pytest.warns(UserWarning, match="music1d of clip 'c2' is corrupt"):
        CacheWriter(path, CLIPS).close()
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        assert [(f.clip_id, f.stage) for f in cache.failures] == [("c2", "cache:music1d")]
        assert cache.present("music1d").sum() == 5
    with CacheWriter(path, CLIPS) as writer:
        put(writer, VECTOR, "c2")
    with open_cache(path) as cache:
        assert cache.failures == ()
        assert cache.present("music1d").all()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_loses_nothing(path, monkeypatch, call):
    fill(path, CLIPS, VECTOR, leave_out="c5")
    before = path.read_bytes()
    writer = CacheWriter(path, CLIPS)
    put(writer, VECTOR, "c5")

    def refused(use, message):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, Mock(side_effect=OSError(28, "No space left on device")))
            with pytest.raises(MvemoError, match=message) as caught:
                use()
        assert "\n" not in str(caught.value)

    refused(writer.commit, "cannot be written: No space left on device")
    writer.commit()
    refused(writer.close, "rows are kept: free some")
    assert path.read_bytes() == before
    with CacheWriter(path, CLIPS) as writer:
        assert len(current(writer, VECTOR)) == 6


def test_what_was_put_is_kept_where_the_first_file_cannot_be_written(path, monkeypatch):
    writer = CacheWriter(path, CLIPS)
    put(writer, VECTOR, "c5")
    # The first call is for the cache, the second for a shard.
    answers = [OSError(21, "Is a directory"), DEFAULT]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", Mock(wraps=os.replace, side_effect=answers))
        with pytest.raises(MvemoError, match="cannot be written: Is a directory"):
            writer.close()
    assert not path.exists()
    with CacheWriter(path, CLIPS) as writer:
        assert current(writer, VECTOR) == {"c5"}


@pytest.mark.parametrize(
    ("module", "limit", "answer", "message"),
    [
        (shutil, "disk_usage", Mock(free=10_000), "No space left on device; committed"),
        (resource, "getrlimit", (10_000, resource.RLIM_INFINITY), "File too large"),
    ],
)
def test_a_limit_is_reported_before_hdf5_begins(path, monkeypatch, module, limit, answer, message):
    fill(path, CLIPS, VECTOR)
    before = path.read_bytes()
    writer = CacheWriter(path, CLIPS)
    writer.put(VECTOR, "c1", VECTOR.key("other bytes"), row(VECTOR, "c2"))
    monkeypatch.setattr(module, limit, lambda _: answer)
    with pytest.raises(MvemoError, match=f"cannot be written: {message}") as caught:
        writer.close()
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("n", [6, 600])
def test_the_size_of_a_file_is_known_before(tmp_path, monkeypatch, n):
    clips = table(f"c{i}" for i in range(n))
    wide = replace(VECTOR, dim=50)
    with CacheWriter(tmp_path / "f.h5", clips, provenance={"a": "b" * 300}) as writer:
        for clip in clips.clip_ids:
            writer.put(wide, clip, wide.key(clip), np.ones(50, np.float32))
            writer.fail(clip, "decode:video", "it has no video stream")
    note = Mock()
    monkeypatch.setattr("mvemo.cache.rewrite.require_room", note)
    merge_caches([tmp_path / "f.h5"], tmp_path / "g.h5")
    real = (tmp_path / "g.h5").stat().st_size
    assert real <= note.call_args.args[1] < 3 * real + (1 << 18)


def test_a_withdrawn_feature_leaves_what_earlier_runs_finished(path):
    older, diverging = (replace(crossfit(0, CLIPS, a=a), name="c3d") for a in (1, 2))
    fill(path, CLIPS, VECTOR, older)
    with CacheWriter(path, CLIPS) as writer:
        current(writer, VECTOR)
        put(writer, diverging, "c0")
        writer.commit()
        writer.withdraw(older.name)
    assert {spec.digest for spec in open_cache(path).specs} == {VECTOR.digest, older.digest}
    assert verify_cache(path) == []


def test_the_time_of_later_parts_does_not_grow_with_the_training_clips(path):
    class Counted(tuple):
        n_read = 0

        def __iter__(self):
            Counted.n_read += 1
            return super().__iter__()

    clips = table([f"c{i}" for i in range(24)])
    spec = crossfit(0, clips)
    spec = replace(spec, trained_on=Counted(spec.trained_on))
    read = []
    with CacheWriter(path, clips, commit_rows=4) as writer:
        for clip in clips.clip_ids:
            put(writer, spec, clip)
            read.append(Counted.n_read)
    # The first part names them, and the other five do not read them.
    assert len({*read[3:]}) == 1


def test_training_clips_are_named_once_and_rows_without_them_are_not_kept(path):
    clips = table([f"c{i}" for i in range(24)])
    spec = crossfit(0, clips)
    writer = CacheWriter(path, clips, commit_rows=4)
    for clip in clips.clip_ids:
        put(writer, spec, clip)
    writer._lock.close()
    others = []
    for shard in shards_of(path):
        with h5py.File(shard) as file:
            others.append(len(file["features/music1d@fold0/trained_on_others"]))
    assert others[0] > 0
    assert others[1:] == [0] * 5
    first = shards_of(path)[0]
    lost = first.read_bytes()
    first.unlink()
    with pytest.warns(UserWarning, match="music1d@fold0: the part with its training clip"):
        again = CacheWriter(path, clips)
    assert not current(again, spec)
    again._lock.close()
    first.write_bytes(lost)
    with CacheWriter(path, clips) as last:
        assert len(current(last, spec)) == 24
    assert open_cache(path).specs[0].trained_on == spec.trained_on
