"""Every flipped bit that matters and every contradiction is problems, and repaired if it can be."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, contents, crossfit, fill, flip, row, table

from mvemo.cache import BadCache, CacheWriter, open_cache, repair_cache, verify_cache
from mvemo.manifests.errors import MissingFile


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features.h5"
    honest = (replace(crossfit(f, CLIPS), name="c3d") for f in range(3))
    fill(path, CLIPS, VECTOR, SEQUENCE, *honest, leave_out="c4")
    with CacheWriter(path, CLIPS, provenance={"seeds": [1, 2]}) as writer:
        writer.fail("c4", "decode:audio", "no stream")
        writer.curve("c3d@fold0", {"epoch": [1, 2], "train_loss": [1.0, 0.5]})
    return path


def everything(path):
    with open_cache(path) as cache:
        table = cache.table
        return (
            contents(cache),
            [(s, s.trained_on) for s in cache.specs],
            replace(table, labels=table.labels.tolist(), folds=table.folds.tolist()),
            (cache.failures, cache.curves, cache.provenance, cache.digest()),
        )


def test_any_flipped_bit_is_found_or_changes_nothing(path):
    whole, before = path.read_bytes(), everything(path)
    draw = np.random.default_rng(0)
    n_detected = 0
    for _ in range(40):
        data = bytearray(whole)
        data[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        problems = verify_cache(path)
        assert all("\n" not in problem for problem in problems)
        n_detected += bool(problems)
        assert problems or everything(path) == before
    assert n_detected > 13


@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_a_flipped_bit_of_a_row_is_named_and_repaired(path, spec):
    assert verify_cache(path) == repair_cache(path) == []
    flip(path, row(spec, "c2").tobytes())
    problem = f"{spec.name} of clip 'c2': the values do not match their checksum"
    assert verify_cache(path) == [problem]
    (done,) = repair_cache(path)
    assert f"{spec.name} of clip 'c2' is corrupt in" in done
    assert verify_cache(path) == repair_cache(path) == []
    with open_cache(path) as cache:
        assert cache.present(spec.name).tolist() == [True, True, False, True, False, True]
        assert [f.stage for f in cache.failures] == [f"cache:{spec.name}", "decode:audio"]


def test_repair_leaves_out_a_feature_whose_index_is_damaged(path):
    flip(path, VECTOR.key("c0-0").encode())
    problem = "feature music1d cannot be read (it does not match its checksum)"
    assert verify_cache(path) == [problem]
    with pytest.raises(BadCache, match="run 'mvemo cache repair"):
        CacheWriter(path, CLIPS)
    assert repair_cache(path) == [f"left out: {problem}"]
    assert verify_cache(path) == []
    assert open_cache(path).names() == ("c3d", "mel")


def test_damaged_failures_and_provenance_are_left_out(path):
    with h5py.File(path, "r+") as file:
        file["failures"][()] = file["failures"].asstr()[()].replace("no stream", "all well!")
        file["provenance"][()] = file["provenance"].asstr()[()].replace("[1,2]", "[3,2]")
    assert len(verify_cache(path)) == 2
    with open_cache(path) as cache, pytest.raises(BadCache, match="provenance cannot be read"):
        _ = cache.provenance
    assert len(repair_cache(path)) == 2
    assert verify_cache(path) == []


ODD_TAGS, ODD_TARGETS = np.array([[0, 1]] * 6), np.array([[0, 1.0]] * 6)
ODD_TAGS[5, 1], ODD_TARGETS[5, 1] = 2, np.nan


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": np.array([0, 0, 1, 1, 2, 0])}, "label 2 of clip 'c4' is out of range"),
        ({"folds": np.array([0, 1, 1, 1, 2, 2])}, "group 'g0' is in several folds: [0, 1]"),
        ({"folds": np.array([0, 0, 1, 1, 3, 3])}, "folds [3] are outside 0 to 2"),
        ({"k": 0}, "clips have folds, but the number of folds is 0"),
        ({"task": "multilabel", "labels": ODD_TAGS}, "label [0, 2] of clip 'c5' is out of range"),
        ({"task": "regression", "labels": ODD_TARGETS}, "label [0.0, nan] of clip 'c5' is out of"),
    ],
)
def test_contradictions_of_the_clip_table(tmp_path, change, problem):
    fill(tmp_path / "x.h5", replace(CLIPS, **change), VECTOR)
    (found,) = verify_cache(tmp_path / "x.h5")
    assert found.startswith(problem)


def test_a_net_that_saw_its_fold_is_reported(tmp_path):
    path = tmp_path / "x.h5"
    specs = [
        replace(crossfit(0, CLIPS), trained_on=CLIPS.clip_ids, name="a"),
        replace(crossfit(0, CLIPS), trained_on=("c1", "elsewhere"), name="b"),
        replace(crossfit(0, CLIPS), trained_on=(), name="c"),
        replace(crossfit(9, CLIPS), name="d"),
        replace(VECTOR, trained_on=("c3",), name="e"),
        replace(VECTOR, trained_on=CLIPS.clip_ids, name="f", protocol="shared"),
        replace(VECTOR, trained_on=("elsewhere",), name="g"),
    ]
    fill(path, CLIPS, *specs)
    assert verify_cache(path) == [
        "a@fold0: the net was trained on 2 clips of its fold, such as 'c0'",
        "b@fold0: the net was trained on 1 clips of its fold, such as 'c1'",
        "b@fold0: the net was trained on groups of 2 clips of its fold, such as 'c0'",
        "c@fold0: the crossfit net has no record of its training clips",
        "d@fold9: the crossfit net is for fold 9, which has no clips",
        "e: the protocol is frozen, but the net was trained on 1 of the clips",
    ]
    assert open_cache(path).variants("b")[0].trained_on == ("c1", "elsewhere")


def test_many_problems_are_counted(tmp_path):
    clips = table(f"c{i}" for i in range(20))
    fill(tmp_path / "x.h5", replace(clips, labels=clips.labels + 5), VECTOR)
    problems = verify_cache(tmp_path / "x.h5")
    assert len(problems) == 6
    assert problems[-1] == "and 15 more problems of the clip table"


def spoil(mode, name, **attributes):
    def change(path):
        with h5py.File(path, mode) as file:
            file[name] = [1]
            file.attrs.update(attributes)

    return change


BROKEN = {
    "text": (lambda p: p.write_text("clip_id,label\n"), "another file, which starts with b'clip_"),
    "empty": (lambda p: p.write_bytes(b""), "an empty file"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-2000]), "a truncated HDF5 file"),
    "stub": (lambda p: p.write_bytes(p.read_bytes()[:20]), "HDF5 file: copy it again"),
    "foreign": (spoil("w", "x"), "an HDF5 file, but not a feature cache"),
    "older": (
        spoil("r+", "x", schema=1),
        "expected schema 2, got 1, .* again with 'mvemo extract'",
    ),
    "newer": (
        spoil("r+", "x", schema=3, mvemo=np.bytes_("7.1.0")),
        r"has schema 3, but mvemo \S+ reads only schema 2: install mvemo 7.1.0",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_one_clear_line(path, kind):
    change, message = BROKEN[kind]
    change(path)
    before = path.read_bytes()
    for use in (open_cache, repair_cache, lambda p: CacheWriter(p, CLIPS)):
        with pytest.raises(BadCache, match=message) as caught:
            use(path)
        assert "\n" not in str(caught.value)
    assert verify_cache(path) == [str(caught.value)]
    assert path.read_bytes() == before


def test_missing_and_folder(tmp_path):
    for use in (open_cache, verify_cache, repair_cache):
        with pytest.raises(MissingFile, match="no such file"):
            use(tmp_path / "none.h5")
    for use in (open_cache, verify_cache):
        with pytest.raises(MissingFile, match="the folder has no shards"):
            use(tmp_path)
