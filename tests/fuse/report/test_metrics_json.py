"""metrics.json: the keys that others read, strict JSON, and the figures' own meaning."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from fuse_samples import CLASSES, empty_results, make_results
from sklearn.metrics import f1_score, precision_recall_fscore_support

from mvemo.fuse.report.metrics_json import metrics_dict

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


@pytest.fixture(scope="module")
def results():
    return make_results()


def test_contract(results):
    found = json.loads(json.dumps(metrics_dict(results), allow_nan=False))
    assert found["task"] == "multiclass"
    assert found["protocol"] == "crossfit"
    assert found["synthetic"] is False
    assert (found["folds"], found["clips"], found["classes"]) == (6, 96, list(CLASSES))
    assert sorted(found["models"]) == sorted(NAMES)
    assert found["baseline"]["majority_accuracy"] == results.primary_mean(results.baseline)
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
    there = np.isfinite(model.outputs).all(axis=1)
    said = model.outputs[there].argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        results.y_true[there], said, labels=range(6), zero_division=0
    )
    entry = metrics_dict(results)["models"]["integrated"]
    for c, name in enumerate(CLASSES):
        assert entry["per_class"][name]["precision"] == pytest.approx(precision[c], abs=1e-12)
        assert entry["per_class"][name]["recall"] == pytest.approx(recall[c], abs=1e-12)
        assert entry["per_class"][name]["f1"] == pytest.approx(f1[c], abs=1e-12)
    expected = f1_score(results.y_true[there], said, average="macro")
    assert entry["f1_macro"] == pytest.approx(expected, abs=1e-12)


def test_no_score_is_null_not_nan():
    found = json.loads(json.dumps(metrics_dict(empty_results()), allow_nan=False))
    entry = found["models"]["c3d"]
    assert entry["accuracy"] == {"min": None, "mean": None, "max": None, "per_fold": [None, None]}
    assert entry["roc_auc_macro_ovr"] is None
    assert entry["predicted"] == 0
    assert found["baseline"]["majority_accuracy"] is None


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
