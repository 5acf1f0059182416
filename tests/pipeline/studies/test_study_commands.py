"""Every study runs on a small made set: tables, files, honest folds, bad input."""

import csv
import pickle
import re
from importlib import import_module

import pytest
import torch
from encoder_samples import save_encoder
from stage_samples import refusal, run
from study_samples import conduct, make_set, read_tables

from mvemo.extract.settings import LOSSES
from mvemo.extract.training import trainer as fine_tuning
from mvemo.extract.workers import pool
from mvemo.extract.workers.process import CallResult
from mvemo.manifests import read_manifest
from mvemo.pipeline.studies import result
from mvemo.pipeline.studies.commands import option_values

# Study -> its own options, and what the first column of one of its tables has.
STUDIES = {
    "segments": (("--seconds", "0.3,0.5", "--nets", "cnn"), "accuracy", ["cnn"] * 2),
    "losses": (("--net", "cnn"), "scores", ["softmax", "angular", "centre", "improved"]),
    "convnets": ((), "accuracy", ["cnn", "lightcnn", "crnn"]),
    "iterations": (("--net", "rnn", "--iterations", "5"), "loss", [1, 2, 3, 4, 5]),
    "baselines": (
        ("--runs", "2", "--rnn-runs", "1"),
        "accuracy",
        ["SVM", "SVM", "decision", "k", "multilayer", "logistic", "linear", "MFCC", "majority"],
    ),
    "optimizers": (("--nets", "music1d"), "scores", ["music1d"] * 3),
    "j22": (
        ("--nets", "cnn,crnn", "--seconds", "0.4", "--iterations", "4", "--ablations", "alpha"),
        "scores",
        ["cnn"] + ["crnn"] * 5,
    ),
}


@pytest.fixture(scope="module")
def made(small_set, tmp_path_factory):
    return small_set, tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_prints_and_writes_its_tables(study, made, capsys):
    manifest, folder = made
    own, table, firsts = STUDIES[study]
    assert conduct(study, manifest, folder, "--latex", folder / "t.tex", *own) == 0
    printed = capsys.readouterr().out
    out = folder / study
    record = read_tables(out, study)
    rows = record["tables"][table]["rows"]
    assert len(rows) == len(firsts)
    for row, first in zip(rows, firsts, strict=True):
        assert str(row[0]).startswith(str(first))
        assert len(row) == len(record["tables"][table]["columns"])
    assert [record["data"][key] for key in ("clips", "groups", "synthetic")] == [16, 4, True]
    if any("published" in c for t in record["tables"].values() for c in t["columns"]):
        assert "published, other data" in printed
    page = (out / f"{study}.html").read_text()
    assert "<svg role=" in page
    assert "SYNTHETIC DATA" in page
    assert not re.search(r"(src|href)=.?http", page)
    for name, each in record["tables"].items():
        assert each["title"] in printed
        with (out / f"{study}-{name}.csv").open(newline="") as file:
            assert len(list(csv.reader(file))) == 1 + len(each["rows"])
    pictures = list(out.glob("*.png"))
    assert pictures
    assert all(p.with_suffix(".svg").is_file() for p in pictures)
    if study == "baselines":
        assert "majority class & " in (folder / "t.tex").read_text()
        by_name = {row[0]: row[1] for row in rows}
        assert by_name["SVM, linear kernel"] > 0.9
        assert by_name["linear regression, quadrant"] > 0.7
        assert by_name["majority class"] <= 0.25


CLASSICAL = ("--runs", "1", "--rnn-runs", "0")


def test_permuted_labels_are_said_so_and_no_model_tells_them(tmp_path):
    manifest = make_set(tmp_path / "set", clips_per_class=16, seconds=0.3)
    options = ("--runs", "3", "--rnn-runs", "0", "--permute-labels")
    assert conduct("baselines", manifest, tmp_path, *options) == 0
    record = read_tables(tmp_path / "baselines", "baselines")
    assert record["permuted_labels"]
    assert "PERMUTED LABELS" in (tmp_path / "baselines" / "baselines.html").read_text()
    for row in record["tables"]["accuracy"]["rows"]:
        # 64 clips of four classes: four standard deviations above chance are 0.47.
        assert row[1] < 0.47, row


