"""Merging, slim copies, removals, garbage, differences, and checks in a process of their own."""

import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_samples import (
    CLIPS,
    SEQUENCE,
    VECTOR,
    contents,
    crossfit,
    fill,
    flip,
    put,
    row,
    table,
    unfinished,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.cache import BadCache, CacheWriter, diff_caches, open_cache, rewrite
from mvemo.cache.cache_file import CacheFile
from mvemo.cache.maintenance import merge_caches, remove_features, select_features
from mvemo.cache.parts import locked_cache
from mvemo.cache.schema import table_checksum, write_table
from mvemo.cache.untrusted import PlainArray
from mvemo.cache.verify import verify_cache, verify_untrusted

SPECS = [SEQUENCE, VECTOR, *(replace(crossfit(f, CLIPS), name="i3d") for f in range(2))]
SPLIT = replace(CLIPS, folds=np.full(6, -1), k=0, fold_seed=0, splits=np.array([0, 0, 1, 1, 2, 2]))
JOBS = [(spec, clip) for spec in range(len(SPECS)) for clip in CLIPS.clip_ids]


@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_rows_of_other_clips_are_not_merged(tmp_path, spec):
    path = tmp_path / "x.h5"
    fill(path, CLIPS, spec, leave_out="c0")
    renamed = replace(CLIPS, clip_ids=tuple(f"d{i}" for i in range(6)))
    with h5py.File(path, "r+") as file:
        del file["clips"]
        write_table(file, renamed)
    # The checksums of all parts of the file fit, but those of its rows do not.
    with pytest.raises(BadCache, match=r"of clip 'd1' is corrupt .* \(and 4 more rows\)"):
        merge_caches([path], tmp_path / "merged.h5")


@pytest.mark.parametrize("n_failures", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_a_read_that_fails_for_a_moment_damages_nothing(tmp_path, spec, n_failures, monkeypatch):
    path, merged = tmp_path / "x.h5", tmp_path / "merged.h5"
    fill(path, CLIPS, spec)
    read, left = PlainArray.read_into, [n_failures]

    def read_into(values, block, start=0):
        if values.name == "values" and left[0]:
            left[0] -= 1
            raise OSError("Input/output error")
        read(values, block, start)

    monkeypatch.setattr(PlainArray, "read_into", read_into)
    problem = ""
    try:
        merge_caches([path], merged)
    except BadCache as error:
        problem = str(error)
    left[0] = 0
    assert ("is corrupt in" in problem) != merged.exists()
    if merged.exists():
        assert verify_cache(merged) == []
        with open_cache(path) as source, open_cache(merged) as target:
            assert contents(source) == contents(target)


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_any_partition_in_any_order_equals_one_writer(data):
    jobs = data.draw(st.lists(st.sampled_from(JOBS), unique=True))
    workers = data.draw(st.integers(1, 3))
    # A row may be made by more than one worker; each has all clips or only its own.
    shares = [data.draw(st.sets(st.integers(0, workers - 1), min_size=1)) for _ in jobs]
    own_clips = data.draw(st.lists(st.booleans(), min_size=workers, max_size=workers))

    def write(path, jobs, clips=CLIPS):
        with CacheWriter(path, clips) as writer:
            for spec, clip in jobs:
                put(writer, SPECS[spec], clip)
                writer.fail(clip, "decode:video", f"of {clip}")

    def facts(path):
        with open_cache(path) as cache:
            # When each worker met the failures differs.
            failures = [(f.clip_id, f.stage, f.reason) for f in cache.failures]
            seen = [s.trained_on for s in cache.specs] if path.name != "one.h5" else None
            return contents(cache), cache.digest(), failures, cache.table.clip_ids, seen

    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name), Path(name) / "shards"
        shards.mkdir()
        for w in range(workers):
            mine = [job for job, share in zip(jobs, shares, strict=True) if w in share]
            clips = {clip for _, clip in mine}
            order = data.draw(st.permutations(CLIPS.clip_ids))
            stored = table(c for c in order if c in clips) if own_clips[w] else CLIPS
            write(shards / f"{w}.h5", mine, stored)
        write(folder / "one.h5", jobs)
        fill(shards / "all.h5", CLIPS)
        in_order = data.draw(st.permutations(sorted(shards.glob("*.h5"))))
        merge_caches(in_order, folder / "merged.h5")
        assert verify_cache(folder / "merged.h5") == verify_cache(shards) == []
        merged = facts(folder / "merged.h5")
        assert merged == facts(shards)
        assert merged[:-1] == facts(folder / "one.h5")[:-1]


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_any_commits_and_sessions_equal_one_writer(data):
    jobs = data.draw(st.lists(st.sampled_from(JOBS), unique=True, min_size=1))
    ends = data.draw(st.lists(st.sampled_from(["", "", "commit", "close"]), min_size=len(jobs)))
    with tempfile.TemporaryDirectory() as name:
        many, one = Path(name) / "many.h5", Path(name) / "one.h5"
        writer = CacheWriter(many, CLIPS)
        for (spec, clip), end in zip(jobs, ends, strict=False):
            # An older value of the row must not survive.
            put(writer, SPECS[spec], clip, salt=1)
            put(writer, SPECS[spec], clip)
            if end:
                getattr(writer, end)()
            if end == "close":
                writer = CacheWriter(many, CLIPS)
        writer.close()
        with CacheWriter(one, CLIPS) as writer:
            for spec, clip in reversed(jobs):
                put(writer, SPECS[spec], clip)
        with open_cache(many) as a, open_cache(one) as b:
            assert (contents(a), a.digest()) == (contents(b), b.digest())


def test_clips_of_disjoint_workers_are_sorted_by_id(tmp_path):
    paths = [tmp_path / "b.h5", tmp_path / "a.h5"]
    fill(paths[0], table(["c5", "c4"]), VECTOR)
    fill(paths[1], table(["c1", "c0"]), VECTOR)
    for order in (paths, paths[::-1]):
        merge_caches(order, tmp_path / "m.h5")
        with open_cache(tmp_path / "m.h5") as cache:
            assert cache.table.clip_ids == ("c0", "c1", "c4", "c5")
            assert cache.table.groups == ("g0", "g0", "g2", "g2")
            np.testing.assert_array_equal(cache.table.folds, [0, 0, 2, 2])
            assert cache.provenance == {"command": "sample"}


def test_rows_of_other_media_are_named_and_counted(path, tmp_path):
    with CacheWriter(tmp_path / "c.h5", CLIPS) as writer:
        put(writer, VECTOR, "c1", salt=3)
        put(writer, VECTOR, "c3", salt=3)
    with pytest.raises(BadCache, match=r"clip 'c1' has another key in .*, and 1 more such rows"):
        merge_caches([path, tmp_path / "c.h5"], tmp_path / "m.h5")


def test_undamaged_sources_are_read_once(path, tmp_path, monkeypatch):
    monkeypatch.delattr(CacheFile, "is_whole")  # it reads all values again
    monkeypatch.setattr(rewrite, "BLOCK", 64)
    clips = ["c0", "c2", "c5"]
    with open_cache(path) as cache:
        features, expected = cache.names(), contents(cache)
    select_features(path, features, tmp_path / "some.h5", clips=clips)
    with open_cache(tmp_path / "some.h5") as cache:
        assert contents(cache) == {at: row for at, row in expected.items() if at[2] in clips}
    fill(tmp_path / "c.h5", CLIPS, replace(VECTOR, name="vggish"))
    merge_caches([path, tmp_path / "c.h5"], tmp_path / "m.h5")
    assert verify_cache(tmp_path / "m.h5") == []
    monkeypatch.delattr(CacheFile, "stored")  # it reads values that are not copied
    fill(tmp_path / "d.h5", CLIPS, SEQUENCE)
    merge_caches([tmp_path / "c.h5", tmp_path / "d.h5"], tmp_path / "n.h5")


def test_damage_of_rows_that_are_left_out_does_not_matter(path, tmp_path):
    flip(path, row(VECTOR, "c2").tobytes())
    select_features(path, [VECTOR.name], tmp_path / "some.h5", clips=["c0", "c4", "c5"])
    assert verify_cache(tmp_path / "some.h5") == []
    with pytest.raises(BadCache, match=r"clip 'c2' is corrupt in .*: run 'mvemo cache repair"):
        select_features(path, [VECTOR.name], tmp_path / "more.h5", clips=["c0", "c2"])
    assert not [*tmp_path.glob("*.tmp"), *tmp_path.glob("more.h5")]


def test_an_unfinished_run_is_not_merged_over(path, tmp_path):
    unfinished(tmp_path / "m.h5", VECTOR, "c0")
    with pytest.raises(BadCache, match="rows of an unfinished run are in"):
        merge_caches([path], tmp_path / "m.h5")
    with pytest.raises(BadCache, match="no caches to merge"):
        merge_caches([], tmp_path / "n.h5")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features.h5"
    nets = [replace(crossfit(fold, CLIPS), name="c3d") for fold in range(3)]
    fill(path, CLIPS, VECTOR, SEQUENCE, *nets, leave_out="c4")
    with CacheWriter(path, CLIPS, provenance={"command": "more"}) as writer:
        for spec in (*nets, SEQUENCE, VECTOR):
            put(writer, spec, "c0")
        writer.fail("c4", "embed:c3d", "not finite")
        writer.fail("c4", "decode:audio", "no stream")
        writer.curve("c3d@fold0", {"loss": [1.0]})
    return path


def test_a_slim_copy_has_the_same_rows(path, tmp_path):
    slim = tmp_path / "slim.h5"
    removed = select_features(path, ["mel", "c3d"], slim)
    assert (removed.features, removed.clips, removed.failures) == (("music1d",), (), 0)
    assert verify_cache(slim) == []
    with open_cache(path) as whole, open_cache(slim) as part:
        rows = {at: row for at, row in contents(whole).items() if at[0] != "music1d"}
        assert contents(part) == rows
        assert (part.curves, part.provenance) == (whole.curves, whole.provenance)
    assert diff_caches(path, slim) == ["feature music1d is only in the first"]


def test_removing_takes_curves_and_failures_along(path):
    size = path.stat().st_size
    removed = remove_features(path, ["c3d"])
    assert (removed.features, removed.curves, removed.failures) == (("c3d",), ("c3d@fold0",), 1)
    assert removed.freed == size - path.stat().st_size > 0
    with open_cache(path) as cache:
        assert cache.names() == ("mel", "music1d")
        assert [failure.stage for failure in cache.failures] == ["decode:audio"]
    with pytest.raises(BadCache, match="no feature 'c3d'; the features are mel, music1d"):
        remove_features(path, ["c3d"])


def test_clips_that_are_no_longer_listed_go(path):
    names = ["mel", "music1d", "c3d"]
    kept = ["c0", "c1", "c2", "c3", "new"]
    before = path.read_bytes()
    assert select_features(path, names, path, clips=kept, dry_run=True).clips == ("c4", "c5")
    assert path.read_bytes() == before
    select_features(path, names, path, clips=kept)
    with open_cache(path) as cache:
        assert cache.table.clip_ids == ("c0", "c1", "c2", "c3")
        assert cache.failures == ()
        assert len(cache.sequence("mel", "c3")) == 4
    with pytest.raises(BadCache, match="none of its 4 clips"):
        select_features(path, names, path, clips=["new"])


@pytest.mark.parametrize("clips", [CLIPS, SPLIT])
def test_new_groups_that_divide_folds_or_splits_leave_none(tmp_path, clips):
    fill(tmp_path / "x.h5", clips, VECTOR)
    found = []
    for groups in ({"c0": "new", "c1": "new"}, {"c1": "g1"}):
        select_features(tmp_path / "x.h5", ["music1d"], tmp_path / "y.h5", groups=groups)
        assert verify_cache(tmp_path / "y.h5") == []
        with open_cache(tmp_path / "y.h5") as cache:
            found.append(cache.table)
    kept = replace(clips, groups=("new", "new", *clips.groups[2:]), digest="")
    assert table_checksum(found[0]) == table_checksum(kept)
    none = {"folds": np.full(6, -1), "k": 0, "fold_seed": 0, "splits": None}
    assert table_checksum(found[1]) == table_checksum(
        replace(kept, groups=("g0", *["g1"] * 3, "g2", "g2"), **none)
    )


def test_new_groups_that_divide_the_folds_of_nets_are_refused(path, tmp_path):
    with pytest.raises(BadCache, match="the nets of c3d were trained for folds that divide the"):
        select_features(path, ["c3d"], tmp_path / "y.h5", groups={"c1": "g1"})


def test_differences_of_values_clips_and_parameters(path, tmp_path):
    assert diff_caches(path, path) == []
    wider = replace(SEQUENCE, params={"n_mels": 3, "sr": 8000})
    with CacheWriter(tmp_path / "other.h5", replace(CLIPS, fold_seed=2)) as writer:
        for clip in CLIPS.clip_ids[:5]:
            put(writer, VECTOR, clip, salt=int(clip == "c1"))
            put(writer, wider, clip)
    lines = diff_caches(path, tmp_path / "other.h5")
    assert lines[:2] == ["different fold seed: 1 and 2", "feature c3d@fold0 is only in the first"]
    assert "mel: different parameter sr: None and 8000" in lines
    assert "music1d: only the first has clips 'c5'" in lines
    assert "music1d: only the second has clips 'c4'" in lines
    start = "music1d: values of 1 of 4 clips differ by at most "
    assert any(line.startswith(start) for line in lines)
    assert lines[-1] == "failures differ for 'c4' (decode:audio), 'c4' (embed:c3d)"


def test_checks_in_a_process_of_their_own(path):
    with pytest.raises(BadCache, match="above 0"):
        verify_untrusted(path, seconds=0)
    (problem,) = verify_untrusted(path, seconds=0.01)
    assert problem == "the check did not finish within 0.01 s: do not open this file"
    flip(path, row(VECTOR, "c1").tobytes())
    problems = verify_untrusted(path, seconds=120)
    assert problems == ["music1d of clip 'c1': the values do not match their checksum"]


def test_without_locks_two_may_write(path, monkeypatch):
    monkeypatch.setenv("MVEMO_NO_LOCK", "1")
    with locked_cache(path), locked_cache(path):
        pass
    assert not path.with_name("features.h5.parts").exists()


def test_rows_in_another_order_are_merged(tmp_path):
    backwards = table(reversed(CLIPS.clip_ids))
    fill(tmp_path / "a.h5", CLIPS, SEQUENCE)
    fill(tmp_path / "b.h5", backwards, VECTOR, replace(SEQUENCE, name="mfcc"))
    merge_caches([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "m.h5")
    assert verify_cache(tmp_path / "m.h5") == []
    with open_cache(tmp_path / "m.h5") as m, open_cache(tmp_path / "b.h5") as b:
        assert contents(m).items() >= contents(b).items()
