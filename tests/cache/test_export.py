"""Features for other programs give every value back."""

import csv
import json

import numpy as np
import pandas
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, crossfit, fill, row

from mvemo.cache import BadCache, export_cache
from mvemo.manifests.errors import MissingFile


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


@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_csv(path, tmp_path, spec):
    export_cache(path, spec.name, tmp_path / "x.csv")
    head, *lines = csv.reader((tmp_path / "x.csv").read_text().splitlines())
    frame = ["frame"] if spec is SEQUENCE else []
    assert head == ["clip_id", *frame, *(f"{spec.name}_{i}" for i in range(spec.dim))]
    assert [line for line in lines if line[0] == "c3"] == [["c3", *[""] * (len(head) - 1)]]
    for clip in {*CLIPS.clip_ids} - {"c3"}:
        cells = np.array([line[1:] for line in lines if line[0] == clip], np.float32)
        numbers, values = np.split(cells, [len(frame)], axis=1)
        assert numbers.ravel().tolist() == [*range(len(values))][: numbers.size]
        np.testing.assert_array_equal(values, np.atleast_2d(row(spec, clip)))


@pytest.mark.parametrize("spec", [VECTOR, SEQUENCE])
def test_parquet_has_the_cells_of_csv(path, tmp_path, spec):
    for suffix in ("csv", "parquet"):
        export_cache(path, spec.name, tmp_path / f"x.{suffix}")
    found = pandas.read_parquet(tmp_path / "x.parquet")
    expected = pandas.read_csv(tmp_path / "x.csv")
    assert found["clip_id"].tolist() == expected["clip_id"].tolist()
    pandas.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


def test_folds_and_refusals(path, tmp_path):
    fill(tmp_path / "folds.h5", CLIPS, crossfit(0, CLIPS), crossfit(1, CLIPS))
    export_cache(tmp_path / "folds.h5", "music1d", tmp_path / "x.npz", fold=1)
    with np.load(tmp_path / "x.npz") as stored:
        np.testing.assert_array_equal(stored["values"][0], row(crossfit(1, CLIPS), "c0"))
    for name, out, message in (
        ("i3d", "y.npz", "no feature 'i3d'"),
        ("music1d", "y.mat", "unknown suffix '.mat': expected .npz, .csv or .parquet"),
        ("music1d", "y.npz", "music1d needs a fold"),
    ):
        with pytest.raises(BadCache, match=message):
            export_cache(tmp_path / "folds.h5", name, tmp_path / out)
    with pytest.raises(MissingFile, match="its folder does not exist"):
        export_cache(path, "mel", tmp_path / "none" / "y.npz")
    assert not list(tmp_path.glob("*y.*"))
