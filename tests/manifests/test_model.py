"""Manifests as data frames."""

import pandas

from mvemo.manifests import Clip, Manifest


def test_a_data_frame_has_the_cells_of_the_file(tmp_path):
    clips = (
        Clip("a", "a.wav", ("calm",), "x", start=1.0, duration=2.0, extra=(("singer", "Ada"),)),
        Clip("b", "b.wav", (), "y", fold=1, extra=(("group", "other"),)),
    )
    frame = Manifest("two", "multilabel", ("calm", "happy"), clips, tmp_path).to_pandas()
    assert frame.index.name == "clip_id"
    assert frame.loc["a"].dropna().to_dict() == {
        "path": "a.wav", "calm": "1", "happy": "0", "group": "x", "start": 1.0, "duration": 2.0,
        "singer": "Ada",
    }  # fmt: skip
    assert frame.group.tolist() == ["x", "y"]
    assert pandas.isna(frame.loc["b", "duration"])
