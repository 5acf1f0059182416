"""Encoders of local folders through the commands: extract, fuse with a model, predict."""

import json
import sys

import numpy as np
from encoder_samples import save_encoder
from stage_samples import run, set_options
from study_samples import make_set

from mvemo.cache import open_cache


def extract(work, nets, *more):
    """Make a set next to the work folder once, and embed it with frozen encoders."""
    manifest = work.with_name("set") / "manifest.csv"
    if not manifest.exists():
        assert make_set(work.with_name("set"), clips_per_class=2) == manifest
    settings = ("extract.workers=1", "extract.folds=2", 'extract.descriptors=["times"]', *more)
    options = [*set_options(*settings), "--protocol", "frozen", "--nets", nets, "--work", work]
    assert run("mvemo", "extract", manifest, *options) == 0
    return work / "features.h5"


def test_layers_of_a_folder_are_features_that_fuse_and_predict(tmp_path, capsys):
    save_encoder(tmp_path / "MERT.small", "hubert")
    features = extract(tmp_path / "work", f"hf:{tmp_path / 'MERT.small'}@1+2")
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
    extract(tmp_path / "work", f"hf:{moved}@1+2")
    with open_cache(features) as cache:
        assert {spec.name: spec for spec in cache.specs} == specs

    few = ["--set", "fuse.n_resamples=10"]
    assert run("mvemo", "fuse", features, "--out", tmp_path / "out", "--final", *few) == 0
    capsys.readouterr()
    predict = ["predict", tmp_path / "set" / "sad0.wav", "--model", tmp_path / "out" / "model"]
    # One --weights names the folder of all layers.
    assert run("mvemo", *predict, f"--weights=MERT_small={moved}") == 0
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


HEAR = """
import torch

print("imported", __name__)


class Model(torch.nn.Module):
    sample_rate, scene_embedding_size = 8000, 2


def load_model(path=""):
    return Model()


def get_scene_embeddings(audio, model):
    return torch.stack([audio.std(dim=1), audio.diff(dim=1).std(dim=1)], dim=1)
"""


def test_a_module_of_hear_is_imported_only_when_it_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hear_named.py").write_text(HEAR)
    features = extract(tmp_path / "work", "hear:hear_named")
    fuse = ["fuse", features, "--out", tmp_path / "out", "--final"]
    assert run("mvemo", *fuse, "--set", "fuse.n_resamples=10") == 0
    capsys.readouterr()
    del sys.modules["hear_named"]
    predict = ["predict", tmp_path / "set/sad0.wav", "--model", tmp_path / "out/model"]
    assert run("mvemo", *predict) == 2
    shown = capsys.readouterr()
    assert "give it with --weights hear_named=hear:hear_named" in shown.err
    assert "imported" not in shown.out
    assert run("mvemo", *predict, "--weights", "hear_named=hear:hear_named") == 0
    assert "sad0" in capsys.readouterr().out


def test_all_layers_are_one_feature_in_half_precision(tmp_path):
    save_encoder(tmp_path / "MERT", "hubert")
    names = [f"hf:{tmp_path / 'MERT'}@all", f"hf:{tmp_path / 'MERT'}@2"]
    # A setting of the encoder is one of all its nets.
    more = "nets.MERT.options.pooling=mean+std"
    with open_cache(extract(tmp_path / "work", ",".join(names), more)) as cache:
        specs = {spec.name: spec for spec in cache.specs}
        spec = specs["MERT-layers"]
        assert (spec.dim, spec.dtype, spec.params["layers"]) == (64, "<f2", [0, 1, 2, 3])
        values, present = cache.vectors("MERT-layers")
        second, _ = cache.vectors("MERT-layer2")
    assert values.dtype == np.float32
    assert present.all()
    np.testing.assert_allclose(values[:, 32:48], second, rtol=1e-3, atol=1e-4)
