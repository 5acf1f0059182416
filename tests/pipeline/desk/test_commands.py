"""The model that `mvemo serve` takes if none is given."""

from types import SimpleNamespace

import pytest

from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.serve.server import default_model
from mvemo.pipeline.models import boxed

TASKS = {"songs": "regression", "music-video": "multiclass"}
SCALE = {"valence": (-1.0, 1.0)}


@pytest.mark.parametrize(
    ("files", "corrections", "predictions", "name"),
    [
        (["a.mp3", "b.flac"], "", "", "songs"),
        (["a.mp4", "b.webm"], "", "", "music-video"),
        (["a.mp4", "b.mp3"], "", "", "songs"),
        (["a.mp3"], "calm", "", "music-video"),
        (["a.mp4"], {"valence": 0.5}, "", "songs"),
        (["a.mp4"], "broken", "", "music-video"),
        (["a.mp3"], "", '{"path": "a.mp3", "model": "music-video/lld"}', "music-video"),
        (["a.mp3"], "", '{"path": "a.mp3", "model": "mine/lld"}', "songs"),
    ],
)
def test_the_model_is_by_the_files_or_by_what_was_done_with_them(
    files, corrections, predictions, name, tmp_path, monkeypatch
):
    for model in TASKS:
        (tmp_path / "box" / model).mkdir(parents=True)
        (tmp_path / "box" / model / "model.json").touch()
    monkeypatch.setattr(boxed, "FOLDER", tmp_path / "box")
    monkeypatch.setattr(boxed, "load_model", lambda path: SimpleNamespace(task=TASKS[path.name]))
    source = tmp_path / "clips"
    (source / ".mvemo").mkdir(parents=True)
    for file in files:
        (source / file).touch()
    kept = source / ".mvemo" / "corrections.csv"
    if corrections == "broken":
        kept.write_text("no table")
    elif corrections:
        made = (
            ("multiclass", ("calm", "sad"))
            if corrections == "calm"
            else ("regression", ("valence",))
        )
        Corrections(kept, "x", *made, SCALE).put(source / files[0], corrections, clip_id="a")
    if predictions:
        (source / "found.json").write_text(predictions)
        source /= "found.json"
    assert default_model(source, None) == tmp_path / "box" / name
