"""Folds as files, folds and splits that a manifest prescribes, and splits that are made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests.errors import BadFile, BadManifest, MissingFile
from mvemo.manifests.model import Clip, Manifest
from mvemo.manifests.splits.assignment import (
    folds_of,
    holdout_of,
    parse_fractions,
    prescribed_split,
    read_folds,
    write_folds,
)
from mvemo.manifests.splits.folds import holdout_split, make_folds

J22 = (639, 753, 750, 764)  # songs of each class


def make(n=12, folds=None, pieces=1, splits=None, groups=None):
    clips = []
    for i in range(n):
        group = (groups or {}).get(i, f"g{i // pieces}")
        fold, split = folds and folds[i], splits and splits[i]
        label = ("ab"[i % 2],)
        clips.append(Clip(f'c "{i}", x', f"{i}.mp4", label, group, fold=fold, split=split))
    return Manifest("m", "multiclass", ("a", "b"), tuple(clips), Path())


def manifest(splits, groups=None):
    return make(len(splits), splits=splits, groups=groups)


def test_written_and_read_back(tmp_path):
    manifest = make()
    folds = folds_of(manifest, 3, 5)
    expected = make_folds(manifest.labels, manifest.groups, 3, 5, "multiclass")
    assert np.array_equal(folds.assignment, expected)
    write_folds(folds, tmp_path / "f.csv")
    for clips in (manifest, None):
        again = read_folds(tmp_path / "f.csv", clips)
        assert np.array_equal(again.assignment, folds.assignment)
        assert (again.k, again.seed, again.clip_ids) == (3, 5, manifest.clip_ids)
    assert again.manifest_digest == manifest.digest
    # The folds follow the manifest's order.
    turned = replace(manifest, clips=manifest.clips[::-1])
    assert np.array_equal(read_folds(tmp_path / "f.csv", turned).assignment, folds.assignment[::-1])
    assert sum(again.test(f).sum() for f in range(3)) == 12
    assert np.array_equal(again.train(1), ~again.test(1))
    with pytest.raises(BadManifest, match="folds are 0 to 2"):
        again.test(3)


def test_prescribed_folds_are_kept():
    given = [0, 1, 2, 2, 1, 0, 0, 1, 2, 1, 1, 1]
    folds = folds_of(make(folds=given), 6, 9)
    assert folds.assignment.tolist() == given
    assert folds.k == 3
    assert folds.notes[0].startswith("the manifest prescribes 3 folds")
    with pytest.raises(BadManifest, match="group 'g0' is in folds 0 and 1"):
        folds_of(make(folds=given, pieces=2), 6, 9)
    with pytest.raises(BadManifest, match="at least two folds"):
        folds_of(make(folds=[1 + f for f in given]), 6, 9)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": 14}, r"no fold is given for .*\(2 of \d+ clips have no fold, 0 ids"),
        ({"n": 10}, r"there is no clip .*\(0 of \d+ clips have no fold, 2 ids"),
        ({"pieces": 12}, r"'g0' is in folds 0 and 1 and 2$"),
        ({"pieces": 3}, r"is in folds . and . \(\d more groups are in several\)"),
    ],
)
def test_another_manifests_folds_are_refused(tmp_path, other, message):
    write_folds(folds_of(make(), 3, 0), tmp_path / "f.csv")
    with pytest.raises(BadManifest, match=message):
        read_folds(tmp_path / "f.csv", make(**other))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# mvemo manifest 1\nclip_id,fold\n", "mvemo manifest"),
        ("# mvemo folds 2\nclip_id,fold\n", "version of folds: expected 1, got 2"),
        ("clip,fold\na,0\n", "expected columns clip_id and fold"),
        ("clip_id,fold\na,0\na,1\n", "f.csv:3: clip_id 'a' occurs twice"),
        ("clip_id,fold\na,0\nb,-1\nc,1\n", "f.csv:3: fold: expected a whole"),
        ("clip_id,fold\na,0\nb,1,2\nc,1\n", "f.csv:3: the row has 3 cells"),
        ("clip_id,fold\na,0\nb,2\n", "at least two folds 0, 1"),
        ("clip_id,fold\n", "at least two folds 0, 1"),
        ("# k: 3\nclip_id,fold\na,0\nb,1\n", "f.csv:1: k is 3, but there are 2"),
        ("# k: x\nclip_id,fold\na,0\nb,1\n", "f.csv:1: k 'x'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(BadFile, match=message):
        read_folds(tmp_path / "f.csv")


def test_a_users_own_fold_file(tmp_path):
    (tmp_path / "f.csv").write_text("fold,clip_id,remark\n1,b,\n0,a,\n")
    folds = read_folds(tmp_path / "f.csv")
    assert (folds.k, folds.seed, folds.clip_ids) == (2, -1, ("b", "a"))
    with pytest.raises(MissingFile):
        read_folds(tmp_path / "none.csv")


def test_clips_that_come_and_go_move_no_other():
    before = make(40, pieces=2)
    first = folds_of(before, 4, 1)
    clips = (*before.clips[6:], *(Clip(f"new{i}", f"n{i}.mp4", ("a",), f"n{i}") for i in range(5)))
    after = replace(before, clips=clips)
    kept = folds_of(after, 4, 1, earlier=first)
    assert np.array_equal(kept.assignment[:34], first.assignment[6:])
    assert kept.notes[0].startswith("17 of 22 groups keep their earlier folds")
    # Another number or seed asks for other folds.
    fresh = folds_of(after, 4, 2)
    assert np.array_equal(folds_of(after, 4, 2, earlier=first).assignment, fresh.assignment)


def test_groups_that_were_joined_are_divided_anew():
    before = make(40)
    first = folds_of(before, 4, 0)
    apart = next(i for i in range(40) if first.assignment[i] != first.assignment[0])
    clips = list(before.clips)
    clips[apart] = replace(clips[apart], group=clips[0].group)
    joined = folds_of(replace(before, clips=tuple(clips)), 4, 0, earlier=first)
    assert joined.assignment[0] == joined.assignment[apart]
    rest = [i for i in range(40) if i not in (0, apart)]
    assert np.array_equal(joined.assignment[rest], first.assignment[rest])


def test_songs_of_j22_are_split_7_2_1_in_every_class():
    labels = np.repeat(np.arange(4), J22)
    side = holdout_split(labels, [str(i) for i in range(2906)], (7, 2, 1), 0, "multiclass")
    for c, n in enumerate(J22):
        counts = np.bincount(side[labels == c], minlength=3)
        np.testing.assert_allclose(counts, np.array([0.7, 0.2, 0.1]) * n, atol=1.0)


def test_a_prescribed_split_is_kept():
    holdout = holdout_of(manifest(["train"] * 6 + ["val"] * 2 + ["Test"] * 2), seed=3)
    assert holdout.assignment.tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert holdout.seed == -1
    assert holdout.notes == ()


def test_parts_that_are_not_prescribed_are_taken_from_others():
    tested = "no test clips: its 4 validation clips are used for the test"
    taken = "no validation clips: 4 of its 18 training clips"  # 2 / 9 of 18
    # Early stopping must not choose by the clips that are tested.
    for last, notes in (("test", [taken]), ("val", [tested, taken])):
        holdout = holdout_of(manifest(["train"] * 18 + [last] * 4))
        assert (holdout.assignment[18:] == 2).all()
        assert (holdout.assignment[:18] == 1).sum() == 4
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
         "group 'g0' is in the splits train and test (3 more groups are in several)"),
    ],
)  # fmt: skip
def test_a_prescribed_split_of_features_without_training(splits, groups, parts, note):
    split, notes = prescribed_split(manifest(splits, groups))
    assert (split and split.assignment.tolist()) == parts
    assert note in notes[0] if note else notes == ()


def test_a_split_is_made_where_none_is_prescribed():
    made = holdout_of(manifest([None] * 20), seed=4)
    assert np.bincount(made.assignment).tolist() == [14, 4, 2]
    assert made.seed == 4
    assert (made.assignment != holdout_of(manifest([None] * 20), seed=5).assignment).any()
    made = holdout_of(replace(manifest([None] * 20), classes=("a", "b", "c")))
    assert made.notes == ("class 'c' has no clips in train and validation and test",)


@pytest.mark.parametrize(
    ("splits", "groups", "problem"),
    [
        (["train", None, "test"], None, "1 clips, such as "),
        (["train", "fold1", "test"], None, "unknown split 'fold1'"),
        (["train", "train"], None, "no clip is in split 'test'"),
        (["test", "val", "val"], None, "no clip is in split 'train'"),
        (["train", "val", "test"], {0: "g", 2: "g"}, "group 'g' is in the splits train and te"),
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
