"""Scores in each resample equal those of the resampled clips, one by one."""

from itertools import product

import numpy as np
import pytest

from mvemo.fuse.bootstrap import Resamples, bootstrap_multiclass, resample_groups
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
