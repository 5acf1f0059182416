"""Folds as files, and folds that a manifest prescribes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    MissingManifest,
    folds_of,
    make_folds,
    read_folds,
    write_folds,
)


def make(n=12, folds=None, pieces=1):
    clips = tuple(
        Clip(
            f'c "{i}", x',
            f"{i}.mp4",
            ("ab"[i % 2],),
            f"g{i // pieces}",
            fold=None if folds is None else folds[i],
        )
        for i in range(n)
    )
    return Manifest("m", "multiclass", ("a", "b"), clips, Path())


def test_written_and_read_back(tmp_path):
    manifest = make()
    folds = folds_of(manifest, 3, 5)
    assert np.array_equal(
        folds.assignment, make_folds(manifest.labels, manifest.groups, 3, 5, "multiclass")
    )
    write_folds(folds, tmp_path / "f.csv")
    again = read_folds(tmp_path / "f.csv", manifest)
    assert np.array_equal(again.assignment, folds.assignment)
    assert (again.k, again.seed, again.clip_ids) == (3, 5, manifest.clip_ids)
    assert again.manifest_digest == manifest.digest
    assert np.array_equal(read_folds(tmp_path / "f.csv").assignment, folds.assignment)
    # The folds follow the manifest's order.
    turned = dataclasses.replace(manifest, clips=manifest.clips[::-1])
    assert np.array_equal(read_folds(tmp_path / "f.csv", turned).assignment, folds.assignment[::-1])
    assert sum(again.test(f).sum() for f in range(3)) == 12
    assert np.array_equal(again.train(1), ~again.test(1))
    with pytest.raises(BadManifest, match="folds 0 to 2"):
        again.test(3)


def test_prescribed_folds_are_kept():
    given = [0, 1, 2, 2, 1, 0, 0, 1, 2, 1, 1, 1]
    folds = folds_of(make(folds=given), 6, 9)
    assert folds.assignment.tolist() == given
    assert folds.k == 3
    assert folds.notes[0].startswith("the manifest prescribes 3 folds")
    with pytest.raises(BadManifest, match="group 'g0' straddles folds 0 and 1"):
        folds_of(make(folds=given, pieces=2), 6, 9)
    with pytest.raises(BadManifest, match="folds must be"):
        folds_of(make(folds=[1 + f for f in given]), 6, 9)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": 14}, r"no fold is given for .*\(2 clips .* 0 unknown"),
        ({"n": 10}, r"there is no clip .*\(0 clips .* 2 unknown"),
        ({"pieces": 12}, r"'g0' straddles folds 0 and 1 and 2$"),
        ({"pieces": 3}, r"straddles folds . and ., and \d more groups straddle"),
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
        ("# mvemo folds 2\nclip_id,fold\n", "folds version 2"),
        ("clip,fold\na,0\n", "must have clip_id and fold"),
        ("clip_id,fold\na,0\na,1\n", "f.csv:3: clip_id 'a' occurs twice"),
        ("clip_id,fold\na,0\nb,-1\nc,1\n", "f.csv:3: fold '-1' is not a whole"),
        ("clip_id,fold\na,0\nb,1,2\nc,1\n", "f.csv:3: 3 cells"),
        ("clip_id,fold\na,0\nb,2\n", "folds must be 0, 1"),
        ("clip_id,fold\n", "folds must be 0, 1"),
        ("# k: 3\nclip_id,fold\na,0\nb,1\n", "f.csv:1: k is 3, but there are 2"),
        ("# k: x\nclip_id,fold\na,0\nb,1\n", "f.csv:1: k 'x'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(BadManifest) as caught:
        read_folds(tmp_path / "f.csv")
    assert message in str(caught.value)


def test_a_users_own_fold_file(tmp_path):
    (tmp_path / "f.csv").write_text("fold,clip_id,remark\n1,b,\n0,a,\n")
    folds = read_folds(tmp_path / "f.csv")
    assert (folds.k, folds.seed, folds.clip_ids) == (2, -1, ("b", "a"))
    with pytest.raises(MissingManifest):
        read_folds(tmp_path / "none.csv")


def test_clips_that_come_and_go_move_no_other():
    before = make(40, pieces=2)
    first = folds_of(before, 4, 1)
    clips = (*before.clips[6:], *(Clip(f"new{i}", f"n{i}.mp4", ("a",), f"n{i}") for i in range(5)))
    after = dataclasses.replace(before, clips=clips)
    kept = folds_of(after, 4, 1, earlier=first)
    old = dict(zip(first.clip_ids, first.assignment.tolist(), strict=True))
    moved = [c for c, f in zip(kept.clip_ids, kept.assignment, strict=True) if old.get(c, f) != f]
    assert moved == []
    assert kept.notes[0].startswith("17 of 22 groups keep the folds")
    # Another number or seed asks for other folds.
    fresh = folds_of(after, 4, 2)
    assert np.array_equal(folds_of(after, 4, 2, earlier=first).assignment, fresh.assignment)


def test_groups_that_were_joined_are_divided_anew():
    before = make(40)
    first = folds_of(before, 4, 0)
    apart = next(i for i in range(40) if first.assignment[i] != first.assignment[0])
    clips = list(before.clips)
    clips[apart] = dataclasses.replace(clips[apart], group=clips[0].group)
    joined = folds_of(dataclasses.replace(before, clips=tuple(clips)), 4, 0, earlier=first)
    assert joined.assignment[0] == joined.assignment[apart]
    rest = [i for i in range(40) if i not in (0, apart)]
    assert np.array_equal(joined.assignment[rest], first.assignment[rest])
