"""Explanations and timelines of made clips whose answer lies in a known second."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from stage_samples import run, set_options, write_video

from mvemo.extract.errors import BadMedia
from mvemo.extract.nets import build_net
from mvemo.manifests.errors import BadOption, DiskFailed
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.explain import ExplainSettings, explain_clip
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings
from mvemo.pipeline.prediction.run import predict_files
from mvemo.pipeline.prediction.timeline import TimelineSettings, changes_of, follow_clip, page_names

SR = 8000
# Sound and pictures of the two classes.
GREY = {"calm": 60, "tense": 200}


def sound(kind, seconds, seed):
    """A low tone, or noise."""
    n = round(seconds * SR)
    rng = np.random.default_rng(seed)
    if kind == "tense":
        return 0.3 * rng.uniform(-1, 1, n)
    return 0.3 * np.sin(2 * np.pi * (220 + 20 * (seed % 5)) * np.arange(n) / SR)


def write_clip(path, kinds, seed=0):
    """Stretches of (class, seconds) one after the other: sound and grey pictures."""
    rng = np.random.default_rng(seed)
    named = [kind for kind, seconds in kinds for _ in range(round(5 * seconds))]
    greys = [GREY[kind] + rng.integers(-9, 9) for kind in named]
    frames = [np.full((48, 48, 3), grey, np.uint8) for grey in greys]
    y = np.concatenate([sound(kind, seconds, seed) for kind, seconds in kinds])
    write_video(path, frames, 5, y, SR)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model of sound and pictures, and clips that change."""
    folder = tmp_path_factory.mktemp("explain")
    rows = ["clip_id,path,label"]
    for kind in GREY:
        for i in range(6):
            write_clip(folder / f"{kind}{i}.mkv", [(kind, 2.0)], i)
            rows.append(f"{kind}{i},{kind}{i}.mkv,{kind}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    net = build_net("effnet", 2, width=0.05, size=32, n_frames=4)
    torch.save(net.state_dict(), folder / "effnet.pt")
    options = set_options(
        *("extract.folds=2", "extract.workers=1", 'extract.descriptors=["mfcc"]'),
        *("descriptors.sr=8000", "descriptors.n_fft=512", "descriptors.hop_length=256"),
        *("nets.effnet.width=0.05", "nets.effnet.options={size=32, n_frames=4}"),
    )
    weights = ["--weights", f"effnet={folder / 'effnet.pt'}"]
    extract = [folder / "clips.csv", "--work", folder / "work", "--nets", "effnet", *options]
    assert run("mvemo", "extract", *extract, "--protocol", "frozen", *weights) == 0
    lld = ["--set", 'fuse.lld=["mfcc"]', "--set", "fuse.n_resamples=0"]
    features = folder / "work" / "features.h5"
    assert run("mvemo", "fuse", features, "--final", "--out", folder / "out", *lld) == 0
    write_clip(folder / "turn.mkv", [("calm", 8.0), ("tense", 8.0)])
    write_clip(folder / "burst.mkv", [("calm", 6.0), ("tense", 2.0), ("calm", 4.0)])
    return folder


@pytest.fixture(scope="module")
def maker(made):
    folder = made / "out" / "model"
    return FeatureMaker(folder, PredictSettings(weights={"effnet": made / "effnet.pt"}))


def test_the_seconds_that_speak_for_a_class_are_found(made, maker):
    clip = NewClip("burst", made / "burst.mkv")
    settings = ExplainSettings(step=0.5, width=1.0, output="tense")
    explanation = explain_clip(maker, clip, settings)
    assert explanation.output == "tense"
    # What is explained is what is predicted.
    _, (whole,) = predict_files(maker.folder, [clip], maker.options)
    assert explanation.prediction.outputs == pytest.approx(whole.outputs, abs=0.01)
    for modality in ("audio", "video"):
        assert 6.0 <= explanation.times[explanation.strongest(modality)[0]] <= 8.0
        effect = explanation.effects[modality]
        assert effect[np.abs(explanation.times - 7.0) < 0.8].min() > 0
        assert effect[np.abs(explanation.times - 7.0) > 2.0].max() < 0


def test_a_timeline_turns_where_the_clip_does(made, maker):
    clip = NewClip("turn", made / "turn.mkv")
    settings = TimelineSettings(window=2.0, hop=1.0)
    timeline = follow_clip(maker, clip, settings)
    labels = [maker.model.classes[int(np.argmax(p.outputs))] for p in timeline.predictions]
    middles = [sum(window) / 2 for window in timeline.windows]
    for label, middle in zip(labels, middles, strict=True):
        if abs(middle - 8.0) > 1.0:
            assert label == ("calm" if middle < 8.0 else "tense")
    # The windows at 7 to 9 s touch both halves, so that either label is right for them.
    change = changes_of(maker.model, timeline)[0]
    assert change["time"] == pytest.approx(8.0, abs=1.5)
    assert (change["before"], change["after"]) == ("calm", "tense")
    assert len(timeline.sketch.thumbnails) == 16


def test_a_file_that_is_cut_off_is_found_out_at_its_end(maker, tmp_path):
    soundfile.write(tmp_path / "whole.wav", sound("calm", 16.0, 0), SR)
    whole = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    settings = TimelineSettings(window=2.0, hop=2.0)
    with pytest.raises(BadMedia, match=r"cut.wav: sound: cut off: only 8\.0 of 16\.0 s can"):
        follow_clip(maker, NewClip("cut.wav", tmp_path / "cut.wav"), settings)


def test_pages_and_tables_are_written(made, tmp_path, monkeypatch, capsys, program):
    monkeypatch.chdir(tmp_path)
    weights = ["--weights", f"effnet={made / 'effnet.pt'}"]
    model = ["--model", made / "out" / "model", *weights]
    (tmp_path / "text.mp3").write_text("no sound")
    inputs = [made / "turn.mkv", tmp_path / "text.mp3"]
    windows = ["--window", "4", "--hop", "2", "--timeline-to", tmp_path / "t"]
    capsys.readouterr()
    table = tmp_path / "windows.csv"
    shown = program("mvemo", "predict", *inputs, *model, "--timeline", *windows, "--csv", table).out
    assert "0:16, calm from 0:00, tense from 0:" in shown
    assert "not predicted: " in shown
    with (tmp_path / "t" / "turn.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["calm"] * 3 + [rows[3]["label"]] + ["tense"] * 3
    assert (float(rows[1]["start"]), float(rows[1]["stop"])) == (2.0, 6.0)
    page = (tmp_path / "t" / "turn.html").read_text(encoding="utf-8")
    assert page.count("<polyline") == 2
    assert 'audio id="audio" controls preload="auto" src="data:audio/ogg;base64,' in page
    assert '<button class="play" data-t="' in page
    assert "data:image/jpeg;base64," in page
    assert 'src="http' not in page
    with table.open(encoding="utf-8", newline="") as file:
        *same, failed = csv.DictReader(file)
    assert same == rows
    assert (failed["path"], failed["label"]) == (str(inputs[1]), "")
    assert "cannot be read as media" in failed["error"]
    timeline = ["predict", *inputs, *model, "--timeline", *windows, "--strict"]
    *records, last = json.loads(program("mvemo", *timeline, "--json", ends=1).out)
    assert [record["label"] for record in records] == [row["label"] for row in rows]
    assert (last["path"], last["error"]) == (failed["path"], failed["error"])
    assert run("mvemo", "explain", made / "burst.mkv", *model, "--of", "tense") == 0
    assert "strongest evidence for tense:" in capsys.readouterr().out
    page = (tmp_path / "burst.explained.html").read_text(encoding="utf-8")
    assert "data:audio/ogg;base64," in page
    assert "The frames that count most" in page
    assert run("mvemo", "explain", tmp_path / "text.mp3", *model) == 2
    assert "cannot be read as media" in capsys.readouterr().err
    assert run("mvemo", "predict", *inputs, *model, "--timeline", "--window", "0") == 2
    assert "--window 0: expected 1 to 600 seconds" in capsys.readouterr().err

    def full(path, rows):
        raise DiskFailed(f"{path}: cannot be written: no space left")

    # A page stays with its own table if the disk is full.
    (tmp_path / "t" / "turn.html").write_text("earlier")
    monkeypatch.setattr("mvemo.pipeline.prediction.timeline.write_rows", full)
    assert run("mvemo", "predict", inputs[0], *model, "--timeline", *windows) == 2
    assert "t/turn.csv: cannot be written: no space left" in capsys.readouterr().err
    assert (tmp_path / "t" / "turn.html").read_text() == "earlier"


def test_pages_of_one_name_are_numbered():
    names = page_names(Path("out"), ["a/x.mp3", "b/x.mp3", "y.tar.gz", "song.mp3@30"])
    assert [path.name for path in names] == ["x", "x-2", "y.tar", "song.mp3-30"]


def test_notes_of_predict_are_repeated(made, tmp_path, monkeypatch, capsys, program):
    monkeypatch.chdir(tmp_path)
    model = ["--model", made / "out" / "model", "--weights", f"effnet={made / 'effnet.pt'}"]
    known, short = made / "calm0.mkv", tmp_path / "short.wav"
    soundfile.write(short, np.random.default_rng(0).uniform(-0.9, 0.9, SR // 2), SR)
    trained, brief = "the clip is part of the model's training data", "only 0.50 s long: too short"
    shown = program("mvemo", "predict", known, short, *model, "--timeline").out
    assert f"note: {known}: 1 of 1 windows: {trained}" in shown
    assert f"note: {short}: 1 of 1 windows: {brief}" in shown
    assert trained in (tmp_path / "timelines" / "calm0.csv").read_text()
    for clip, note in ((known, trained), (short, brief)):
        assert run("mvemo", "explain", clip, *model, "--to", tmp_path / "why.html") == 0
        assert f"note: {note}" in capsys.readouterr().out
        assert note.partition("'")[0] in (tmp_path / "why.html").read_text()
    assert "note: " not in program("mvemo", "explain", known, *model, "-q").out


def test_the_table_and_the_text_come_before_the_page(made, tmp_path, monkeypatch, capsys):
    def fail(*_, **kind):
        raise MemoryError(kind["subtype"])

    monkeypatch.setattr(page, "write_sound", fail)
    given = [made / "turn.mkv", "--model", made / "out" / "model"]
    assert run("mvemo", "predict", *given, "--timeline", "--timeline-to", tmp_path / "t") == 2
    assert (tmp_path / "t" / "turn.csv").read_text().count("\n") > 1
    explain = ["explain", *given, "--step", "4", "--width", "4", "--to", tmp_path / "w.html"]
    assert run("mvemo", *explain) == 2
    assert "strongest evidence for " in capsys.readouterr().out
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["turn.csv"]


def test_without_a_nets_weights_the_others_predict(made, capsys, program):
    capsys.readouterr()
    predict = ["predict", made / "turn.mkv", "--model", made / "out" / "model", "--json"]
    (record,) = json.loads(program("mvemo", *predict).out)
    assert record["model"].endswith("/lld")
    (note,) = (note for note in record["notes"] if note.startswith("predicted without effnet: "))
    assert "effnet" in note.partition(": ")[2]


def test_a_clip_without_sound_and_a_wrong_class_are_refused(made, maker, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(SR), SR)
    clip = NewClip("silent.wav", tmp_path / "silent.wav")
    with pytest.raises(BadOption, match=r"silent.wav: .*silent"):
        explain_clip(maker, clip, ExplainSettings())
    with pytest.raises(BadOption, match=r"--of 'sad': expected one of calm, tense"):
        explain_clip(maker, clip, ExplainSettings(output="sad"))
