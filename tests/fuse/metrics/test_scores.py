"""Scores of classes, tags and targets equal scikit-learn's; thresholds are the best of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as sk
from sklearn.metrics import jaccard_score

import mvemo
from mvemo.fuse import Metric, format_table
from mvemo.fuse.metrics.scores import (
    best_thresholds,
    confusion_matrix,
    multiclass_scores,
    multilabel_scores,
    regression_scores,
)
from mvemo.fuse.models import Model
from mvemo.fuse.results import score_model
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.regression import QUADRANTS, Plane
from mvemo.manifests import plugins
from mvemo.manifests.errors import BadOption

NAMES = ("precision", "recall", "f1")


def sample(seed, n=80, classes=4, ties=False):
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    p = rng.dirichlet(np.ones(classes), n)
    if ties:
        p = np.round(p, 1) + 0.05
        p /= p.sum(axis=1, keepdims=True)
    return true, p


def tags(n=150, n_tags=6, digits=None, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, n_tags)) < np.linspace(0.1, 0.7, n_tags)).astype(np.int64)
    p = np.clip(0.6 * rng.random((n, n_tags)) + 0.4 * truth * rng.random((n, n_tags)), 0, 1)
    return truth, p if digits is None else np.round(p, digits)


def f1(true, decided):
    return 2 * (true * decided).sum() / (true.sum() + decided.sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_classes_as_scikit_learn(seed, ties):
    true, p = sample(seed, ties=ties)
    y_pred = p.argmax(axis=1)
    expected = sk.confusion_matrix(true, y_pred)
    np.testing.assert_array_equal(confusion_matrix(true, y_pred, 4), expected)
    got = multiclass_scores(true, p, y_pred)
    assert got.overall == pytest.approx(
        {
            "accuracy": sk.accuracy_score(true, y_pred),
            "balanced_accuracy": sk.balanced_accuracy_score(true, y_pred),
            "cohen_kappa": sk.cohen_kappa_score(true, y_pred),
            "mcc": sk.matthews_corrcoef(true, y_pred),
            "f1_macro": sk.f1_score(true, y_pred, average="macro"),
            "roc_auc_macro_ovr": sk.roc_auc_score(true, p, multi_class="ovr", average="macro"),
        },
        abs=1e-12,
    )
    each = sk.precision_recall_fscore_support(true, y_pred, labels=range(4), zero_division=0)
    for name, expected in zip(NAMES, each, strict=False):
        np.testing.assert_allclose(np.nan_to_num(got.per_output[name]), expected)


def scores_of(true, y_pred, n):
    """Scores of decisions; the probabilities are those of a guess."""
    true, y_pred = np.array(true, int), np.array(y_pred, int)
    return multiclass_scores(true, np.full((len(true), n), 1 / n), y_pred).overall


def test_classes_that_are_not_there_are_left_out():
    true, p = sample(5)
    present = true != 2
    expected = np.mean([sk.roc_auc_score(true[present] == c, p[present, c]) for c in (0, 1, 3)])
    got = multiclass_scores(true[present], p[present], p[present].argmax(axis=1))
    assert got.overall["roc_auc_macro_ovr"] == pytest.approx(expected)
    assert np.isnan(scores_of([0] * 4, [0] * 4, 4)["roc_auc_macro_ovr"])
    # Neither true nor predicted: no F1; predicted and never true: F1 0.
    assert scores_of([0, 2], [0, 2], 3)["f1_macro"] == 1.0
    got = scores_of([0] * 4 + [2] * 4, [0] * 3 + [1] + [2] * 4, 3)
    assert got["f1_macro"] == pytest.approx((6 / 7 + 0 + 1) / 3)
    assert scores_of([0, 0, 0, 1], [0] * 4, 2)["balanced_accuracy"] == 0.5
    assert np.isnan([*scores_of([], [], 3).values()]).all()
    # All of one class and predicted so: there is no agreement beyond chance to measure.
    assert np.isnan(scores_of([1, 1, 1], [1, 1, 1], 3)["cohen_kappa"])


@pytest.mark.parametrize("digits", [None, 1])
def test_tags_as_scikit_learn(digits):
    truth, p = tags(digits=digits)
    decided = p >= np.array([0.3, 0.4, 0.5, 0.35, 0.5, 1.1])
    got = multilabel_scores(truth, p, decided)
    for average in (None, "macro", "micro"):
        expected = {
            "roc_auc": sk.roc_auc_score(truth, p, average=average),
            "average_precision": sk.average_precision_score(truth, p, average=average),
        }
        each = sk.precision_recall_fscore_support(truth, decided, average=average, zero_division=0)
        expected |= dict(zip(NAMES, each, strict=False))
        if average != "macro":
            width = truth.shape[1] if average is None else 1
            columns = zip(truth.reshape(-1, width).T, decided.reshape(-1, width).T, strict=True)
            found = [sk.matthews_corrcoef(*pair) for pair in columns]
            expected["mcc"] = found if average is None else found[0]
        for name, value in expected.items():
            mine = got.per_output[name] if average is None else got.overall[f"{name}_{average}"]
            np.testing.assert_allclose(mine, value, rtol=0, atol=1e-10)


def test_tags_without_a_score_do_not_count_in_the_mean():
    truth = np.array([[1, 0, 1, 0], [0, 0, 1, 0]])
    p = np.array([[0.9, 0.1, 0.6, 0.8], [0.2, 0.3, 0.7, 0.1]])
    overall, per_tag = multilabel_scores(truth, p, p >= 0.5)
    # The second tag is neither true nor decided; the last is decided but never true.
    np.testing.assert_array_equal(per_tag["f1"], [1, np.nan, 1, 0])
    np.testing.assert_array_equal(per_tag["roc_auc"], [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(per_tag["average_precision"], [1, np.nan, 1, np.nan])
    assert overall["f1_macro"] == pytest.approx(2 / 3)
    nothing = multilabel_scores(truth[:0], p[:0], p[:0] >= 0.5)
    assert np.isnan([*nothing.overall.values()]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([1, 2, 9]))
def test_no_other_threshold_has_a_higher_f1(seed, n, digits):
    truth, p = tags(n, 3, digits, seed)
    thresholds = best_thresholds(p, truth)
    for tag in range(3):
        if not truth[:, tag].any():
            assert thresholds[tag] == 0.5
            continue
        tried = [f1(truth[:, tag], p[:, tag] >= t) for t in (*p[:, tag], np.inf)]
        assert f1(truth[:, tag], p[:, tag] >= thresholds[tag]) == pytest.approx(max(tried))


def test_threshold_lies_in_the_middle():
    p = np.array([[0.9], [0.6], [0.2], [np.nan]])
    assert best_thresholds(p, np.array([[1], [1], [0], [0]])) == pytest.approx([0.4])
    # Neighbouring numbers: the middle may not let the lower one in.
    low, high = np.nextafter(0.5, 0), 0.5
    threshold = best_thresholds(np.array([[low], [high]]), np.array([[0], [1]]))
    assert low < threshold[0] <= high
    # Thresholds may differ by clip.
    p, thresholds = np.array([[0.4, 0.4], [0.4, np.nan]]), np.array([[0.3, 0.5], [0.5, 0.1]])
    decided = task_of("multilabel").decide(p, thresholds)
    np.testing.assert_array_equal(decided, [[True, False], [False, False]])


def test_targets_as_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal((5, -3), (1, 0.1), size=(90, 2))
    p = y + rng.normal((0.2, 0), (0.5, 0.2), size=(90, 2))
    overall, got = regression_scores(y, p)
    each = {"r2": sk.r2_score, "rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error}
    for name, score in each.items():
        expected = score(y, p, multioutput="raw_values")
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-10)
        assert overall[f"{name}_macro"] == pytest.approx(expected.mean())
    for c in range(2):
        assert got["pearson_r"][c] == pytest.approx(pearsonr(y[:, c], p[:, c])[0], abs=1e-12)
        # Lin's form: correlation times the bias correction.
        r = np.corrcoef(y[:, c], p[:, c])[0, 1]
        v = y[:, c].std() / p[:, c].std()
        u = (y[:, c].mean() - p[:, c].mean()) / np.sqrt(y[:, c].std() * p[:, c].std())
        assert got["ccc"][c] == pytest.approx(r * 2 / (v + 1 / v + u * u), abs=1e-10)


def test_perfect_constant_and_no_predictions():
    y = np.array([[1.0], [2.0], [4.0]])
    perfect = regression_scores(y, y.copy()).per_output
    assert (perfect["r2"], perfect["rmse"], perfect["ccc"]) == (1, 0, 1)
    mean = regression_scores(y, np.full((3, 1), y.mean())).per_output
    assert mean["r2"] == pytest.approx(0, abs=1e-12)
    assert mean["ccc"] == 0
    assert np.isnan(mean["pearson_r"])
    flat = regression_scores(np.ones((3, 1)), np.ones((3, 1))).per_output
    assert np.isnan([flat["r2"][0], flat["ccc"][0]]).all()
    nothing = regression_scores(y[:0], y[:0])
    assert np.isnan([*nothing.overall.values(), nothing.per_output["r2"][0]]).all()


def test_quadrants_run_counter_clockwise():
    angle = np.deg2rad([45, 135, 225, 315, 0, 90])
    index = Plane(0, 1, (0, 0)).quadrants(np.round([np.cos(angle), np.sin(angle)], 9).T)
    np.testing.assert_array_equal(index, [0, 1, 2, 3, 0, 0])
    assert QUADRANTS[index[1]] == "valence- arousal+"
    # Arousal is the first column here.
    moved = np.array([[4.0, 6.0], [6.0, 4.0], [6.0, np.nan], [np.nan, 6.0]])
    np.testing.assert_array_equal(Plane(1, 0, (5, 5)).quadrants(moved), [3, 1, -1, -1])


def test_the_share_in_the_right_quadrant_is_of_predicted_clips():
    y = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    task = task_of("regression").for_labels(("valence", "arousal"), y, "-1..1")
    p = np.where(np.arange(4)[:, None] == 3, np.nan, y * [[1, 1], [1, -1], [1, 1], [1, 1]])
    net, folds = Model("net", (), ()), np.zeros(4, int)
    assert score_model(task, net, p, y, folds, 1).scores["quadrant_accuracy"] == 2 / 3
    p[:] = np.nan
    assert np.isnan(score_model(task, net, p, y, folds, 1).scores["quadrant_accuracy"])


# --- metrics of plug-ins


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


def plugged_results():
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
    results = plugged_results()
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
        plugged_results()
