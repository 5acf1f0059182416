"""Scores in resamples are those of the resampled clips; intervals hold the true score."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from mvemo.fuse.bootstrap import (
    MIN_GROUPS,
    Resamples,
    bootstrap_multiclass,
    resample_groups,
    score_interval,
    wilson_interval,
)
from mvemo.fuse.metrics.scores import multiclass_scores
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.base import Outcome


def made(n=90, n_classes=4, n_models=3, seed=0, digits=None):
    """Labels, probabilities with missing rows and, with few digits, many ties; groups."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(n) // 3)
    labels = rng.integers(n_classes, size=n)
    scores = rng.normal(size=(n_models, n, n_classes)) + np.eye(n_classes)[labels]
    p = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    p = p if digits is None else np.round(p, digits)
    p[1, rng.random(n) < 0.2] = np.nan
    return labels, p, tuple(f"g{g}" for g in groups)


def resampled(resamples, index, mask):
    """Indices of the clips of one resample, repeated; those that a model scored."""
    rows = np.repeat(np.arange(len(resamples.codes)), resamples.counts[index][resamples.codes])
    return rows[mask[rows]]


def test_counts_hold_whole_groups_and_repeat_with_the_seed():
    groups = ["b", "a", "b", "c", "a", "c", "c"]
    resamples = resample_groups(groups, 700, seed=3)
    assert resamples.counts.shape == (701, 3)
    assert (resamples.counts[0] == 1).all()
    assert (resamples.counts.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(resamples.codes, [1, 0, 1, 2, 0, 2, 2])
    weights = resamples.counts[:, resamples.codes]
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(resamples.counts, resample_groups(groups, 700, seed=3).counts)
    assert (resamples.counts != resample_groups(groups, 700, seed=4).counts).any()
    # A group's count is binomial(3, 1/3): mean 1, variance 2/3.
    many = resample_groups(groups, 20_000).counts
    np.testing.assert_allclose(many.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(many.var(axis=0), 2 / 3, atol=0.03)


def labelled(task, digits):
    """Labels, outputs of three models and groups of any task."""
    classes, p, groups = made(digits=digits)
    rng = np.random.default_rng(5)
    if task == "multilabel":
        return (rng.random((90, 4)) < 0.4).astype(np.int64), p, groups
    if task == "regression":
        labels = rng.normal((5, -3, 0, 1), size=(90, 4))
        return labels, labels + p + rng.normal(size=p.shape), groups
    return classes, p, groups


@pytest.mark.parametrize(
    ("name", "digits"),
    [("multiclass", None), ("multiclass", 1), ("multilabel", 1), ("regression", None)],
)
def test_scores_of_resamples_are_those_of_the_resampled_clips(name, digits):
    labels, p, groups = labelled(name, digits)
    task, resamples = task_of(name), resample_groups(groups, 300, seed=1)
    if name != "multiclass":
        task = task.for_labels(("valence", "arousal", "c", "d"), labels)
    decided = np.stack([task.decide(outputs) for outputs in p])
    scores = task.resample(Outcome(labels, p, decided, np.zeros(90, int), 1), resamples)
    for m, d in product(range(3), (0, 7, 255, 256, 299)):
        rows = resampled(resamples, d, np.isfinite(p[m]).all(axis=1))
        overall, per_output = task.measure(labels[rows], p[m, rows], decided[m, rows])
        expected = {**overall, **task.calibration(labels[rows], p[m, rows])}
        expected.pop("ece_by_chance", None)
        for score, values in per_output.items():
            expected |= {f"{score}:{i}": value for i, value in enumerate(values)}
        if name == "multiclass":
            expected["roc_auc_macro_ovr_pooled"] = expected.pop("roc_auc_macro_ovr")
        assert set(expected) | {"primary"} == set(scores)
        for score, value in expected.items():
            # Precision of a class that is never predicted counts as 0.
            plain = np.nan_to_num if score.startswith("precision:") else float
            expected_score = pytest.approx(plain(value), abs=1e-9, nan_ok=True)
            assert plain(scores[score][m, d]) == expected_score, score


def test_small_blocks_give_the_same_resamples_and_scores(monkeypatch):
    labels, p, groups = made(n=300)
    whole = resample_groups(groups, 100)
    scores = bootstrap_multiclass(labels, p, whole)
    monkeypatch.setattr("mvemo.fuse.bootstrap.BLOCK_BYTES", 1)
    blocks = resample_groups(groups, 100)
    np.testing.assert_array_equal(blocks.counts, whole.counts)
    for name, values in bootstrap_multiclass(labels, p, blocks).items():
        np.testing.assert_array_equal(values, scores[name], err_msg=name)


def test_auc_is_the_mean_over_folds():
    labels, p, groups = made(seed=2, digits=2)
    resamples = resample_groups(groups, 1)
    whole = Resamples(resamples.codes, np.ones_like(resamples.counts))
    folds, name = np.arange(len(labels)) % 5, "roc_auc_macro_ovr"
    scores = bootstrap_multiclass(labels, p, whole, folds)
    for m, outputs in enumerate(p):
        per_fold = [np.isfinite(outputs).all(axis=1) & (folds == f) for f in range(5)]
        expected = [
            multiclass_scores(labels[rows], outputs[rows], outputs[rows].argmax(1)).overall[name]
            for rows in per_fold
        ]
        assert scores[name][m, 0] == pytest.approx(np.nanmean(expected), abs=1e-12)


def test_classes_that_a_resample_lacks_are_left_out():
    labels = np.array([0, 1, 2])
    p = np.array([[[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]]])
    resamples = Resamples(np.arange(3), np.array([[2, 1, 0], [3, 0, 0]], dtype=np.uint8))
    scores = bootstrap_multiclass(labels, p, resamples)
    assert scores["accuracy"][0] == pytest.approx([2 / 3, 1])
    # Class 0: F1 4/5; class 1: 0; class 2 is neither true nor predicted.
    assert scores["f1_macro"][0] == pytest.approx([0.4, 1])
    # Class 0 in order; class 1 has both clips of class 0 above its own.
    assert scores["roc_auc_macro_ovr_pooled"][0, 0] == pytest.approx(0.5)
    assert np.isnan(scores["roc_auc_macro_ovr_pooled"][0, 1])


# --- intervals


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 2), (5, 9), (12, 12)])
def test_wilson_is_scipys(n_right, n):
    expected = stats.binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    z = stats.norm.ppf(0.975)
    assert wilson_interval(n_right / n, n, z) == pytest.approx(tuple(expected), abs=1e-14)


