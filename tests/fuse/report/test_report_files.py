"""The files of a run: what is in them, and that a folder has one run."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuse_samples import CLASSES, empty_results, nasty_results
from sklearn.metrics import precision_recall_fscore_support

from mvemo.fuse import read_predictions
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.report.page import report_html
from mvemo.fuse.report.report_files import (
    metrics_dict,
    predictions_csv,
    require_other_folder,
    write_report,
)


def as_json(results):
    return json.loads(json.dumps(metrics_dict(results), allow_nan=False))


@pytest.fixture
def quick(few):
    """One model, without curves."""
    return replace(few, models=few.models[:1], curves={})


def test_metrics_of_classes(results):
    found = as_json(results)
    assert (found["task"], found["protocol"], found["synthetic"]) == (
        "multiclass",
        "crossfit",
        False,
    )
    assert (found["folds"], found["clips"], found["classes"]) == (6, 96, list(CLASSES))
    assert list(found["models"]) == [model.name for model in results.models]
    assert found["baseline"]["accuracy"]["mean"] == results.primary_mean(results.baseline)
    assert found["provenance"]["command"].startswith("mvemo-cv")
    assert (found["failures"], found["missing"]["c3d"]) == (3, 6)
    for model in results.models:
        entry = found["models"][model.name]
        assert entry["modalities"] == list(model.modalities)
        per_fold = model.per_fold["accuracy"]
        assert entry["accuracy"] == {
            "min": per_fold.min(),
            "mean": pytest.approx(per_fold.mean(), abs=1e-12),
            "max": per_fold.max(),
            "per_fold": per_fold.tolist(),
            "pooled": model.scores["accuracy"],
        }
        for name in ("f1_macro", "roc_auc_macro_ovr"):
            assert entry[name] == model.scores[name]
        assert entry["confusion"] == model.confusion.tolist()
        assert sum(map(sum, entry["confusion"])) == entry["predicted"]
    model, valid = results.models[-1], results.models[-1].valid
    each = precision_recall_fscore_support(
        results.y_true[valid], model.outputs[valid].argmax(axis=1), labels=range(6), zero_division=0
    )
    for c, name in enumerate(CLASSES):
        scores = entry["per_output"][name]
        got = [scores[score] for score in ("precision", "recall", "f1")]
        np.testing.assert_allclose(got, [values[c] for values in each[:3]], atol=1e-12)


def test_metrics_of_tags_and_of_values(outputs):
    found = as_json(outputs)
    assert (found["task"], found["folds"], found["clips"]) == (outputs.task.name, 3, 90)
    name = {"multilabel": "roc_auc", "regression": "r2"}[outputs.task.name]
    for model in outputs.models:
        entry = found["models"][model.name]
        score = entry[f"{name}_macro"]
        assert score["mean"] == pytest.approx(np.mean(score["per_fold"]))
        assert score["min"] == min(score["per_fold"])
        for i, output in enumerate(outputs.classes):
            assert entry["per_output"][output][name] == model.per_output[name][i]
        low, high = entry["intervals"]["primary"]
        assert low < high
    assert found["models"]["c3d"]["predicted"] == 89
    assert ("quadrant_accuracy" in entry) == (outputs.task.name == "regression")
    assert ("quadrants" in found) == (outputs.task.name == "regression")
    assert ("f1_micro" in entry) == (outputs.task.name == "multilabel")


def test_no_score_is_null_not_nan(results):
    found = as_json(empty_results())
    entry = found["models"]["c3d"]
    nothing = dict.fromkeys(("min", "mean", "max", "pooled"))
    assert entry["accuracy"] == {**nothing, "per_fold": [None, None]}
    assert (entry["roc_auc_macro_ovr"], entry["predicted"]) == (None, 0)
    assert found["baseline"]["accuracy"]["mean"] is None
    # A fold without a score is left out of the mean.
    values = np.array([0.5, np.nan, 0.7, 0.6, np.nan, 0.6])
    model = results.models[0]
    model = replace(model, per_fold={**model.per_fold, "accuracy": values})
    accuracy = as_json(replace(results, models=(model,)))["models"]["music1d"]["accuracy"]
    assert (accuracy["min"], accuracy["max"]) == (0.5, 0.7)
    assert accuracy["mean"] == pytest.approx(0.6, abs=1e-12)
    assert accuracy["per_fold"] == [0.5, None, 0.7, 0.6, None, 0.6]


def test_flags_and_values_of_other_types(results):
    provenance = {"C": np.float32(0.5), "n": np.int64(3), "p": Path("a/b"), "x": float("inf")}
    flags = {"synthetic": True, "leaky": True, "permuted": True}
    found = as_json(replace(results, **flags, protocol="shared", provenance=provenance))
    assert flags.items() <= found.items()
    assert found["provenance"] == {"C": 0.5, "n": 3, "p": str(Path("a/b")), "x": None}
    changed = replace(results, provenance={"a": [1, {"b": object()}]})
    with pytest.raises(TypeError, match=r"provenance\.a\[1\]\.b is a object"):
        metrics_dict(changed)


def assert_read_back(results, path):
    path.write_text(predictions_csv(results), encoding="utf-8")
    again = read_predictions(path, task=results.task.name)
    for name in ("classes", "clip_ids", "groups", "k"):
        assert getattr(again, name) == getattr(results, name)
    np.testing.assert_array_equal(again.y_true, results.y_true)
    np.testing.assert_array_equal(again.folds, results.folds)
    assert list(again.outputs) == [model.name for model in results.models]
    for model in results.models:
        np.testing.assert_array_equal(again.outputs[model.name], model.outputs)


def test_predictions_give_back_every_number(outputs, few, tmp_path):
    assert_read_back(few, tmp_path / "p.csv")
    assert_read_back(outputs, tmp_path / "p.csv")
    for results, start in ((few, "predicted"), (outputs, "decided_")):
        rows = list(csv.DictReader(io.StringIO(predictions_csv(results))))
        mine = [row for row in rows if row["model"] == results.models[0].name]
        decided = [[v for k, v in row.items() if k.startswith(start)] for row in mine]
        y_pred = results.models[0].y_pred
        if results is few:
            assert decided == [[results.classes[c] if c >= 0 else ""] for c in y_pred]
        elif results.task.needs_inner:
            np.testing.assert_array_equal(np.array(decided) == "1", y_pred)


def test_predictions_survive_any_text():
    nasty = nasty_results()
    nasty = replace(nasty, models=(nasty.models[0], nasty.models[2]))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(nasty))))
    assert [row["clip_id"] for row in rows[::2]] == list(nasty.clip_ids)
    assert rows[0]["label"] == nasty.classes[int(nasty.y_true[0])]


def test_repeats_are_all_in_the_predictions(few):
    first = replace(few, curves={})
    second = replace(first, folds=(first.folds + 1) % first.k)
    repeated = replace(first, repeats=(first, second))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(repeated))))
    assert list(rows[0])[:4] == ["repeat", "clip_id", "group", "fold"]
    assert [row["repeat"] for row in rows] == ["0"] * 72 + ["1"] * 72
    for one, part in zip((first, second), (rows[:72], rows[72:]), strict=True):
        assert [int(row["fold"]) for row in part[::3]] == one.folds.tolist()
    assert "every out-of-fold prediction of every repeat" in report_html(repeated)


def test_equal_results_give_equal_files(tmp_path, few):
    write_report(few, tmp_path)
    assert {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()} == {
        "report.html": report_html(few),
        "metrics.json": (tmp_path / "metrics.json").read_text(encoding="utf-8"),
        "predictions.csv": predictions_csv(few),
    }
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics_dict(few)


def test_file_names_that_are_no_text(tmp_path, quick):
    write_report(replace(quick, failures=(("bad \udcff name", "decode", "empty file"),)), tmp_path)
    assert r"bad \udcff name" in (tmp_path / "report.html").read_text("utf-8")


def test_older_files_stay_until_new_ones_are_whole(tmp_path, quick, monkeypatch):
    (tmp_path / "metrics.json").write_text("older")
    (tmp_path / "notes.txt").write_text("mine")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FuseError, match="No space left") as caught:
        write_report(quick, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "metrics.json").read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "notes.txt"]


def test_a_folder_has_one_run(tmp_path, quick):
    write_report(quick, tmp_path, heads=True)
    assert (tmp_path / "heads.npz").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    write_report(quick, tmp_path)
    # The heads of the older run are not left beside the metrics of the newer one.
    assert not (tmp_path / "heads.npz").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FuseError, match=r"out: cannot be written: File exists"):
        write_report(quick, tmp_path / "out")


def test_a_folder_that_is_read_from_is_not_written_to(tmp_path, monkeypatch):
    source = tmp_path / "out" / "predictions.csv"
    source.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFeatures, match="name another folder with --out") as caught:
        require_other_folder("out", [tmp_path / "other.csv", source])
    assert str(source) in str(caught.value)
    require_other_folder("report", [source])
