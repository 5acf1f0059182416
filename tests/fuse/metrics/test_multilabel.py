"""Multi-label scores equal scikit-learn's; thresholds are the best of all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mvemo.fuse.metrics.multilabel import best_thresholds, decide, multilabel_scores


def made(n=150, tags=6, digits=None, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, tags)) < np.linspace(0.1, 0.7, tags)).astype(np.int64)
    p = np.clip(0.6 * rng.random((n, tags)) + 0.4 * truth * rng.random((n, tags)), 0, 1)
    return truth, p if digits is None else np.round(p, digits)


def f1(truth, said):
    return 2 * (truth * said).sum() / (truth.sum() + said.sum())


@pytest.mark.parametrize("digits", [None, 1])
def test_scores_are_scikit_learns(digits):
    truth, p = made(digits=digits)
    thresholds = np.array([0.3, 0.4, 0.5, 0.35, 0.5, 1.1])
    got = multilabel_scores(truth, p, decide(p, thresholds))
    said = (p >= thresholds).astype(int)
    expected = {
        "roc_auc": [sk.roc_auc_score(truth, p, average=a) for a in (None, "macro", "micro")],
        "average_precision": [
            sk.average_precision_score(truth, p, average=a) for a in (None, "macro", "micro")
        ],
    }
    for i, name in enumerate(("precision", "recall", "f1")):
        expected[name] = [
            sk.precision_recall_fscore_support(truth, said, average=a, zero_division=0)[i]
            for a in (None, "macro", "micro")
        ]
    for name, (each, macro, micro) in expected.items():
        np.testing.assert_allclose(getattr(got, name), each, rtol=0, atol=1e-10)
        assert got.macro[name] == pytest.approx(macro, abs=1e-10)
        assert got.micro[name] == pytest.approx(micro, abs=1e-10)
    np.testing.assert_array_equal(got.support, truth.sum(axis=0))


def test_missing_rows_are_left_out():
    truth, p = made()
    holed = p.copy()
    holed[::4] = np.nan
    rows = np.arange(len(p)) % 4 > 0
    got, expected = multilabel_scores(truth, holed), multilabel_scores(truth[rows], p[rows])
    assert got.macro == expected.macro
    assert got.micro == expected.micro


def test_tags_without_a_score_do_not_count_in_the_mean():
    truth = np.array([[1, 0, 1, 0], [0, 0, 1, 0]])
    p = np.array([[0.9, 0.1, 0.6, 0.8], [0.2, 0.3, 0.7, 0.1]])
    got = multilabel_scores(truth, p)
    # The second tag is neither true nor decided; the last is decided but never true.
    np.testing.assert_array_equal(got.f1, [1, np.nan, 1, 0])
    np.testing.assert_array_equal(got.roc_auc, [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(got.average_precision, [1, np.nan, 1, np.nan])
    assert got.macro["f1"] == pytest.approx(2 / 3)
    nothing = multilabel_scores(truth, np.full(p.shape, np.nan))
    assert np.isnan([*nothing.macro.values(), *nothing.micro.values()]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([1, 2, 9]))
def test_no_other_threshold_has_a_higher_f1(seed, n, digits):
    truth, p = made(n, 3, digits, seed)
    thresholds = best_thresholds(p, truth)
    for tag in range(3):
        if not truth[:, tag].any():
            assert thresholds[tag] == 0.5
            continue
        tried = [f1(truth[:, tag], p[:, tag] >= t) for t in (*p[:, tag], np.inf)]
        assert f1(truth[:, tag], decide(p, thresholds)[:, tag]) == pytest.approx(max(tried))


def test_threshold_lies_in_the_middle():
    p = np.array([[0.9], [0.6], [0.2], [np.nan]])
    assert best_thresholds(p, np.array([[1], [1], [0], [0]])) == pytest.approx([0.4])
    # Neighbouring numbers: the middle may not let the lower one in.
    low, high = np.nextafter(0.5, 0), 0.5
    threshold = best_thresholds(np.array([[low], [high]]), np.array([[0], [1]]))
    assert low < threshold[0] <= high


def test_thresholds_may_differ_by_clip():
    said = decide(np.array([[0.4, 0.4], [0.4, np.nan]]), np.array([[0.3, 0.5], [0.5, 0.1]]))
    np.testing.assert_array_equal(said, [[True, False], [False, False]])
