"""Scores against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from mvemo.fuse.metrics.multiclass import (
    accuracy,
    class_scores,
    confusion_matrix,
    f1_macro,
    roc_auc,
    roc_auc_macro_ovr,
    roc_curve,
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
    assert f1_macro(confusion) == pytest.approx(reference.f1_score(true, said, average="macro"))
    assert roc_auc_macro_ovr(true, p) == pytest.approx(
        reference.roc_auc_score(true, p, multi_class="ovr", average="macro"), abs=1e-12
    )
    precision, recall, _ = class_scores(confusion)
    expected = reference.recall_score(true, said, average=None, labels=range(4))
    np.testing.assert_allclose(recall, expected)
    np.testing.assert_allclose(
        np.nan_to_num(precision),
        reference.precision_score(true, said, average=None, labels=range(4), zero_division=0),
    )


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_curve_is_the_auc(ties):
    true, p = sample(3, ties=ties)
    x, y = roc_curve(true == 1, p[:, 1])
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    assert area == pytest.approx(roc_auc(true == 1, p[:, 1]), abs=1e-12)


def test_classes_that_are_not_there_are_left_out():
    true, p = sample(5)
    present = true != 2
    expected = np.mean([roc_auc(true[present] == c, p[present, c]) for c in (0, 1, 3)])
    assert roc_auc_macro_ovr(true[present], p[present]) == pytest.approx(expected)
    assert np.isnan(roc_auc_macro_ovr(np.zeros(4, int), p[:4]))
    # Neither true nor said: no F1; said and never true: F1 0.
    assert f1_macro(np.array([[3, 0, 0], [0, 0, 0], [0, 0, 3]])) == 1.0
    assert f1_macro(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 4]])) == pytest.approx(
        (6 / 7 + 0 + 1) / 3
    )


def test_nothing_predicted_is_nan():
    empty = np.zeros(0, int)
    assert np.isnan(accuracy(empty, empty))
    assert np.isnan(f1_macro(np.zeros((3, 3), int)))
