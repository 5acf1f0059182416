"""`mvemo models`: models by name, the cards of these and others, and the file that cards are of."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from feature_samples import frozen_cache, make_table

from mvemo.extract.errors import FetchFailed
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline import cli
from mvemo.pipeline.model_nets import fetch_model_weights
from mvemo.pipeline.models import boxed
from mvemo.pipeline.models.boxed import card_text, model_folder, pick_model, read_about

ABOUT = """
title = "Moods of invented songs"
data = "Songs that were never sung"
licence = "MIT"
citations = ["Nobody (2026). Nothing."]
avoid = ["Deciding about people"]
[elsewhere]
"film music" = "16 % of 150 clips are right"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model, ``box/moods``, made with a file about it."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "about.toml").write_text(ABOUT)
    features = frozen_cache(folder / "features.h5", make_table())
    arguments = [str(features), "--out", str(folder / "out"), "--models", "music1d,i3d"]
    arguments += ["--final-to", str(folder / "box" / "moods"), "--about"]
    arguments += [str(folder / "about.toml"), "--set", "fuse.n_resamples=20"]
    done = CliRunner().invoke(cli.mvemo, ["fuse", *arguments])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def box(made, monkeypatch):
    """That folder as the box, with its model as the default."""
    monkeypatch.setattr(boxed, "FOLDER", made / "box")
    monkeypatch.setattr(boxed, "DEFAULT", "moods")
    return made / "box"


def test_a_card_says_what_the_file_says_and_how_good_the_model_is(made):
    folder = made / "box" / "moods"
    card = card_text("moods", folder)
    for text in (
        "Moods of invented songs",
        "never sung",
        "MIT",
        "- Deciding about people",
        "On film music: 16 %",
    ):
        assert text in card
    assert max(map(len, card.splitlines()[:-1])) <= max(79, len(str(folder)) + 20)
    predictors = json.loads((folder / "model.json").read_text())["predictors"]
    for predictor in predictors:
        assert f"{predictor['expected']['mean']:.3f}" in card
        assert f"{predictor['expected']['scores']['mcc']:.3f}" in card
    assert "95 % interval    MCC" in card
    low, high = predictors[0]["expected"]["interval"]
    assert f"{low:.3f} to {high:.3f}" in card
    for scores in predictors[0]["expected"]["per_output"].values():
        assert f"{scores['recall']:.3f}" in card


def test_models_are_listed_and_printed(box):
    listed = CliRunner().invoke(cli.mvemo, ["models"]).stdout
    assert listed.startswith("\n".join(boxed.summary_lines("moods", box / "moods")))
    assert "uses moods; --model selects" in listed
    printed = CliRunner().invoke(cli.mvemo, ["models", "moods"]).stdout
    assert printed == card_text("moods", box / "moods") + "\n"


def test_a_name_is_of_the_box_unless_a_folder_has_a_model(box, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder("moods") == box / "moods"
    (tmp_path / "moods").mkdir()
    assert model_folder("moods") == box / "moods"
    (tmp_path / "moods" / "model.json").touch()
    assert model_folder("moods") == Path("moods")
    with pytest.raises(BadOption, match="--model mood: expected a folder, or one of moods"):
        model_folder("mood")
    assert model_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("has_pictures", "task", "name", "told"),
    [
        ((), "", "songs", "using the model songs; others"),
        ((False, False), "", "songs", "using the model songs; others"),
        ((True, True), "", "moods", "using the model moods; others"),
        ((True, False, True), "", "songs", "2 of 3 files have pictures, which --model moods reads"),
        ((False,), "multiclass", "moods", "using the model moods"),  # as the corrections
        ((True,), "regression", "songs", "using the model songs"),
        ((False,), "multilabel", "songs", "using the model songs"),
    ],
)
def test_the_default_is_by_the_kind_of_the_files(
    has_pictures, task, name, told, tmp_path, monkeypatch, capsys
):
    for folder in ("songs", "moods", "film"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.json").touch()
    monkeypatch.setattr(boxed, "FOLDER", tmp_path)
    monkeypatch.setattr(boxed, "DEFAULT", "moods")
    tasks = {"songs": "regression", "moods": "multiclass"}
    monkeypatch.setattr(boxed, "load_model", lambda path: SimpleNamespace(task=tasks[path.name]))
    assert pick_model("film") == tmp_path / "film"
    assert capsys.readouterr().err == ""
    assert pick_model(None, has_pictures, task) == tmp_path / name
    assert told in capsys.readouterr().err
    (tmp_path / "songs" / "model.json").unlink()  # as long as there is no such model
    assert pick_model(None, has_pictures, task) == tmp_path / "moods"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 1", "title: expected a sentence, got 1"),
        ('avoid = "all"', "avoid: expected a list of sentences, got 'all'"),
        ("scale = {valence = 2}", "expected a table of sentences"),
        ('colour = "red"', "unknown key 'colour'; expected one of title, data"),
        ("title = ", "not TOML"),
    ],
)
def test_a_file_about_a_model_that_is_wrong(text, message, tmp_path):
    (tmp_path / "about.toml").write_text(text)
    with pytest.raises(MvemoError, match=message):
        read_about(tmp_path / "about.toml")


def test_missing_weights_are_fetched_until_there_is_no_network(made, monkeypatch, capsys):
    folder = made / "box" / "moods"
    asked = []

    def fetch(package, **_):
        asked.append(package.net)  # type: ignore[attr-defined]
        raise FetchFailed("no network")

    monkeypatch.setattr("mvemo.extract.pretrained.get_weights", fetch)
    # Of its nets, music1d and i3d, one has public weights.
    fetch_model_weights(folder, ("audio", "video"))
    assert asked == ["i3d"]
    assert "without i3d: no network" in capsys.readouterr().err
    fetch_model_weights(folder, ("audio", "video"), but=["i3d"])
    fetch_model_weights(folder, ("audio",))
    assert asked == ["i3d"]


@pytest.mark.parametrize("name", boxed.boxed_names())
def test_the_library_of_the_hub_reads_task_data_and_score(name, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    folder = tmp_path / name
    shutil.copytree(model_folder(name), folder)
    boxed.write_hub_card(folder, name)
    card = hub.ModelCard.load(folder / "README.md")
    model = load_model(folder)
    assert card.data.library_name == "mvemo"
    assert set(model.classes) <= set(card.data.tags)
    (result,) = card.data.eval_results
    expected = model.expected_of(model.predictors[0])
    assert (result.metric_value, result.metric_type) == (expected["mean"], expected["metric"])
    assert "Cross-validated scores" in card.text
