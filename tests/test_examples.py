"""The scripts of `examples/` do what they say, on small data."""

import csv
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def program(monkeypatch):
    """Put the command mvemo of this environment first."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    monkeypatch.setenv("PATH", path)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Return a folder with three songs of noise."""
    folder = tmp_path_factory.mktemp("library") / "songs"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, 30 * 8000)
        soundfile.write(folder / f"song{i}.wav", noise, 8000)
    return folder


def run(name, *arguments):
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    main(*map(str, arguments))


def test_every_script_is_short_and_listed():
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 6
    for script in scripts:
        assert len(script.read_text().splitlines()) <= 30
        assert f"examples/{script.name}" in page


def test_predicting_and_comparing_models(songs, model, capsys):
    run("predict_folder", songs, model)
    assert len(capsys.readouterr().out.splitlines()) == 3
    run("compare_two_models", songs, model, model)
    assert capsys.readouterr().out == "the models agree on 3 of 3 clips\n"


def test_a_manifest_and_features(tmp_path, capsys):
    for mood in ("calm", "tense"):
        for i in range(6):
            file = tmp_path / "clips" / mood / f"{mood} {i // 2}-{i % 2 + 1}-of-2.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, np.zeros(800), 8000)
    run("manifest_from_folders", tmp_path / "clips", tmp_path / "clips.csv")
    assert "Counter({'calm': 6, 'tense': 6})" in capsys.readouterr().out
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(60, 4)))
    rows = [(f"{i}.wav", ("calm", "tense")[i % 2], f"song {i // 3}") for i in range(60)]
    with (tmp_path / "many.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    arguments = (tmp_path / "many.csv", tmp_path / "mine.npy", tmp_path / "report")
    run("cross_validate_features", *arguments)
    assert (tmp_path / "report" / "report.html").is_file()
    assert "'model': 'mine'" in capsys.readouterr().out


def test_a_timeline(songs, model, tmp_path, capsys):
    run("timeline_of_a_song", songs / "song0.wav", tmp_path / "timelines", model)
    assert capsys.readouterr().out.startswith("the mood changes at ")


def test_learning(songs, model, tmp_path, capsys):
    with (tmp_path / "corrections.csv").open("w", newline="") as file:
        rows = [(songs / f"song{i}.wav", ("Sad", "Fear")[i % 2]) for i in range(3)]
        csv.writer(file).writerows([("path", "label"), *rows])
    run("learn_from_corrections", songs, tmp_path / "corrections.csv", tmp_path / "mine", model)
    assert "3 corrected clips" in capsys.readouterr().out
    assert (tmp_path / "mine" / "model.json").is_file()
