"""The models that come with mvemo: what their files hold, and that this version can run them."""

import json
import re

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets import build_net
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests.dimensions import QUADRANTS
from mvemo.pipeline import cli
from mvemo.pipeline.desk.serve.library import place_on_map
from mvemo.pipeline.model_nets import NET_PREFIX, plan_of
from mvemo.pipeline.models.boxed import (
    DEFAULT,
    OF_SOUND,
    boxed_names,
    card_text,
    model_folder,
)
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import PredictSettings
from mvemo.pipeline.prediction.wording import legend

NAMES = ("film-music", "music-video", "songs")


def test_all_are_in_the_box():
    assert boxed_names() == list(NAMES)
    assert {DEFAULT, OF_SOUND} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_small_and_holds_no_path_of_the_machine_that_made_it(name):
    files = [path for path in model_folder(name).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_200_000
    assert max(path.stat().st_size for path in files) < 1_000_000
    text = (model_folder(name) / "model.json").read_text(encoding="utf-8")
    assert re.findall(r'["\s=](?:/|[A-Z]:\\)[\w.-]+', text) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_a_card(name):
    model = load_model(model_folder(name))
    about = model.facts["about"]
    assert {"title", "data", "groups", "licence", "choices", "use", "avoid"} <= set(about)
    assert set(about.get("scale", {})) == set(model.scale)
    card = card_text(name, model_folder(name))
    first = model.predictors[0]
    alarms = model.alarm(model.predictors[0])["false_alarms"]
    assert max(alarms.values()) <= 0.05
    assert f"are called unlike them: {alarms['plain']:.1%} (plain)" in " ".join(card.split())
    closing = "\n".join(legend(model, [ClipPrediction("a.mp3", predictor=first)]))
    if name == "songs":
        # What was measured on each kind of music, by models made of the others.
        for kind, scores in first.expected["per_group"].items():
            assert scores["r arousal"][0] > 0.65
            assert f"on {kind}" in " ".join(card.split())
            assert f"on {kind}" in closing
        return
    nested = model.facts["nested"]
    assert nested["interval"][0] < nested["mean"] < nested["interval"][1]
    assert f"Expect {nested['mean']:.3f}" in card
    # One figure everywhere: that of the table, without the cost of choosing, is promised nowhere.
    assert nested["model"] == first.name
    assert model.expected_of(first) == nested
    assert f"{nested['mean']:.3f}" in closing
    if f"{first.expected['mean']:.3f}" != f"{nested['mean']:.3f}":
        assert f"{first.expected['mean']:.3f}" not in closing


@pytest.mark.parametrize("name", NAMES)
def test_this_version_makes_the_features_of_a_model(name):
    model = load_model(model_folder(name))
    # Descriptors of another version are refused here.
    FeatureMaker(model_folder(name), PredictSettings(device="cpu"))
    for spec in model.specs:
        if spec.extractor.startswith(NET_PREFIX):
            plan = plan_of(spec)
            net = build_net(plan.name, 2, width=plan.width, **plan.options)
            assert net.version == spec.version
            assert net.preprocessing() == spec.params["preprocessing"]


def test_sound_is_predicted_also_without_a_network(tmp_path, monkeypatch):
    def fail(package, **_):
        raise FetchFailed("no network")

    monkeypatch.setattr("mvemo.extract.pretrained.get_weights", fail)
    # Without weights that were fetched before.
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 16_000)
    soundfile.write(tmp_path / "song.wav", noise, 16_000)
    done = CliRunner().invoke(cli.mvemo, ["predict", str(tmp_path / "song.wav"), "--json"])
    (record,) = json.loads(done.stdout)
    assert record["model"] == f"{OF_SOUND}/lld"
    assert {*record["values"]} == {"valence", "arousal"}
    assert record["quadrant"] in QUADRANTS
    assert "no network" in done.stderr
    assert f"using the model {OF_SOUND}" in done.stderr


def test_valence_and_arousal_stand_beside_classes(tmp_path, monkeypatch):
    # By descriptors only, as no weights can be fetched.
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mvemo.pipeline.model_nets.fetch_model_weights", lambda *_, **__: None)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 16_000)
    soundfile.write(tmp_path / "song.wav", noise, 16_000)
    records = []
    for name in ("songs", "music-video"):
        call = ["predict", str(tmp_path / "song.wav"), "--model", name, "--json"]
        records += json.loads(CliRunner().invoke(cli.mvemo, call).stdout)
    ratings = {name: value["value"] for name, value in records[0]["values"].items()}
    assert records[1]["plane"] == pytest.approx(ratings)
    assert place_on_map(
        load_model(model_folder("music-video")), ClipPrediction.of_record(records[1])
    ) == pytest.approx([(ratings[name] + 1) / 2 for name in ("valence", "arousal")])
