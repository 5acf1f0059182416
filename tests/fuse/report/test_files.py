"""The files of a run: what is in them, and that a folder has one run."""

import csv
import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fuse_samples import CLASSES, empty_results, make_results, nasty_results
from sklearn.metrics import f1_score, precision_recall_fscore_support

from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.report.page import report_html
from mvemo.fuse.report.report_files import (
    metrics_dict,
    predictions_csv,
    require_other_folder,
    write_report,
)

NAMES = [
    "music1d",
    "music2d",
    "c3d",
    "i3d",
    "c3d+music1d",
    "i3d+music1d",
    "c3d+music2d",
    "i3d+music2d",
    "integrated",
]


def small(**changes):
    """Three models and one net's curves: quick to draw."""
    made = make_results(24, 2, missing=2)
    return dataclasses.replace(
        made,
        **{
            "models": (made.models[0], made.models[2], made.models[-1]),
            "curves": {"c3d@0": made.curves["c3d@0"]},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def few():
    return small()


def test_contract(results):
    found = json.loads(json.dumps(metrics_dict(results), allow_nan=False))
    assert found["task"] == "multiclass"
    assert found["protocol"] == "crossfit"
    assert found["synthetic"] is False
    assert (found["folds"], found["clips"], found["classes"]) == (6, 96, list(CLASSES))
    assert sorted(found["models"]) == sorted(NAMES)
    assert found["baseline"]["accuracy"]["mean"] == results.primary_mean(results.baseline)
    assert found["provenance"]["command"].startswith("mvemo-cv")
    for model in results.models:
        entry = found["models"][model.name]
        assert entry["modalities"] == list(model.modalities)
        accuracy = entry["accuracy"]
        assert accuracy["per_fold"] == model.per_fold["accuracy"].tolist()
        assert accuracy["min"] == min(accuracy["per_fold"])
        assert accuracy["max"] == max(accuracy["per_fold"])
        assert accuracy["mean"] == pytest.approx(sum(accuracy["per_fold"]) / 6, abs=1e-12)
        assert 0 <= accuracy["min"] <= accuracy["max"] <= 1
        assert entry["f1_macro"] == model.scores["f1_macro"]
        assert entry["roc_auc_macro_ovr"] == model.scores["roc_auc_macro_ovr"]
        assert entry["confusion"] == model.confusion.tolist()
        assert sum(map(sum, entry["confusion"])) == entry["predicted"]


def test_per_class_agrees_with_scikit_learn(results):
    model = results.models[-1]
    valid = model.valid
    y_pred = model.outputs[valid].argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        results.y_true[valid], y_pred, labels=range(6), zero_division=0
    )
    entry = metrics_dict(results)["models"]["integrated"]
    for c, name in enumerate(CLASSES):
        assert entry["per_output"][name]["precision"] == pytest.approx(precision[c], abs=1e-12)
        assert entry["per_output"][name]["recall"] == pytest.approx(recall[c], abs=1e-12)
        assert entry["per_output"][name]["f1"] == pytest.approx(f1[c], abs=1e-12)
    expected = f1_score(results.y_true[valid], y_pred, average="macro")
    assert entry["f1_macro"] == pytest.approx(expected, abs=1e-12)


def test_no_score_is_null_not_nan():
    found = json.loads(json.dumps(metrics_dict(empty_results()), allow_nan=False))
    entry = found["models"]["c3d"]
    accuracy = entry["accuracy"]
    assert accuracy.pop("per_fold") == [None, None]
    assert accuracy == dict.fromkeys(("min", "mean", "max", "pooled"))
    assert entry["roc_auc_macro_ovr"] is None
    assert entry["predicted"] == 0
    assert found["baseline"]["accuracy"]["mean"] is None


def test_a_fold_without_a_score_is_left_out_of_the_mean(results):
    values = np.array([0.5, np.nan, 0.7, 0.6, np.nan, 0.6])
    model = dataclasses.replace(
        results.models[0], per_fold={**results.models[0].per_fold, "accuracy": values}
    )
    changed = dataclasses.replace(results, models=(model,))
    accuracy = metrics_dict(changed)["models"]["music1d"]["accuracy"]
    assert (accuracy["min"], accuracy["max"]) == (0.5, 0.7)
    assert accuracy["mean"] == pytest.approx(0.6, abs=1e-12)
    assert accuracy["per_fold"] == [0.5, None, 0.7, 0.6, None, 0.6]


def test_flags_counts_and_numpy_values(results):
    changed = dataclasses.replace(
        results,
        synthetic=True,
        leaky=True,
        permuted=True,
        protocol="shared",
        provenance={"C": np.float32(0.5), "n": np.int64(3), "p": Path("a/b"), "x": float("inf")},
    )
    found = metrics_dict(changed)
    assert (found["synthetic"], found["leaky"], found["permuted"]) == (True, True, True)
    assert found["failures"] == 3
    assert found["missing"]["c3d"] == 6
    assert found["provenance"] == {"C": 0.5, "n": 3, "p": str(Path("a/b")), "x": None}


def test_what_json_has_no_value_for_is_named(results):
    changed = dataclasses.replace(results, provenance={"a": [1, {"b": object()}]})
    with pytest.raises(TypeError, match=r"provenance\.a\[1\]\.b is a object"):
        metrics_dict(changed)


@pytest.mark.figures
def test_equal_results_give_equal_files(tmp_path, few):
    write_report(few, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report_html(few)
    assert (tmp_path / "metrics.json").stat().st_size > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.json",
        "predictions.csv",
        "report.html",
    ]
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found == metrics_dict(few)
    text = (tmp_path / "predictions.csv").read_bytes().decode()
    assert text == predictions_csv(few)


def test_predictions_give_back_the_same_numbers(few):
    rows = list(csv.DictReader(io.StringIO(predictions_csv(few))))
    assert len(rows) == 24 * 3
    columns = [f"p_{c}" for c in few.classes]
    for m, model in enumerate(few.models):
        mine = [row for row in rows if row["model"] == model.name]
        assert rows[m]["model"] == model.name
        assert tuple(row["clip_id"] for row in mine) == few.clip_ids
        assert tuple(row["group"] for row in mine) == few.groups
        assert [int(row["fold"]) for row in mine] == few.folds.tolist()
        assert [row["label"] for row in mine] == [few.classes[i] for i in few.y_true]
        values = np.array([[float(row[c] or "nan") for c in columns] for row in mine])
        np.testing.assert_array_equal(values, model.outputs)
        for row, p in zip(mine, model.outputs, strict=True):
            expected = "" if np.isnan(p).any() else few.classes[int(p.argmax())]
            assert row["predicted"] == expected


def test_predictions_survive_any_text():
    nasty = nasty_results()
    nasty = dataclasses.replace(nasty, models=(nasty.models[0], nasty.models[2]))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(nasty))))
    assert [row["clip_id"] for row in rows[::2]] == list(nasty.clip_ids)
    assert rows[0]["label"] == nasty.classes[int(nasty.y_true[0])]