def test_nets_read_segments_unless_whole_clips_are_asked_for(small_set, tmp_path, capsys):
    # Clips of 0.8 s, of which the net would read 0.4.
    settings = ("nets.rnn.epochs=1", "nets.rnn.options={n_frames=12}")
    found = {}
    for seconds in ("0.3", "0"):
        options = ("--nets", "rnn", "--seconds", seconds)
        assert conduct("convnets", small_set, tmp_path, *options, settings=settings) == 0
        found[seconds] = " ".join(read_tables(tmp_path / "convnets", "convnets")["notes"])
    printed = capsys.readouterr()
    assert "32 segments of 0.3 s from 16 clips" in found["0.3"]
    assert "are longer than" not in found["0.3"]
    for text in (found["0"], printed.err):
        assert "16 of 16 clips are longer than the 0.384 s that rnn reads" in text
    for text in (found["0"], printed.out):
        assert "rnn (width 0.1 of 1) is narrower than the published nets" in text


def test_the_demo_trains_two_nets_at_once_where_there_are_two_cores(monkeypatch):
    assert result.default_jobs("paper") == 1
    for count, jobs in ((1, 1), (2, 2), (8, 2)):
        monkeypatch.setattr(result, "cores", lambda count=count: count)
        assert result.default_jobs("demo") == jobs


def test_processes_train_each_missing_net_once(small_set, tmp_path, monkeypatch):
    options = ("--nets", "cnn", "--seconds", "0.4", "--iterations", "2", "--ablations", "loss")
    assert conduct("j22", small_set, tmp_path, *options) == 0
    table = read_tables(tmp_path / "j22", "j22")["tables"]["scores"]
    asked = []

    def train_here(calls, **_):
        for i, call in enumerate(calls):
            module, name = call.function.split(":")
            (training,) = pickle.loads(pickle.dumps(call.arguments))
            asked.append(training.plan.train.loss)
            getattr(import_module(module), name)(training, lambda text: None)
            yield CallResult(i, None)

    monkeypatch.setattr(pool, "run_calls", train_here)
    together = ("--work", tmp_path / "work-two", "--jobs", 2)
    assert conduct("j22", small_set, tmp_path, *options, *together) == 0
    assert sorted(asked) == sorted(LOSSES)
    assert read_tables(tmp_path / "j22", "j22")["tables"]["scores"] == table
    asked.clear()
    assert conduct("j22", small_set, tmp_path, *options, *together) == 0
    assert asked == []


def test_lengths_that_no_clip_has_are_trained_once(small_set, tmp_path):
    options = ("--seconds", "0.2,0.4,1,2", "--nets", "cnn")
    assert conduct("segments", small_set, tmp_path, *options) == 0
    record = read_tables(tmp_path / "segments", "segments")
    rows = record["tables"]["accuracy"]["rows"]
    # Clips of 0.8 s: four segments each, two, then whole.
    assert [row[:3] for row in record["tables"]["counts"]["rows"]] == [
        [0.2, 64, 16], [0.4, 32, 16], [1.0, 16, 16], [2.0, 16, 16],
    ]  # fmt: skip
    assert [row[1] for row in rows] == [0.2, 0.4, 1.0, 2.0]
    assert rows[2][2:8] == rows[3][2:8]
    assert str(record["notes"]).count("Segments of 2 s are the same as those of 1 s") == 1
    # Two folds at each of three lengths.
    assert len(list((tmp_path / "work" / "nets").iterdir())) == 6


@pytest.mark.parametrize(
    ("options", "steps"),
    [([], 2500), (["--profile", "demo"], 200), (["--profile", "demo", "--iterations", "0"], 0)],
)
def test_j22_trains_as_long_as_the_paper_but_in_the_demo(options, steps, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        "mvemo.pipeline.studies.commands.conduct",
        lambda file, options: chosen.append(option_values(file, options)["iterations"]) or 0,
    )
    (tmp_path / "m.csv").touch()
    command = ["mvemo", "study", "j22", tmp_path / "m.csv", "--out", tmp_path]
    assert run(*command, *options) == 0
    assert chosen == [steps]


