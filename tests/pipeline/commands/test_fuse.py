"""`mvemo cv` on dimensions and tags, and `mvemo compare`, as a user runs them."""

import json

import numpy as np
import pytest
from stage_samples import run

from mvemo.fuse import load_heads
from mvemo.manifests import Clip, Manifest, write_manifest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    y = np.tanh(x[:, :2] + 0.5 * rng.normal(size=(60, 2)))
    pairs = enumerate(y.tolist())
    clips = tuple(Clip(f"clip {i}", f"{i}.mp3", (*p,), group=f"song {i // 2}") for i, p in pairs)
    manifest = folder / "clips.csv"
    write_manifest(Manifest("made", "regression", ("arousal", "valence"), clips, folder), manifest)
    path = folder / "features.h5"
    arguments = ["cache", "import", path, "--manifest", manifest, "--feature", "made"]
    np.save(folder / "x.npy", x)
    np.save(folder / "noise.npy", rng.normal(size=(60, 5)))
    assert run("mvemo", *arguments, "--modality", "audio", folder / "x.npy") == 0
    arguments[-1] = "noise"
    assert run("mvemo", *arguments, "--modality", "video", folder / "noise.npy") == 0
    return path


def test_dimensions_from_import_to_heads_and_comparison(cache, tmp_path, program):
    settings = ["--folds", "3", "--set", "fuse.n_resamples=50"]
    program("mvemo", "fuse", cache, *settings, "--out", tmp_path / "a")
    held = json.loads((tmp_path / "a" / "metrics.json").read_text())
    made, noise = (held["models"][name]["r2_macro"]["mean"] for name in ("made", "noise"))
    assert made > 0.3 > noise
    heads = load_heads(tmp_path / "a" / "heads.npz")
    assert {h.link for h in heads.heads} == {"identity"}

    weak = ["--set", "fuse.C=0.0001", "--set", "fuse.choose_C=false"]
    program("mvemo-cv", cache, *settings, *weak, "--out", tmp_path / "b")
    assert not (tmp_path / "b" / "heads.npz").exists()
    to = ["--out", tmp_path / "c", "--markdown", tmp_path / "c.md", "--resamples", "100"]
    shown = program("mvemo", "compare", tmp_path / "a", tmp_path / "b", *to).out
    compared = json.loads((tmp_path / "c" / "comparison.json").read_text())
    made = next(d for d in compared["differences"] if d["model"] == "made")
    assert made["interval"][1] < 0
    lines = (tmp_path / "c.md").read_text().splitlines()
    row, by_r = (line for line in lines if line.startswith("| b:made |"))
    assert f"| R2 | {made['mean']:+.3f} [" in row
    assert f"| mean r | {made['by_field']['mean']:+.3f} [" in by_r
    assert "| a:made | **" in row
    table, _, path = shown.partition("\n\ncomparison: ")
    assert (tmp_path / "c" / "comparison.txt").read_text() == f"{table}\n"
    assert path == f"{tmp_path / 'c' / 'comparison.json'}\n"
    predictions = tmp_path / "b" / "predictions.csv"
    error = program("mvemo", "compare", tmp_path / "a", predictions, ends=2).err
    assert f"'mvemo report --predictions {predictions}" in error
    # A run that is made of its predictions alone is compared like any other.
    told = ("--predictions", predictions, "--task", "regression", "--out", tmp_path / "told")
    program("mvemo", "report", *told)
    to = ["--out", tmp_path / "d", "--resamples", "100"]
    program("mvemo", "compare", tmp_path / "a", tmp_path / "told", *to)
    reported = json.loads((tmp_path / "d" / "comparison.json").read_text())
    others = next(d for d in reported["differences"] if d["model"] == "made")
    assert others["interval"] == pytest.approx(made["interval"], abs=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "fuse.class_weight=balanced"], "class_weight 'balanced' of heads needs the"),
        (["--song-level"], "--song-level needs the task multiclass, got regression"),
    ],
)
def test_what_only_classes_have_is_refused(cache, tmp_path, program, options, said):
    words = ("mvemo-cv", cache, "--folds", "3", "--out", tmp_path / "o", *options)
    (error,) = program(*words, ends=2).err.strip().splitlines()
    assert said in error
    assert not (tmp_path / "o").exists()


def test_ratings_have_repeats_and_learning_curves(cache, tmp_path, program):
    arguments = ["--folds", "3", "--repeats", "2", "--learning-curve", "--out", tmp_path / "o"]
    settings = ["--set", "fuse.choose_C=true", "--set", "fuse.n_resamples=50"]
    assert "integrated-stacked" in program("mvemo-cv", cache, *arguments, *settings).out
    held = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert held["provenance"]["settings"]["head"]["choose_C"] is True
    assert len(held["repeats"]) == 2
    assert {"fraction", "clips", "r2_macro", "deviation"} == set(held["learning_curve"]["made"][0])