def test_a_difference_of_means_has_students_interval():
    values = np.random.default_rng(0).normal(size=(30, 1))
    resamples = resample_groups(range(30), 20000)
    found = score_interval("difference", resamples.sums(values)[:, 0] / 30, resamples)
    expected = stats.ttest_1samp(values[:, 0], 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(expected), abs=0.01)


def test_a_score_that_is_the_same_in_all_resamples_is_not_certain():
    resamples = resample_groups(np.arange(24) // 2, 50)
    for value, name in ((1.0, "recall:0"), (0.0, "accuracy"), (1.0, "mcc"), (-1.0, "cohen_kappa")):
        low, high = score_interval(name, np.full(51, value), resamples)
        assert high - low > 0.2
        assert low == value or high == value


def test_few_groups_have_no_interval():
    groups = np.repeat(np.arange(MIN_GROUPS - 1), 20)
    resamples = resample_groups(groups, 50)
    drawn = np.random.default_rng(0).uniform(size=51)
    assert np.isnan(score_interval("accuracy", drawn, resamples)).all()
    # Only the clips of the score count.
    resamples = resample_groups(np.arange(60) // 3, 50)
    assert np.isfinite(score_interval("recall:1", drawn, resamples)).all()
    assert np.isnan(score_interval("recall:1", drawn, resamples, np.arange(60) < 20)).all()


@pytest.mark.parametrize(
    ("task", "n_groups", "size"),
    [("multiclass", 8, 5), ("multiclass", 20, 1), ("multiclass", 30, 4), ("regression", 12, 4)],
)
def test_intervals_hold_the_true_score_as_often_as_they_state(task, n_groups, size):
    """The percentiles of the resamples held it in 85 to 90 % with ten groups."""
    rng = np.random.default_rng(n_groups)
    kind, n_runs = task_of(task), 300

    def clips(n):
        groups = np.repeat(np.arange(n), rng.integers(1, 2 * size, n))
        error = 0.5 * rng.normal(size=n)[groups] + 0.85 * rng.normal(size=len(groups))
        if task == "regression":
            y = rng.normal(size=n)[groups]
            return groups, y[:, None], (0.7 * y + 0.5 * error)[:, None]
        right = error < 0.7
        return groups, np.zeros(len(groups), int), np.where(right[:, None], [0.8, 0.2], [0.3, 0.7])

    _, y_true, outputs = clips(20000)
    true = kind.primary(y_true, outputs)
    held = 0
    for run in range(n_runs):
        groups, y_true, outputs = clips(n_groups)
        resamples = resample_groups(groups, 300, run)
        zeros = np.zeros(len(groups), int)
        drawn = kind.resample_primary(y_true, outputs[None], zeros, 1, resamples)[0]
        low, high = score_interval(kind.primary_metric, drawn, resamples)
        held += low <= true <= high
    error = np.sqrt(0.95 * 0.05 / n_runs)
    assert 0.93 - 2 * error <= held / n_runs <= 0.97 + 2 * error
