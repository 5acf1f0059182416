"""Metrics of plug-ins in scores and tables, and wrong ones."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

import mvemo
from mvemo.fuse import Metric, format_table
from mvemo.manifests import plugins
from mvemo.manifests.errors import BadOption


@pytest.fixture
def offer(monkeypatch):
    """A function that offers objects as the metrics of a file."""
    files = {kind: {} for kind in plugins.KINDS}
    monkeypatch.setattr(plugins, "_FILES", files)

    def put(**metrics):
        for name, value in metrics.items():
            plugin = plugins.Plugin("metrics", name, "own.py", "", "own.py", lambda v=value: v)
            files["metrics"][name] = plugin

    return put


def evaluate():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 20)
    X = (y[:, None] + rng.normal(size=(60, 3))).astype(np.float32)
    return mvemo.evaluate({"audio": X}, y, folds=3, n_resamples=0, audit=False, kernel=False)


def test_a_metric_is_scored_on_all_clips_and_each_fold_and_shown(offer):
    def jaccard(y_true, y_pred, proba):
        assert proba.shape == (len(y_true), 3)
        return jaccard_score(y_true, y_pred, average="macro")

    offer(
        jaccard=Metric(jaccard, ("multiclass",), "Jaccard"), other=Metric(sum, ("regression",), "x")
    )
    results = evaluate()
    (model,) = results.models
    expected = jaccard_score(results.y_true, model.y_pred, average="macro")
    assert model.scores["jaccard"] == pytest.approx(expected, abs=1e-12)
    rows = results.folds == 1
    expected = jaccard_score(results.y_true[rows], model.y_pred[rows], average="macro")
    assert model.per_fold["jaccard"][1] == pytest.approx(expected, abs=1e-12)
    assert "Jaccard" in format_table(results)
    assert "other" not in model.scores


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (3, "expected a mvemo.fuse.Metric, got 3"),
        (Metric(len, ("classes",), "x"), r"its tasks are \('classes',\): expected some of"),
        (Metric(lambda *_: 1 / 0, ("multiclass",), "x"), "ZeroDivisionError: division by zero"),
        (Metric(lambda *_: np.ones(2), ("multiclass",), "x"), "expected one number, got"),
        (Metric(lambda *_: "high", ("multiclass",), "x"), "expected one number, got 'high'"),
        (Metric(lambda *_: np.nan, ("multiclass",), "x"), "its score of 60 clips is nan"),
    ],
)
def test_a_wrong_metric_is_named_in_one_line(offer, metric, problem):
    offer(own=metric)
    with pytest.raises(BadOption, match=rf"^own: own.py cannot provide this metric: {problem}"):
        evaluate()
