"""The study of robustness: finished models on degraded copies of clips."""

import csv
import shutil

import numpy as np
import pytest
import soundfile
from stage_samples import refusal, run
from study_samples import make_set, read_tables, tiny_options

DEGRADATIONS = "noise-0,level-25,mp3-64k,fps-5,mono"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of tiny sounds, and new clips of 12 groups like the training clips."""
    folder = tmp_path_factory.mktemp("robust")
    train = make_set(folder / "train", clips_per_class=4)
    more = tiny_options('extract.descriptors=["mfcc"]', 'extract.nets=["rnn"]')
    assert run("mvemo", "extract", train, "--work", folder / "work", *more) == 0
    features = folder / "work" / "features.h5"
    quick = ("--set", "fuse.n_resamples=0")
    assert run("mvemo", "fuse", features, "--final", "--out", folder / "out", *quick) == 0
    make_set(folder / "new", clips_per_class=12)
    return folder


def study(folder, clips, out, *options):
    model = ("--models", folder / "out" / "model")
    return run("mvemo", "study", "robustness", clips, "--out", out, *model, *options)


def test_decisions_that_turn_and_scores_are_counted(made, tmp_path, capsys):
    degradations = ("--degradations", DEGRADATIONS)
    assert study(made, made / "new" / "manifest.csv", tmp_path, *degradations) == 0
    assert "decisions" in capsys.readouterr().out
    record = read_tables(tmp_path, "robustness")
    rows = {row[2]: row[3:] for row in record["tables"]["decisions"]["rows"]}
    # A file of sound has no frame rate.
    assert {*rows} == {"noise-0", "level-25", "mp3-64k", "mono"}
    # Sound is brought to one loudness.
    assert rows["level-25"][1] == 0
    n, turned, low, high, _, change, *ends = rows["mono"]
    assert (n, turned, change, ends) == (48, 0, 0, [0, 0])
    assert low == 0 < high < 0.3
    n, turned, low, high, _, change, *ends = rows["noise-0"]
    assert 0 < low < turned < high
    assert ends[0] <= change <= ends[1]
    moved = {row[2]: row[3] for row in record["tables"]["nets"]["rows"] if row[1] == "rnn"}
    assert moved["noise-0"] > moved["mp3-64k"] > moved.get("level-25", 0)
    assert record["data"]["division"] == "nothing is trained"
    assert record["failures"] == {}
    assert {path.name for path in tmp_path.iterdir()} == {
        "robustness.json", "robustness.html", "robustness-decisions.csv", "robustness-nets.csv"
    }  # fmt: skip
    with (tmp_path / "robustness-decisions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(rows)


def test_a_folder_without_labels_and_with_a_bad_file(made, tmp_path, capsys):
    folder = tmp_path / "songs"
    folder.mkdir()
    for name in ("happy0", "sad1", "calm2"):
        shutil.copy(made / "new" / f"{name}.wav", folder)
    (folder / "text.mp3").write_text("no sound at all")
    soundfile.write(folder / "silent.wav", np.zeros(8000), 8000)
    options = ("--degradations", "level-6", "--clips", "5")
    assert study(made, folder, tmp_path / "out", *options) == 0
    record = read_tables(tmp_path / "out", "robustness")
    ((*_, n, _, low, high, score, change, _, _),) = record["tables"]["decisions"]["rows"]
    # Fewer than eight groups have no interval, and without labels there is no score.
    assert (n, low, high, score, change) == (3, None, None, None, None)
    assert list(record["failures"]) == ["silent", "text"]
    assert "2 clips could not be used" in capsys.readouterr().err
    assert study(made, folder, tmp_path / "out", *options, "--strict") == 1


def test_clips_are_sampled_by_seed_and_settings_come_from_a_file(made, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\nrun = "robustness"\ntrains = false\n'
        f'[options.models]\ntype = "words"\ndefault = "{made / "out" / "model"}"\n'
        '[options.degradations]\ntype = "words"\ndefault = "level-6"\n'
        "[options.clips]\ndefault = 3\n"
    )
    found = []
    for seed in ("1", "1", "2"):
        place = ("--out", tmp_path / "out", "--seed", seed)
        manifest = made / "new" / "manifest.csv"
        assert run("mvemo", "study", "run", tmp_path / "mine.toml", manifest, *place) == 0
        found.append(read_tables(tmp_path / "out", "mine"))
        assert found[-1]["tables"]["decisions"]["rows"][0][3] == 3
        assert f"3 of 48 clips, chosen at random with seed {seed}." in found[-1]["notes"]
    assert found[0]["tables"] == found[1]["tables"]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--degradations", "mp3-64k,mp4-64k", "mp4-64k"),
        ("--degradations", "", "at least one"),
        ("--models", "nothing-here", "nothing-here"),
    ],
)
def test_bad_options_are_refused_in_one_line(made, tmp_path, capsys, option, value, expected):
    manifest = made / "new" / "manifest.csv"
    place = ("--out", tmp_path)
    assert run("mvemo", "study", "robustness", manifest, *place, option, value) == 2
    assert expected in refusal(capsys)
