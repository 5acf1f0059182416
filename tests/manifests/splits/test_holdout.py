"""The split into training, validation and test clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    holdout_of,
    holdout_split,
    parse_fractions,
    prescribed_split,
)

J22 = {"anger": 639, "happy": 753, "relaxation": 750, "sad": 764}


def manifest(splits, groups=None):
    clips = tuple(
        Clip(f"c{i}", f"{i}.wav", (("a", "b")[i % 2],), (groups or {}).get(i, f"g{i}"), split=s)
        for i, s in enumerate(splits)
    )
    return Manifest("made", "multiclass", ("a", "b"), clips, Path())


def test_songs_of_j22_are_split_7_2_1_in_every_class():
    labels = np.repeat(np.arange(4), list(J22.values()))
    side = holdout_split(labels, [str(i) for i in range(2906)], (7, 2, 1), 0, "multiclass")
    assert side.dtype == np.int64
    for c, n in enumerate(J22.values()):
        counts = np.bincount(side[labels == c], minlength=3)
        np.testing.assert_allclose(counts, np.array([0.7, 0.2, 0.1]) * n, atol=1.0)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=40),
    classes=st.integers(1, 4),
    seed=st.integers(0, 50),
)
def test_groups_stay_whole_and_no_side_is_empty(sizes, classes, seed):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(0, classes, len(sizes))[group]
    names = np.array([f"g{g}" for g in group])
    side = holdout_split(labels, names, (0.7, 0.2, 0.1), seed, "multiclass")
    assert set(side.tolist()) == {0, 1, 2}
    for g in range(len(sizes)):
        assert len(set(side[group == g].tolist())) == 1
    # The order of the clips has no say in it.
    order = rng.permutation(len(labels))
    again = holdout_split(labels[order], names[order], (7, 2, 1), seed, "multiclass")
    np.testing.assert_array_equal(again, side[order])


def test_the_seed_decides():
    labels, groups = np.arange(60) % 3, [str(i) for i in range(60)]
    a, b = (holdout_split(labels, groups, (7, 2, 1), s, "multiclass") for s in (0, 1))
    assert (a != b).any()


def test_a_class_of_one_group_is_trained_on():
    labels = np.array([0] * 20 + [1])
    for seed in range(10):
        side = holdout_split(labels, [str(i) for i in range(21)], (1, 2, 7), seed, "multiclass")
        assert side[20] == 0
        assert set(side.tolist()) == {0, 1, 2}


def test_a_prescribed_split_is_kept():
    holdout = holdout_of(manifest(["train"] * 6 + ["val"] * 2 + ["Test"] * 2), seed=3)
    assert holdout.assignment.tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert holdout.seed == -1
    assert holdout.notes == ()


def test_parts_that_are_not_prescribed_are_taken_from_others():
    tested = "no test clips: its 4 validation clips are the tested ones"
    taken = "no validation clips: 4 of its 18 training clips"  # 2 / 9 of 18
    # Early stopping must not choose by the clips that are tested.
    for last, notes in (("test", [taken]), ("val", [tested, taken])):
        holdout = holdout_of(manifest(["train"] * 18 + [last] * 4))
        assert (holdout.assignment[18:] == 2).all()
        assert (holdout.assignment[:18] == 1).sum() == 4
        assert len(holdout.notes) == len(notes)
        assert all(note in given for note, given in zip(notes, holdout.notes, strict=True))


@pytest.mark.parametrize(
    ("splits", "groups", "parts", "note"),
    [
        (["training"] * 4 + ["dev"] * 2 + ["eval"] * 2, None, [0] * 4 + [1] * 2 + [2] * 2, ""),
        ([None] * 4, None, None, ""),
        (["val"] * 2 + ["test"] * 2, None, [1, 1, 2, 2], "no training clips"),
        (["train"] * 4, None, None,
         "all clips are in split 'train': the clips are cross-validated instead"),
        (["train", "test"] * 4, {i: f"g{i // 2}" for i in range(8)}, None,
         "group 'g0' straddles the splits train and test, and 3 more groups straddle"),
    ],
)  # fmt: skip
def test_a_prescribed_split_of_features_without_training(splits, groups, parts, note):
    split, notes = prescribed_split(manifest(splits, groups))
    assert (split and split.assignment.tolist()) == parts
    assert note in notes[0] if note else notes == ()


@pytest.mark.parametrize(
    ("splits", "problem"), [(["train", None], "'c1'"), (["train", "fold1"], "'fold1'")]
)
def test_a_prescribed_split_with_mistakes(splits, problem):
    with pytest.raises(BadManifest, match=problem):
        prescribed_split(manifest(splits))


def test_a_split_is_made_where_none_is_prescribed():
    made = holdout_of(manifest([None] * 20), seed=4)
    assert np.bincount(made.assignment).tolist() == [14, 4, 2]
    assert made.seed == 4
    made = holdout_of(replace(manifest([None] * 20), classes=("a", "b", "c")))
    assert made.notes == ("class 'c' has no clips in train and validation and test",)


@pytest.mark.parametrize(
    ("splits", "groups", "problem"),
    [
        (["train", None, "test"], None, "1 clips have no split"),
        (["train", "fold1", "test"], None, "split 'fold1' is not known"),
        (["train", "train"], None, "no clip is in split 'test'"),
        (["test", "val", "val"], None, "no clip is in split 'train'"),
        (
            ["train", "val", "test"],
            {0: "g", 2: "g"},
            "group 'g' straddles the splits train and test",
        ),
        ([None] * 4, {i: f"g{i % 2}" for i in range(4)}, "3 are needed"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(splits, groups, problem):
    with pytest.raises(BadManifest, match=problem):
        holdout_of(manifest(splits, groups))


def test_fractions_are_read():
    assert parse_fractions("7:2:1") == pytest.approx((0.7, 0.2, 0.1))
    for text in ("7:3", "7:2:0", "a:b:c", "1:nan:1", ""):
        with pytest.raises(BadManifest, match="as 7:2:1"):
            parse_fractions(text)
    with pytest.raises(BadManifest, match="three numbers above 0"):
        holdout_split([0, 1, 0], ["a", "b", "c"], (0.9, 0.1), 0, "multiclass")
