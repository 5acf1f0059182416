"""Features for other programs give every value back."""

import csv
import json

import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, crossfit, fill, row

from mvemo.cache import BadCache, MissingCache, export_cache


@pytest.fixture(autouse=True)
def filled(path):
    fill(path, CLIPS, VECTOR, SEQUENCE, leave_out="c3")


@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_npz(path, tmp_path, spec):
    export_cache(path, spec.name, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        assert stored["clip_ids"].tolist() == list(CLIPS.clip_ids)
        assert stored["groups"].tolist() == list(CLIPS.groups)
        np.testing.assert_array_equal(stored["labels"], CLIPS.labels)
        assert stored["present"].tolist() == [True, True, True, False, True, True]
        assert json.loads(str(stored["spec"]))["params"] == spec.params
        for i, clip in enumerate(CLIPS.clip_ids):
            if spec is VECTOR:
                values, missing = stored["values"][i], np.full(4, np.nan)
            else:
                values = stored["values"][stored["offsets"][i] : stored["offsets"][i + 1]]
                missing = np.empty((0, 3))
            np.testing.assert_array_equal(values, missing if clip == "c3" else row(spec, clip))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv(path, tmp_path):
    export_cache(path, "music1d", tmp_path / "x.csv")
    head, *lines = read_csv(tmp_path / "x.csv")
    assert head == ["clip_id", "music1d_0", "music1d_1", "music1d_2", "music1d_3"]
    assert lines[3] == ["c3", "", "", "", ""]
    for line in lines[:3] + lines[4:]:
        np.testing.assert_array_equal(np.array(line[1:], np.float32), row(VECTOR, line[0]))


def test_csv_of_a_sequence(path, tmp_path):
    export_cache(path, "mel", tmp_path / "x.csv")
    lines = read_csv(tmp_path / "x.csv")
    assert [line for line in lines if line[0] == "c3"] == [["c3", "", "", "", ""]]
    mine = [line[1:] for line in lines if line[0] == "c2"]
    assert [line[0] for line in mine] == ["0", "1", "2"]
    frames = np.array([line[1:] for line in mine], np.float32)
    np.testing.assert_array_equal(frames, row(SEQUENCE, "c2"))


def test_folds_and_refusals(path, tmp_path):
    fill(tmp_path / "folds.h5", CLIPS, crossfit(0, CLIPS), crossfit(1, CLIPS))
    export_cache(tmp_path / "folds.h5", "music1d", tmp_path / "x.npz", fold=1)
    with np.load(tmp_path / "x.npz") as stored:
        np.testing.assert_array_equal(stored["values"][0], row(crossfit(1, CLIPS), "c0"))
    for name, out, message in (
        ("i3d", "y.npz", "no feature 'i3d'"),
        ("music1d", "y.mat", "unknown suffix '.mat': expected .npz or .csv"),
        ("music1d", "y.npz", "music1d needs a fold"),
    ):
        with pytest.raises(BadCache, match=message):
            export_cache(tmp_path / "folds.h5", name, tmp_path / out)
    with pytest.raises(MissingCache, match="its folder does not exist"):
        export_cache(path, "mel", tmp_path / "none" / "y.npz")
    assert not list(tmp_path.glob("*y.*"))
