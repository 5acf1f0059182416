"""The bench of encoders: scores on each set, transfer between sets, and what is left out."""

import csv
import json

import pytest
from stage_samples import run, tiny_demo

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

    def bench(*options):
        base = ["--plugin", tmp_path / "encoders.py", "--out", tmp_path / "out"]
        base += ["--work", tmp_path / "work", "--set", "extract.workers=1", "--folds", 2]
        return run("mvemo", "study", "bench", "rgb,red", *base, *options)

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
