"""Scores in each resample equal scikit-learn's of the resampled clips, one by one."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from mvemo.fuse.bootstrap import (
    Resamples,
    areas,
    bootstrap_multiclass,
    bootstrap_multilabel,
    bootstrap_regression,
    percentile_interval,
    resample_groups,
)
from mvemo.fuse.metrics.scores import multiclass_scores

TOLERANCE = 1e-10


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
    assert resamples.counts.shape == (700, 3)
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


@pytest.mark.parametrize("digits", [None, 1])
def test_scores_are_scikit_learns_scores_of_the_resampled_clips(digits):
    labels, p, groups = made(digits=digits)
    resamples = resample_groups(groups, 300, seed=1)
    scores = bootstrap_multiclass(labels, p, resamples)
    for m in range(len(p)):
        mask = np.isfinite(p[m]).all(axis=1)
        for d in (0, 7, 255, 256, 299):
            rows = resampled(resamples, d, mask)
            y, q = labels[rows], p[m, rows]
            auc = np.mean([roc_auc_score(y == c, q[:, c]) for c in range(4)])
            expected = [accuracy_score(y, q.argmax(1)), f1_score(y, q.argmax(1), average="macro")]
            got = [scores[name][m, d] for name in ("balanced_accuracy", "cohen_kappa")]
            by_class = [balanced_accuracy_score, cohen_kappa_score]
            np.testing.assert_allclose(got, [f(y, q.argmax(1)) for f in by_class], atol=TOLERANCE)
            of_classes = precision_score(y, q.argmax(1), average=None, zero_division=0)
            classes = np.union1d(y, q.argmax(1))
            for at, c in enumerate(classes):
                got = scores[f"precision:{c}"][m, d]
                assert got == pytest.approx(of_classes[at], abs=TOLERANCE)
            got = [scores[n][m, d] for n in ("accuracy", "f1_macro", "roc_auc_macro_ovr_pooled")]
            np.testing.assert_allclose(got, [*expected, auc], rtol=0, atol=TOLERANCE)


def test_a_resample_of_every_group_once_gives_the_reports_own_scores():
    labels, p, groups = made(seed=2, digits=2)
    resamples = resample_groups(groups, 1)
    whole = Resamples(resamples.codes, np.ones_like(resamples.counts))
    folds = np.arange(len(labels)) % 5
    scores = bootstrap_multiclass(labels, p, whole, folds)
    for m in range(len(p)):
        mask = np.isfinite(p[m]).all(axis=1)
        per_fold = [mask & (folds == f) for f in range(5)]
        overall, *by_fold = (
            multiclass_scores(labels[rows], p[m, rows], p[m, rows].argmax(1)).overall
            for rows in (mask, *per_fold)
        )
        got = {name: scores[name][m, 0] for name in ("accuracy", "f1_macro", "cohen_kappa")}
        assert got == pytest.approx({name: overall[name] for name in got}, abs=1e-12)
        name = "roc_auc_macro_ovr"
        expected = np.nanmean([scores[name] for scores in by_fold])
        assert scores[name][m, 0] == pytest.approx(expected, abs=1e-12)
        assert scores[f"{name}_pooled"][m, 0] == pytest.approx(overall[name], abs=1e-12)


def test_classes_that_a_resample_lacks_are_left_out():
    labels = np.array([0, 1, 2])
    p = np.array([[[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]]])
    resamples = Resamples(np.arange(3), np.array([[2, 1, 0], [3, 0, 0]], dtype=np.uint16))
    scores = bootstrap_multiclass(labels, p, resamples)
    assert scores["accuracy"][0] == pytest.approx([2 / 3, 1])
    # Class 0: F1 4/5; class 1: 0; class 2 is neither true nor predicted.
    assert scores["f1_macro"][0] == pytest.approx([0.4, 1])
    # Class 0 in order; class 1 has both clips of class 0 above its own.
    assert scores["roc_auc_macro_ovr_pooled"][0, 0] == pytest.approx(0.5)
    assert np.isnan(scores["roc_auc_macro_ovr_pooled"][0, 1])


def test_intervals_are_percentiles_and_differences_are_paired():
    labels, p, groups = made()
    scores = bootstrap_multiclass(labels, p[[0, 0, 2]], resample_groups(groups, 400))
    accuracy, f1 = scores["accuracy"], scores["f1_macro"]
    expected = np.percentile(accuracy, [2.5, 97.5], axis=1).T
    np.testing.assert_allclose(percentile_interval(accuracy), expected, atol=1e-12)
    np.testing.assert_array_equal(percentile_interval(f1[0] - f1[1]), [0, 0])
    low, high = percentile_interval(accuracy[0] - accuracy[2])
    assert low < high
    some = np.array([[1.0, np.nan, 3.0, 2.0], [np.nan] * 4])
    np.testing.assert_allclose(percentile_interval(some, 0.5)[0], [1.5, 2.5])
    assert np.isnan(percentile_interval(some)[1]).all()


def test_intervals_cover_the_true_accuracy():
    # 200 data sets of 60 groups whose 3 clips are right or wrong together, with p = 0.7.
    rng = np.random.default_rng(0)
    groups = np.arange(180) // 3
    resamples = resample_groups(groups, 400)
    right = np.repeat(rng.random((200, 60)) < 0.7, 3, axis=1)
    p = np.stack([right, ~right], axis=2).astype(float)
    scores = bootstrap_multiclass(np.zeros(180, int), p, resamples)
    ends = percentile_interval(scores["accuracy"])
    covered = np.mean((ends[:, 0] <= 0.7) & (ends[:, 1] >= 0.7))
    # Nominally 0.95; standard error 0.015.
    assert 0.89 < covered < 0.99


def test_multilabel_scores_are_scikit_learns():
    rng = np.random.default_rng(5)
    truth = (rng.random((80, 5)) < 0.4).astype(np.int64)
    p = np.round(np.clip(rng.random((2, 80, 5)) * 0.7 + 0.3 * truth, 0, 1), 1)
    p[1, :9] = np.nan
    said = p >= 0.5
    resamples = resample_groups(np.arange(80) // 2, 260)
    scores = bootstrap_multilabel(truth, p, said, resamples)
    for m in range(2):
        for d in (0, 100, 259):
            rows = resampled(resamples, d, np.isfinite(p[m]).all(axis=1))
            y, q = truth[rows], p[m, rows]
            expected = {
                "f1_macro": f1_score(y, said[m, rows], average="macro"),
                "f1_micro": f1_score(y, said[m, rows], average="micro"),
                "roc_auc_macro": roc_auc_score(y, q, average="macro"),
                "average_precision_macro": average_precision_score(y, q, average="macro"),
                "precision_micro": precision_score(y, said[m, rows], average="micro"),
                "recall_macro": recall_score(y, said[m, rows], average="macro"),
                "roc_auc_micro": roc_auc_score(y, q, average="micro"),
                "average_precision_micro": average_precision_score(y, q, average="micro"),
                "f1:2": f1_score(y[:, 2], said[m, rows][:, 2]),
                "roc_auc:4": roc_auc_score(y[:, 4], q[:, 4]),
            }
            for name, value in expected.items():
                assert scores[name][m, d] == pytest.approx(value, abs=TOLERANCE)


def test_regression_scores_are_scikit_learns():
    rng = np.random.default_rng(6)
    y = rng.normal((5, -3), size=(70, 2))
    p = y + rng.normal(size=(2, 70, 2)) * [[[0.4, 0.9]]] + 0.2
    p[1, 5:11] = np.nan
    resamples = resample_groups(np.arange(70) // 2, 30)
    scores = bootstrap_regression(y, p, resamples)
    for m in range(2):
        for d in (0, 29):
            rows = resampled(resamples, d, np.isfinite(p[m]).all(axis=1))
            for c in range(2):
                t, q = y[rows, c], p[m, rows, c]
                got = [scores[name][m, c, d] for name in ("r2", "rmse", "ccc", "mae")]
                correlation = scores["pearson_r"][m, c, d]
                assert correlation == pytest.approx(np.corrcoef(t, q)[0, 1], abs=TOLERANCE)
                cov = np.cov(t, q, bias=True)
                ccc = 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (t.mean() - q.mean()) ** 2)
                expected = [r2_score(t, q), root_mean_squared_error(t, q), ccc]
                expected.append(mean_absolute_error(t, q))
                np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_areas_of_one_class_alone_are_nan():
    resamples = resample_groups(range(4), 3)
    got = areas(np.ones((4, 1), bool), np.ones((1, 4, 1)), np.ones((1, 4), bool), resamples)
    assert np.isnan(got).all()
    got = areas(np.zeros((4, 1), bool), np.ones((1, 4, 1)), np.ones((1, 4), bool), resamples)
    assert np.isnan(got).all()
