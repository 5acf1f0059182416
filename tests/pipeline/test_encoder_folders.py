"""Encoders of local folders through the commands: extract, fuse with a model, predict."""

import json

from encoder_samples import save_encoder
from stage_samples import run
from study_samples import make_set

from mvemo.cache import open_cache


def extract(work, manifest, folder):
    """Embed with two layers of an encoder, frozen."""
    settings = ("extract.workers=1", "extract.folds=2", 'extract.descriptors=["times"]')
    options = [part for value in settings for part in ("--set", value)]
    options += ["--protocol", "frozen", "--nets", f"hf:{folder}@1+2", "--work", work]
    return run("mvemo", "extract", manifest, "--profile", "paper", *options)


def test_layers_of_a_folder_are_features_that_fuse_and_predict(tmp_path, capsys):
    manifest = make_set(tmp_path / "set", clips_per_class=2)
    save_encoder(tmp_path / "MERT.small", "hubert")
    work = tmp_path / "work"
    assert extract(work, manifest, tmp_path / "MERT.small") == 0, capsys.readouterr().err
    features = work / "features.h5"
    names = ["MERT_small-layer1", "MERT_small-layer2"]
    with open_cache(features) as cache:
        specs = {spec.name: spec for spec in cache.specs}
        assert set(names) < set(specs)
        assert [specs[name].params["options"]["layer"] for name in names] == [1, 2]
        assert str(tmp_path) not in json.dumps([spec.params for spec in cache.specs])
    # Elsewhere the same folder gives the same keys: the path is in none.
    moved = (tmp_path / "elsewhere") / "MERT.small"
    moved.parent.mkdir()
    (tmp_path / "MERT.small").rename(moved)
    assert extract(work, manifest, moved) == 0
    with open_cache(features) as cache:
        assert {spec.name: spec for spec in cache.specs} == specs

    few = ["--set", "fuse.n_resamples=10"]
    assert run("mvemo", "fuse", features, "--out", tmp_path / "out", "--final", *few) == 0
    capsys.readouterr()
    predict = ["predict", tmp_path / "set" / "sad0.wav", "--model", tmp_path / "out" / "model"]
    weights = [f"--weights={name}={moved}" for name in names]
    assert run("mvemo", *predict, *weights) == 0
    assert "sad0" in capsys.readouterr().out


def test_a_folder_is_described_as_any_net_is(tmp_path, capsys):
    save_encoder(tmp_path / "MERT.small", "hubert")
    save_encoder(tmp_path / "towers", "clip")
    folders = (f"hf:{tmp_path / 'MERT.small'}@1", f"hf:{tmp_path / 'towers'}")
    assert run("mvemo", "nets", *folders) == 0
    text = capsys.readouterr().out
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [
        ["MERT_small-layer1", "audio"],
        ["towers", "video"],
    ]
    assert '"options": {"layer": 1' in text
    assert '"mean": [0.5' in text
