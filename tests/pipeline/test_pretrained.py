"""Nets that find the weights which were fetched for them."""

from pathlib import Path

import numpy as np
import pytest
from stage_samples import run, tiny_demo

from mvemo.cache import open_cache
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import build_net
from mvemo.extract.pretrained import find_package, with_fetched_weights
from mvemo.extract.pretrained.store import keep_weights
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings
from mvemo.extract.training.protocols import make_net

SMALL = {
    "musicnn": (0.1, {"seconds": 3.0}),
    "effnet": (0.1, {"n_frames": 4, "n_used": 2, "size": 32}),
}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of narrow nets, kept as if they had been fetched."""
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    for name, (width, options) in SMALL.items():
        state = build_net(name, 6, width=width, **options).state_dict()
        arrays = {
            key: value.numpy()
            for key, value in state.items()
            if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")
        }
        keep_weights(find_package(name), arrays, "MIT")
    return tmp_path / "home"


@pytest.mark.parametrize("protocol", ["crossfit", "shared", "holdout"])
def test_nets_that_are_trained_start_at_random_unless_told(fetched, protocol):
    run = RunSettings(protocol=protocol)
    assert with_fetched_weights(NetSettings("musicnn"), run).weights == ""
    told = NetSettings("musicnn", weights=FETCHED)
    assert with_fetched_weights(told, run).weights == FETCHED


def test_fetched_weights_are_used_where_frozen_and_no_file_is_named(fetched):
    frozen = RunSettings(protocol="frozen")
    assert with_fetched_weights(NetSettings("musicnn"), frozen).weights == FETCHED
    named = NetSettings("musicnn", weights="mine.npz")
    assert with_fetched_weights(named, frozen) == named
    assert with_fetched_weights(NetSettings("i3d"), frozen).weights == ""


def test_a_net_to_be_trained_can_start_from_them(fetched):
    width, options = SMALL["musicnn"]
    settings = NetSettings("musicnn", width=width, weights=FETCHED, options=options)
    net, report = make_net(settings, 6, RunSettings())
    assert "musicnn/weights.npz" in report.replace("\\", "/")
    with np.load(fetched / "weights" / "musicnn" / "weights.npz") as kept:
        np.testing.assert_array_equal(net.state_dict()["dense.weight"], kept["dense.weight"])
    with pytest.raises(BadWeights, match="run 'mvemo weights get i3d'"):
        make_net(NetSettings("i3d", weights=FETCHED), 6, RunSettings())


def options_of(net: str) -> list[str]:
    width, options = SMALL[net]
    table = ", ".join(f"{key} = {value}" for key, value in options.items())
    return ["--set", f"nets.{net}.width={width}", "--set", f"nets.{net}.options={{{table}}}"]


def test_stage_one_embeds_with_fetched_weights_and_no_option(tmp_path, fetched, capsys):
    tiny_demo(tmp_path / "clips", clips_per_class=1)
    arguments = [
        *("extract", tmp_path / "clips" / "manifest.csv", "--out", tmp_path / "f.h5"),
        *("--work", tmp_path / "work", "--protocol", "frozen", "--nets", "musicnn,effnet"),
        *("--set", "extract.descriptors=[]", "--set", "extract.workers=1"),
        *("--set", "extract.n_frames=4"),
        *options_of("musicnn"),
        *options_of("effnet"),
    ]
    assert run("mvemo", *arguments) == 0
    assert "musicnn/weights.npz" in capsys.readouterr().err
    with open_cache(tmp_path / "f.h5") as cache:
        assert {spec.protocol for spec in cache.specs} == {"frozen"}
        for name, dim in (("musicnn", 20), ("effnet", 256)):
            values, present = cache.vectors(name, None)
            assert present.all()
            assert values.shape[1] == dim
            assert np.isfinite(values).all()


def test_without_weights_the_line_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "none"))
    assert run("mvemo", "extract", "--protocol", "frozen", "--nets", "musicnn") == 2
    line = capsys.readouterr().err.strip()
    assert "fetch them with 'mvemo weights get musicnn', give --weights musicnn=FILE" in line
    assert "\n" not in line