def test_nothing_predicted(tmp_path):
    write_report(empty_results(), tmp_path)
    assert "No model made a prediction." in (tmp_path / "report.html").read_text("utf-8")
    assert "NaN" not in (tmp_path / "metrics.json").read_text("utf-8")


def test_file_names_that_are_no_text(tmp_path):
    made = small(failures=(("bad \udcff name", "decode", "empty file"),), curves={})
    made = dataclasses.replace(made, models=made.models[:1])
    write_report(made, tmp_path)
    assert r"bad \udcff name" in (tmp_path / "report.html").read_text("utf-8")


def test_older_files_stay_until_new_ones_are_whole(tmp_path, few, monkeypatch):
    (tmp_path / "metrics.json").write_text("older")
    (tmp_path / "notes.txt").write_text("mine")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    made = dataclasses.replace(few, models=few.models[:1], curves={})
    with pytest.raises(FuseError, match="No space left") as caught:
        write_report(made, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "metrics.json").read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "notes.txt"]


def test_a_file_in_the_folders_place(tmp_path, few):
    (tmp_path / "out").write_text("a file")
    made = dataclasses.replace(few, models=few.models[:1], curves={})
    with pytest.raises(FuseError, match=r"out: cannot be written: File exists"):
        write_report(made, tmp_path / "out")


def test_a_folder_has_one_run(tmp_path, few, monkeypatch):
    made = dataclasses.replace(few, models=few.models[:1], curves={})
    # What the page shows is of no matter here: its figures take long to draw.
    monkeypatch.setattr("mvemo.fuse.report.report_files.report_html", lambda results: "a page")
    write_report(made, tmp_path, heads=True)
    assert (tmp_path / "heads.npz").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    write_report(made, tmp_path)
    # The heads of the older run are not left beside the metrics of the newer one.
    assert not (tmp_path / "heads.npz").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_read_from_is_not_written_to(tmp_path, monkeypatch):
    source = tmp_path / "out" / "predictions.csv"
    source.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFeatures, match="name another folder with --out") as caught:
        require_other_folder("out", [tmp_path / "other.csv", source])
    assert str(source) in str(caught.value)
    require_other_folder("report", [source])


def test_repeats_are_all_in_the_predictions(few):
    first = dataclasses.replace(few, curves={})
    second = dataclasses.replace(first, folds=(first.folds + 1) % first.k)
    repeated = dataclasses.replace(first, repeats=(first, second))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(repeated))))
    assert list(rows[0])[:4] == ["repeat", "clip_id", "group", "fold"]
    assert [row["repeat"] for row in rows] == ["0"] * 72 + ["1"] * 72
    for one, part in zip((first, second), (rows[:72], rows[72:]), strict=True):
        assert [int(row["fold"]) for row in part[::3]] == one.folds.tolist()
    page = report_html(repeated)
    assert "every out-of-fold prediction of every repeat" in page
