"""The functions of `import mvemo`: they do what the commands do."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stage_samples import TINY, run, tiny_demo
from typed_records import misfits

import mvemo
from mvemo.cache import import_feature
from mvemo.fuse import PredictionRecord
from mvemo.manifests import folds_of, write_manifest
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.notebook import WrongType

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_page_s_first_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = tiny_demo(tmp_path / "media")
    write_manifest(manifest, tmp_path / "clips.csv")
    (tmp_path / "clips").symlink_to(manifest.media_path(manifest.clips[0]).parent)
    rng = np.random.default_rng(0)
    soundfile.write("song.wav", rng.uniform(-0.5, 0.5, 22050), 22050)
    (block,) = re.findall(r"```python\n(import mvemo.*?)```", PAGE.read_text(), re.DOTALL)
    block = block.replace('"pretrained"', f'"paper", settings={list(TINY)}')
    before, last = block[: block.index("records")], block[block.index("records") :]
    names: dict = {}
    exec(before, names)
    summary, results = names["summary"], names["results"]
    assert summary.path == Path("work/features.h5")
    assert set(summary.features) >= {"music1d", "c3d"}
    assert results.k == 2
    # The command evaluates them alike.
    assert run("mvemo", "fuse", summary.path, "--final") == 0
    models = json.loads(Path("out/metrics.json").read_text())["models"]
    scores = {m.name: m.scores["accuracy"] for m in results.models}
    assert scores == {name: models[name]["accuracy"]["pooled"] for name in models}
    exec(last.replace("])", '], model="out/model")'), names)
    song, *videos = names["records"]
    assert song["path"] == "song.wav"
    assert {video["label"] for video in videos} <= set(manifest.classes)
    (first, *_), features = mvemo.predict(summary.path, "out/model"), names["records"][1]
    asked = mvemo.predict(summary.path, "out/model", coverage=0.9)
    assert json.loads(json.dumps(asked))[0]["coverage"] == 0.9
    assert "<td>" in asked._repr_html_()
    assert misfits([*asked, *names["records"]], list[PredictionRecord]) == []
    assert first["proba"] == pytest.approx(features["proba"], abs=1e-5)


def test_packages_are_there_after_import_mvemo_alone():
    # In this order: each imports those before it, if any.
    code = "import mvemo; print(mvemo.manifests, mvemo.cache, mvemo.fuse, mvemo.extract)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_clip_table_has_the_folds_that_are_asked_for(tmp_path):
    manifest = tiny_demo(tmp_path)
    assert mvemo.load(manifest.root / "manifest.csv").digest == manifest.digest
    assert len(mvemo.load(manifest.root / "media")) == len(manifest)
    assert mvemo.clip_table(manifest).k == 0
    assert mvemo.clip_table(manifest.root / "manifest.csv").clip_ids == manifest.clip_ids
    folds = folds_of(manifest, 2)
    for table in (mvemo.clip_table(manifest, 2), mvemo.clip_table(manifest, folds)):
        assert table.clip_ids == manifest.clip_ids
        np.testing.assert_array_equal(table.folds, folds.assignment)


def test_names_and_options_that_are_not_there_name_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'foo'.*predict"):
        mvemo.foo  # noqa: B018
    assert set(mvemo.__all__) <= set(dir(mvemo))
    with pytest.raises(BadOption, match="modality 'smell': expected 'audio', 'video' or 'both'"):
        mvemo.predict(["song.mp3"], modality="smell")
    with pytest.raises(BadOption, match=r"extract\.fold: unknown setting"):
        mvemo.extract("clips.csv", settings="extract.fold=4")


class Frame:
    """What a data frame has that a list of paths does not."""

    columns, to_csv = ("path",), None

    def __iter__(self):
        return iter(self.columns)


class Opened:
    path = Path("features.h5")


WRONG = [None, 5, 0.5, b"a.csv", {}, [3], io.BytesIO(b"x"), Frame(), np.zeros(3), Opened()]
HINTS = {
    io.BytesIO: ": write its content to a file",
    Frame: r": write it with to_csv\(FILE",
    Opened: ": give its attribute path",
}
FUNCTIONS = ("load", "clip_table", "extract_features", "audit", "evaluate", "predict")


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_arguments_of_a_wrong_type_are_one_line(function, value):
    got = "(int|float64)" if function == "predict" and type(value) in (list, np.ndarray) else ""
    expected, hint = "(a path|paths)", HINTS.get(type(value), "$")
    if function == "evaluate":
        expected, hint = "the path of a feature file, or features with their labels y", "$"
    words = f": expected {expected}, got {got or type(value).__name__}"
    with pytest.raises(TypeError, match=words + hint) as caught:
        getattr(mvemo, function)(value)
    assert isinstance(caught.value, WrongType)


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800.csv"])
@pytest.mark.parametrize("function", FUNCTIONS[:-1])
def test_texts_that_are_no_path(function, text):
    with pytest.raises(BadOption, match="cannot be a path"):
        getattr(mvemo, function)(text)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"settings": 5}, "settings: expected key=value, or a mapping, got int"),
        ({"settings": [("fuse.C", 1)]}, "settings: expected key=value, or a mapping, got tuple"),
        ({"settings": {"fuse.C": None}}, "fuse.C: expected a number, got 'null'"),
        ({"settings": {"fuse": {"C": 10**400}}}, "expected a finite number, got 1000"),
        ({"profile": {}}, "profile: expected a path, got dict"),
        ({"model": 5}, "model: expected a path, got int"),
        ({"weights": ["a"]}, "weights: expected a mapping of nets to paths, got list"),
        ({"weights": {"musicnn": 5}}, "weights of musicnn: expected a path, got int"),
        ({"coverage": "0.9"}, "coverage: expected a number, got str"),
        ({"device": None}, "unknown device 'None'; expected auto, cpu"),
        ({"folds": "5"}, "folds: expected Folds or their number, got str"),
    ],
)
def test_options_of_a_wrong_type_are_one_line(features, options, reason, capfd):
    name = next(iter(options))
    function = {"settings": "evaluate", "profile": "evaluate", "folds": "clip_table"}
    first = (
        mvemo.load(features.with_name("clips.csv"), media=False) if name == "folds" else features
    )
    if name in ("weights", "device"):
        first = "song.wav"
    with pytest.raises(ValueError if "digits" in reason else Exception) as caught:
        getattr(mvemo, function.get(name, "predict"))(first, **options)
    assert reason in str(caught.value)
    assert type(caught.value).__module__.startswith("mvemo.")
    assert capfd.readouterr() == ("", "")


def test_settings_are_texts_or_a_mapping(features, capfd):
    results = [
        mvemo.evaluate(features, settings=settings)
        for settings in (
            ["fuse.n_resamples=20", "fuse.kernel=false", "fuse.C=0.5"],
            {"fuse.n_resamples": 20, "fuse.kernel": False, "fuse.C": 0.5},
            {"fuse": {"n_resamples": np.int64(20), "kernel": np.bool_(False), "C": 0.5}},
        )
    ]
    assert len({json.dumps(one.records()) for one in results}) == 1
    assert len(results[0].models) == 1
    assert capfd.readouterr() == ("", "")


def test_arrays_have_the_scores_of_the_command(features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("mvemo-cv", features, "--set", "fuse.n_resamples=50", "--repeats", 2) == 0
    models = json.loads(Path("out/metrics.json").read_text())["models"]
    with mvemo.open_features(features) as cache:
        X, table = cache.vectors("timbre")[0], cache.table
    y = [table.classes[i] for i in table.labels]
    results = mvemo.evaluate(
        {"audio:timbre": X}, y, table.groups, settings="fuse.n_resamples=50", repeats=2
    )
    assert {model.name for model in results.models} == {*models}
    for model in results.models:
        stated = models[model.name]["accuracy"]
        assert stated["mean"] == results.primary_mean(model)
        assert stated["pooled"] == model.scores["accuracy"]
        stated = models[model.name]["intervals"]["primary"]
        assert stated == [*model.intervals["primary"]]
    assert "<td>timbre</td>" in results._repr_html_()


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature file next to files of clips, without media."""
    folder = tmp_path_factory.mktemp("features")
    rows = [f"{i}.wav,{('calm', 'tense')[i % 2]},singer{i // 2}" for i in range(16)]
    (folder / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    table = mvemo.clip_table(mvemo.load(folder / "clips.csv", media=False))
    values = np.random.default_rng(0).normal(size=(16, 4))
    import_feature(folder / "features.h5", "timbre", "audio", values, table=table)
    return folder / "features.h5"