def test_iterations_are_steps_and_epochs_are_told_by_them(made):
    manifest, folder = made
    options, settings = ("--net", "rnn", "--iterations", "7"), ("nets.rnn.batch_size=2",)
    assert conduct("iterations", manifest, folder, *options, settings=settings) == 0
    curves = read_tables(folder / "iterations", "iterations")["curves"]["rnn"]
    assert curves["iteration"] == list(range(1, 8))
    # 8 clips without the first fold; one group of four is held out: 4 clips, 2 batches.
    assert curves["validation_at"] == [2, 4, 6, 7]
    assert len(curves["val_loss"]) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("segments", "--seconds", "3,x"), "expected numbers, for example 3,5,10,16"),
        (("segments", "--seconds", "-1"), "longer than 0"),
        (("segments", "--nets", "music1d"), "expected a net that reads descriptor sequences"),
        (("convnets", "--nets", "vgg"), "unknown net 'vgg'"),
        (("optimizers", "--nets", "cnn"), "PL20 Table 2 has learning rates only for"),
        (("baselines", "--profile", "none"), "a file or one of best, c17, demo, paper"),
    ],
)
def test_wrong_options_are_one_line(arguments, says, made, capsys):
    manifest, folder = made
    name, *rest = arguments
    assert run("mvemo", "study", name, manifest, "--out", folder / "bad", *rest) == 2
    assert says in refusal(capsys)
    assert not (folder / "bad").exists()


# Clips of the made set as tags and as ratings: columns, and their values without and with them.
OTHER_TASKS = {
    "multilabel": (("positive", "aroused"), ((0, 1), (0, 1))),
    "regression": (("valence", "arousal"), ((1, 5), (0, 90))),
}


@pytest.fixture(scope="module", params=OTHER_TASKS)
def other_task(made, request):
    """Manifest and working folder of the same clips with other labels."""
    manifest, folder = made
    names, (positive, aroused) = OTHER_TASKS[request.param]
    lines = [f"# task: {request.param}", f"# classes: {', '.join(names)}"]
    lines.append(f"path,group,{','.join(names)}")
    for clip in read_manifest(manifest).clips:
        emotion = clip.label[0]
        values = positive[emotion in "happy calm"], aroused[emotion in "happy angry"]
        lines.append(f"{clip.path},{clip.group},{values[0]},{values[1]}")
    path = manifest.parent / f"{request.param}.csv"
    path.write_text("\n".join(lines) + "\n")
    return request.param, path, folder


@pytest.mark.parametrize(
    ("study", "own"),
    [
        ("convnets", ("--nets", "cnn")),
        ("baselines", CLASSICAL),
        ("segments", ("--nets", "cnn", "--seconds", "0.5")),
        ("iterations", ("--net", "rnn", "--iterations", "3")),
    ],
)
def test_studies_of_tags_and_ratings(study, own, other_task, capsys):
    task, manifest, folder = other_task
    assert conduct(study, manifest, folder, *own) == 0
    record = read_tables(folder / study, study)
    assert record["data"]["task"] == task
    # Printed figures are of classes.
    assert "'J22" not in str(record["tables"].get("accuracy"))
    if study == "baselines":
        rows = {row[0]: row[1] for row in record["tables"]["accuracy"]["rows"]}
        top = max(v for name, v in rows.items() if not name.startswith("training"))
        # Macro ROC-AUC, and R2, of clips that a model can tell.
        assert top > 0.88
        assert rows["training frequency" if task == "multilabel" else "training mean"] <= 0.5


