"""The bench of encoders: scores on each set, transfer between sets, and what is left out."""

import csv
import json

import numpy as np
import pytest
from stage_samples import run, tiny_demo

from mvemo.cache import ClipTable, import_feature
from mvemo.manifests import plugins

ENCODERS = """
import torch
from dataclasses import dataclass
from mvemo.extract import BuiltNet, NetCard, NetOptions, VideoInput, profile
from mvemo.manifests import setting

@dataclass(frozen=True)
class Options(NetOptions):
    n_frames: int = setting(2, "Frames.", ge=1)
    size: int = setting(8, "Pixels.", ge=2)

class Colours(BuiltNet):
    modality = "video"
    brings_weights = True
    n_colours = 3

    @classmethod
    def input_of(cls, options):
        return VideoInput(options.n_frames, options.size)

    def build(self, width):
        return self.n_colours

    def prepare(self, raw):
        return raw.float().mean(dim=(1, 2, 3))[:, : self.n_colours] / 255.0

    def embed(self, x):
        return x

@NetCard("rgb", Options, {"paper": profile()})
class Rgb(Colours):
    pass

@NetCard("red", Options, {"paper": profile()})
class Red(Colours):
    n_colours = 1

PLUGINS = {"mvemo.nets": {"rgb": Rgb, "red": Red}}
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the bench with two encoders of pictures."""
    monkeypatch.setattr(plugins, "_FILES", {kind: {} for kind in plugins.KINDS})
    (tmp_path / "encoders.py").write_text(ENCODERS)

    def bench(*options, encoders="rgb,red"):
        base = ["--plugin", tmp_path / "encoders.py", "--out", tmp_path / "out"]
        base += ["--work", tmp_path / "work", "--set", "extract.workers=1", "--folds", 2]
        return run("mvemo", "study", "bench", encoders, *base, *options)

    return bench


def read(path):
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_each_encoder_is_scored_on_each_set_and_between_sets(call, tmp_path, capsys):
    sets = []
    for name in ("one", "two"):
        manifest = tiny_demo(tmp_path / name, clips_per_class=4).root / "manifest.csv"
        manifest.write_text(manifest.read_text().replace("demo (synthetic)", name))
        sets += ["--sets", manifest]
    latex = ["--latex", tmp_path / "table.tex", "--table-label", "tab:bench"]
    assert call(*sets, *latex, "--scheme", "none") == 2
    assert "unknown scheme" in capsys.readouterr().err.lower()
    assert call(*sets, *latex) == 0
    scores = read(tmp_path / "out" / "bench-scores.csv")
    assert [
        (row["set"], row["encoder"]) for row in scores if row["encoder"] != "nested choice"
    ] == [
        ("one", "rgb"),
        ("one", "red"),
        ("two", "rgb"),
        ("two", "red"),
    ]
    assert all(-1 <= float(row["score 1"]) <= 1 for row in scores)
    assert {row["metric 1"] for row in scores} == {"MCC"}
    assert float(scores[0]["seconds per clip"]) > 0
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert set(record["tables"]) >= {"scores"}
    assert "\\label{tab:bench" in (tmp_path / "table.tex").read_text()
    assert "<h1>Encoders on data sets</h1>" in (tmp_path / "out" / "bench.html").read_text()


def test_sets_of_one_name_and_unknown_paths_are_refused(call, tmp_path, capsys):
    manifest = tiny_demo(tmp_path / "one").root / "manifest.csv"
    assert call("--sets", manifest, "--sets", manifest) == 2
    assert "two sets have the same name" in capsys.readouterr().err
    assert call("--sets", "emomv=nosuch") == 2
    assert "nosuch: no such file" in capsys.readouterr().err


def test_feature_files_are_sets_and_their_features_encoders(call, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("here", "there"):
        labels = np.arange(24) % 2
        table = ClipTable(
            name, "multiclass", ("happy", "sad"), tuple(f"{name}{i}" for i in range(24)),
            tuple(f"{name}{i // 2}" for i in range(24)), labels, np.arange(24) // 12, 2,
        )  # fmt: skip
        values = rng.normal(size=(24, 4)) + 3 * labels[:, None]
        import_feature(tmp_path / f"{name}.h5", "theirs", "audio", values, table=table)
    stored = [word for name in ("here", "there") for word in ("--sets", tmp_path / f"{name}.h5")]
    assert call(*stored) == 2
    assert "theirs" in capsys.readouterr().err
    assert call(*stored, encoders="theirs") == 0
    scores = read(tmp_path / "out" / "bench-scores.csv")
    assert [(row["set"], row["encoder"]) for row in scores] == [
        ("here", "theirs"), ("there", "theirs"),
    ]  # fmt: skip
    assert all(float(row["score 2"]) > 0.9 for row in scores)
    assert len(read(tmp_path / "out" / "bench-transfer.csv")) == 2
    manifest = tiny_demo(tmp_path / "demo", clips_per_class=4).root / "manifest.csv"
    assert call(*stored, "--sets", manifest, encoders="theirs") == 2
    assert "no ENCODER is a net" in capsys.readouterr().err
