"""Clips split into training, validation and test, and nets that never saw the test clips."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, VECTOR, fill

from mvemo.cache import BadCache, diff_caches, export_cache, merge_caches, open_cache, verify_cache
from mvemo.cache.schema import table_checksum
from mvemo.cache.table import subset

# c0 and c1 train, c2 and c3 validate, c4 and c5 are tested.
SPLIT = replace(CLIPS, folds=np.full(6, -1), k=0, fold_seed=0, splits=np.array([0, 0, 1, 1, 2, 2]))
NET = replace(VECTOR, protocol="holdout", trained_on=("c0", "c1", "c2", "c3"))


MADE = replace(CLIPS, scale="1..9", predicted_by="m")


@pytest.mark.parametrize(
    ("clips", "change"),
    [
        (SPLIT, lambda group: group["splits"].__setitem__(5, 0)),
        (MADE, lambda group: group.attrs.__setitem__("scale", np.bytes_("1..7"))),
    ],
)
def test_splits_scale_and_maker_of_labels_come_back(path, tmp_path, clips, change):
    fill(path, clips, NET if clips is SPLIT else VECTOR)
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        np.testing.assert_array_equal(cache.table.splits, clips.splits)
        assert (cache.table.scale, cache.table.predicted_by) == (clips.scale, clips.predicted_by)
    export_cache(path, "music1d", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays.get("splits"), clips.splits)
    fill(tmp_path / "y.h5", replace(clips, scale="0..1"), VECTOR)
    with pytest.raises(BadCache, match=f"different scale: {clips.scale!r} and '0..1'"):
        merge_caches([path, tmp_path / "y.h5"], tmp_path / "z.h5")
    with h5py.File(path, "r+") as file:
        change(file["clips"])
    assert any("checksum" in problem for problem in verify_cache(path))


def test_a_cache_without_splits_is_as_it_was():
    # The checksum that this table had before there were splits.
    assert table_checksum(CLIPS) == "15373dfdfff2e62bc457b5156d141403"
    assert table_checksum(SPLIT) != table_checksum(replace(SPLIT, splits=None))


def test_contradictions_are_reported(path):
    fill(path, replace(SPLIT, splits=np.array([0, 1, 1, 1, 4, 4])), VECTOR)
    assert verify_cache(path) == [
        "splits: expected only (0, 1, 2), got [4]",
        "no clip is in split 2",
        "group 'g0' is in several splits: [0, 1]",
    ]


def test_a_net_that_saw_test_clips_is_reported(tmp_path):
    saw = replace(NET, name="a", trained_on=("c0", "c4"))
    unknown = replace(NET, name="b", trained_on=())
    fill(tmp_path / "x.h5", SPLIT, saw, unknown)
    assert verify_cache(tmp_path / "x.h5") == [
        "a: the net was trained on 1 clips of the test split, such as 'c4'",
        "a: the net was trained on groups of 2 clips of the test split, such as 'c4'",
        "b: the holdout net has no record of its training clips",
    ]
    fill(tmp_path / "y.h5", CLIPS, NET)
    assert verify_cache(tmp_path / "y.h5") == [
        "music1d: the holdout net is for the test split, which has no clips"
    ]


def test_merging_needs_one_split(tmp_path):
    moved = replace(SPLIT, splits=np.array([2, 2, 0, 0, 1, 1]))
    parts = (SPLIT, SPLIT, moved, subset(SPLIT, range(4)), subset(SPLIT, range(2, 6)))
    files = [tmp_path / f"{i}.h5" for i in range(5)]
    for file, clips in zip(files, parts, strict=True):
        fill(file, clips, replace(NET, name="c3d") if file is files[1] else NET)
    with pytest.raises(BadCache, match="splits differ for clips 'c0'"):
        merge_caches([files[0], files[2]], tmp_path / "m.h5")
    for pair, names in ((files[:2], ("c3d", "music1d")), (files[3:], ("music1d",))):
        merge_caches(pair, tmp_path / "m.h5")
        with open_cache(tmp_path / "m.h5") as cache:
            np.testing.assert_array_equal(cache.table.splits, SPLIT.splits)
            assert cache.names() == names


DISAGREEING = replace(CLIPS, disagreement=np.array([[3, 0.25], [np.nan, np.nan], [4, 0]] * 2))
VOTES = np.full((6, len(CLIPS.classes)), 2.0)
WITH_VOTES = replace(DISAGREEING, disagreement=np.hstack([DISAGREEING.disagreement, VOTES]))
RATED = replace(
    CLIPS, task="regression", classes=("valence", "arousal"), labels=np.arange(12.0).reshape(6, 2)
)
# Deviations of two targets, and the same without the annotators' biases.
WITH_RESIDUALS = replace(RATED, disagreement=np.arange(30.0).reshape(6, 5))


@pytest.mark.parametrize("clips", [DISAGREEING, WITH_VOTES, WITH_RESIDUALS])
def test_the_disagreement_of_annotators_comes_back(path, tmp_path, clips):
    fill(path, clips, VECTOR)
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        np.testing.assert_array_equal(cache.table.disagreement, clips.disagreement)
        assert diff_caches(path, path) == []
        fill(tmp_path / "without.h5", replace(clips, disagreement=None), VECTOR)
        (line,) = diff_caches(path, tmp_path / "without.h5")
    assert line == "only one of the caches has disagreement"
    part = subset(DISAGREEING, [2, 0])
    assert part.disagreement.tolist() == [[4, 0], [3, 0.25]]
    with h5py.File(path, "r+") as file:
        file["clips/disagreement"][0, 0] = 5
    assert any("checksum" in problem for problem in verify_cache(path))


@pytest.mark.parametrize("clips", [CLIPS, WITH_VOTES])
def test_what_shards_do_not_state_about_annotators_is_unknown(tmp_path, clips):
    fill(tmp_path / "a.h5", subset(clips, range(3)), VECTOR)
    fill(tmp_path / "b.h5", subset(DISAGREEING, range(3, 6)), VECTOR)
    merge_caches([tmp_path / "b.h5", tmp_path / "a.h5"], tmp_path / "both.h5")
    expected = np.full((6, 2 if clips is CLIPS else 4), np.nan)
    expected[3:, :2] = DISAGREEING.disagreement[3:]
    expected[:3] = np.nan if clips is CLIPS else clips.disagreement[:3]
    with open_cache(tmp_path / "both.h5") as cache:
        np.testing.assert_array_equal(cache.table.disagreement, expected)
    # Of two files with all clips, the one that states it is taken.
    for name, whole in (("c", CLIPS), ("d", DISAGREEING)):
        fill(tmp_path / f"{name}.h5", whole, replace(VECTOR, name=name))
    merge_caches([tmp_path / "c.h5", tmp_path / "d.h5"], tmp_path / "e.h5")
    with open_cache(tmp_path / "e.h5") as cache:
        np.testing.assert_array_equal(cache.table.disagreement, DISAGREEING.disagreement)
