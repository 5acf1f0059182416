"""Scores against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from mvemo.fuse.metrics.multiclass import (
    accuracy,
    balanced_accuracy,
    class_scores,
    cohen_kappa,
    confusion_matrix,
    f1_macro,
    roc_auc_macro_ovr,
)


def sample(seed, n=80, classes=4, ties=False):
    rng = np.random.default_rng(seed)
    true = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    p = rng.dirichlet(np.ones(classes), n)
    if ties:
        p = np.round(p, 1) + 0.05
        p /= p.sum(axis=1, keepdims=True)
    return true, p


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_as_scikit_learn(seed, ties):
    true, p = sample(seed, ties=ties)
    said = p.argmax(axis=1)
    confusion = confusion_matrix(true, said, 4)
    assert (confusion == reference.confusion_matrix(true, said, labels=range(4))).all()
    assert accuracy(true, said) == pytest.approx(reference.accuracy_score(true, said))
    expected = reference.balanced_accuracy_score(true, said)
    assert balanced_accuracy(true, said, 4) == pytest.approx(expected, abs=1e-12)
    expected = reference.cohen_kappa_score(true, said)
    assert cohen_kappa(true, said, 4) == pytest.approx(expected, abs=1e-12)
    assert f1_macro(true, said, 4) == pytest.approx(reference.f1_score(true, said, average="macro"))
    assert roc_auc_macro_ovr(true, p) == pytest.approx(
        reference.roc_auc_score(true, p, multi_class="ovr", average="macro"), abs=1e-12
    )
    precision, recall, _ = class_scores(true, said, 4)
    expected = reference.recall_score(true, said, average=None, labels=range(4))
    np.testing.assert_allclose(recall, expected)
    np.testing.assert_allclose(
        np.nan_to_num(precision),
        reference.precision_score(true, said, average=None, labels=range(4), zero_division=0),
    )


def test_classes_that_are_not_there_are_left_out():
    true, p = sample(5)
    present = true != 2
    expected = np.mean(
        [reference.roc_auc_score(true[present] == c, p[present, c]) for c in (0, 1, 3)]
    )
    assert roc_auc_macro_ovr(true[present], p[present]) == pytest.approx(expected)
    assert np.isnan(roc_auc_macro_ovr(np.zeros(4, int), p[:4]))
    # Neither true nor predicted: no F1; predicted and never true: F1 0.
    assert f1_macro(np.array([0, 2]), np.array([0, 2]), 3) == 1.0
    y_true, y_pred = np.array([0] * 4 + [2] * 4), np.array([0] * 3 + [1] + [2] * 4)
    assert f1_macro(y_true, y_pred, 3) == pytest.approx((6 / 7 + 0 + 1) / 3)


def test_nothing_predicted_is_nan():
    empty = np.zeros(0, int)
    assert np.isnan(accuracy(empty, empty))
    assert np.isnan(f1_macro(empty, empty, 3))
    assert np.isnan(balanced_accuracy(empty, empty, 3))
    assert np.isnan(cohen_kappa(empty, empty, 3))
    # All of one class and said to be: there is no agreement beyond chance to measure.
    assert np.isnan(cohen_kappa(np.ones(3, int), np.ones(3, int), 3))
    assert confusion_matrix(empty, empty, 2).tolist() == [[0, 0], [0, 0]]
