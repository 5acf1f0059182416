"""Manifests as data frames."""

import pandas
import pytest

from mvemo.manifests import TASKS, Clip, Manifest, write_manifest


@pytest.mark.parametrize("task", TASKS)
def test_a_data_frame_has_the_cells_of_the_file(tmp_path, task):
    label = {"multiclass": ("calm",), "multilabel": ("calm", "happy"), "regression": (0.5, 2.0)}
    names = {"regression": ("valence", "arousal")}.get(task, ("calm", "happy"))
    extra = (("singer", "Ada"),)
    clips = (
        Clip("a", "a.wav", label[task], "x", start=1.0, duration=2.0, extra=extra),
        Clip("b", "b.wav", label[task], "y", fold=1),
    )
    manifest = Manifest("two", task, names, clips, tmp_path)
    frame = manifest.to_pandas()
    write_manifest(manifest, tmp_path / "two.csv")
    read = pandas.read_csv(tmp_path / "two.csv", comment="#", index_col="clip_id")
    read = read.loc[:, [name for name in read.columns if not name.startswith("mvemo: ")]]
    assert frame.index.tolist() == read.index.tolist() == ["a", "b"]
    assert set(read.columns) <= set(frame.columns)
    for name in read.columns:
        for cell, in_file in zip(frame[name], read[name], strict=True):
            missing = pandas.isna(cell) and pandas.isna(in_file)
            same = str(cell) == str(in_file) or float(cell) == float(in_file)
            assert missing or same, name