def test_the_study_of_tags_scores_each_tag_by_the_net_alone(other_task, capsys):
    task, manifest, folder = other_task
    changes = ("epochs=8", "patience=0", "lr=0.01")
    code = conduct("tags", manifest, folder, settings=[f"nets.speccnn.{each}" for each in changes])
    if task != "multilabel":
        assert code == 2
        assert "this study needs multilabel" in capsys.readouterr().err
        return
    assert code == 0
    tables = read_tables(folder / "tags", "tags")["tables"]
    rows = [row[:2] for row in tables["tags-speccnn"]["rows"]]
    assert rows == [["positive", 8], ["aroused", 8]]
    assert [row[0] for row in tables["averages"]["rows"]] == ["speccnn", "training frequency"]
    assert tables["scores"]["rows"][0][1] > 0.6


def test_clips_that_could_not_be_used_are_listed_and_told_by_the_exit_code(tmp_path, capsys):
    # Fewer clips than neighbours are no error.
    manifest = make_set(tmp_path / "set", clips_per_class=2, seconds=0.3)
    (tmp_path / "set" / "sad1.wav").write_bytes(b"")
    (tmp_path / "set" / "calm1.wav").write_text("this is no sound")
    assert conduct("baselines", manifest, tmp_path, *CLASSICAL, "--strict") == 1
    assert "2 clips could not be used" in capsys.readouterr().err
    record = read_tables(tmp_path / "baselines", "baselines")
    assert set(record["failures"]) == {"sad1", "calm1"}
    said = "clips could not be used and do not count in any score"
    assert str(record["notes"]).count(said) == 1
    page = (tmp_path / "baselines" / "baselines.html").read_text()
    assert "Clips that could not be used: 2" in page
    assert "sad1" in page
    assert "k nearest neighbours" in {row[0] for row in record["tables"]["accuracy"]["rows"]}


# Study -> its options, the training that diverges with its optimizer, and the row (with its table)
# whose columns are then empty.
DIVERGING = {
    "optimizers": ("--nets music1d", "music1d@fold1 rmsprop", "scores", ["music1d", "RMSprop"],
                   ("accuracy", "low", "high", "sd", "F1", "AUC", "majority")),
    "convnets": ("--nets cnn,lightcnn", "lightcnn@fold0 adam", "accuracy", ["lightcnn"],
                 ("parameters", "training", "test", "gap", "majority")),
    "segments": ("--nets cnn,lightcnn --seconds 0.5", "lightcnn@fold0 adam", "accuracy",
                 ["lightcnn", 0.5], ("segments", "songs", "low", "high", "majority")),
}  # fmt: skip


@pytest.mark.parametrize("study", DIVERGING)
def test_a_variant_that_diverges_is_an_empty_row_and_the_others_go_on(
    study, small_set, monkeypatch, tmp_path, capsys
):
    options, training, table, first, empty = DIVERGING[study]
    label, optimizer = training.split()
    train = fine_tuning.Trainer.score

    def diverge(trainer, rows):
        job = trainer.job
        if (job.label, job.settings.optimizer) == (label, optimizer):
            torch.nn.init.constant_(trainer.net.classifier.weight, float("nan"))
        return train(trainer, rows)

    monkeypatch.setattr(fine_tuning.Trainer, "score", diverge)
    assert conduct(study, small_set, tmp_path, *options.split()) == 0
    record = read_tables(tmp_path / study, study)
    columns = [column["name"] for column in record["tables"][table]["columns"]]
    rows = record["tables"][table]["rows"]
    (lost,) = [row for row in rows if row[: len(first)] == first]
    of_column = dict(zip(columns, lost, strict=True))
    assert {of_column[name] for name in empty} == {None}
    others = [dict(zip(columns, row, strict=True)) for row in rows if row is not lost]
    assert others
    assert all(row["majority"] is not None for row in others)
    (note,) = [note for note in record["notes"] if "has no scores" in note]
    assert f"has no scores. {label}: training diverged: no finite loss by epoch" in note
    # The optimizers' rates are the study's own, which no --set would change.
    assert "--set" not in note
    assert note in capsys.readouterr().out


def test_a_folder_of_hugging_face_is_a_net_of_a_study(small_set, tmp_path):
    save_encoder(tmp_path / "hubert", "hubert")
    options = ("--net", f"hf:{tmp_path / 'hubert'}", "--iterations", "1", "--seconds", "0")
    assert conduct("iterations", small_set, tmp_path, *options) == 0
