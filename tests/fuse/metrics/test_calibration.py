"""Calibration scores against plain loops; temperatures against SciPy's minimiser."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from mvemo.fuse.metrics.calibration import (
    COLDEST,
    EDGES,
    HOTTEST,
    apply_temperature,
    brier_score,
    calibration_terms,
    fit_temperature,
    log_loss,
    log_probabilities,
    reliability,
)


def drawn(n=400, n_classes=5, temperature=1.0, seed=0):
    """Labels drawn from softmax(z, axis=1), and z times `temperature`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_classes)) * 1.5
    labels = (softmax(z, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return labels, z * temperature


def test_scores_of_classes_are_of_predicted_clips():
    labels, z = drawn()
    p = softmax(z * 2, axis=1)
    p[3] = np.nan
    y, q = np.delete(labels, 3), np.delete(p, 3, axis=0)
    brier = np.square(q - np.eye(5)[y]).sum(axis=1).mean()
    assert brier_score(labels, p) == pytest.approx(brier, abs=1e-10)
    expected = sklearn_log_loss(y, q, labels=range(5))
    assert log_loss(labels, p) == pytest.approx(expected, abs=1e-10)
    # The terms of resamples, too.
    squares, losses, gaps, weights = (term.sum(axis=0) for term in calibration_terms(labels, p))
    found = squares / weights, losses / weights, np.abs(gaps).sum() / weights
    assert found == pytest.approx((brier, expected, reliability(labels, p).ece))
    # A certain and wrong prediction costs what it does in scikit-learn.
    p, labels = np.eye(2)[[0, 0]], np.array([0, 1])
    assert log_loss(labels, p) == sklearn_log_loss(labels, p)
    assert calibration_terms(labels, p)[1].mean() == pytest.approx(log_loss(labels, p), rel=1e-12)


def test_reliability_table_by_hand():
    # A bin holds its upper edge: EDGES[12] is in bin 11, as is 0.75.
    stated = np.array([1.0, EDGES[12], 0.7, 0.75, np.nan])
    table = reliability(np.array([0, 1, 0, 0, 0]), np.stack([stated, 1 - stated], axis=1))
    bins = [10, 11, 14]
    assert np.flatnonzero(table.count).tolist() == bins
    np.testing.assert_array_equal(table.count[bins], [1, 2, 1])
    np.testing.assert_allclose(table.confidence[bins], [0.7, 0.775, 1])
    np.testing.assert_allclose(table.accuracy[bins], [1, 0.5, 1])
    assert table.ece == pytest.approx((0.3 + 2 * 0.275) / 4)
    nothing = np.array([0, 1]), np.full((2, 3), np.nan)
    assert np.isnan([reliability(*nothing).ece, brier_score(*nothing), log_loss(*nothing)]).all()


def test_temperatures_are_scipys_minima():
    labels, z = drawn()
    problems = np.stack([z * 3, z, z * 0.3, softmax(z, axis=1)])
    problems[1, ::3] = np.nan
    problems[3] = log_probabilities(problems[3])
    for one in problems:
        temperature = fit_temperature(one, labels)
        rows = np.isfinite(one[:, 0])

        def loss(log_t, one=one, rows=rows):
            q = softmax(one[rows] / np.exp(log_t), axis=1)
            return -np.log(q[np.arange(rows.sum()), labels[rows]]).mean()

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
        assert np.log(temperature) == pytest.approx(best.x, abs=1e-6)
        assert loss(np.log(temperature)) <= best.fun + 1e-12


def test_temperatures_are_roots_for_scores_of_any_size():
    def slope(b, z):
        return (softmax(z * b, axis=1) * z).sum()

    rng = np.random.default_rng(5)
    for scale in (1e-3, 0.1, 1.0, 10.0, 1e3):
        for n, n_classes in ((3, 2), (40, 6), (500, 4)):
            labels = rng.integers(n_classes, size=n)
            scores = scale * (rng.normal(size=(n, n_classes)) + np.eye(n_classes)[labels])
            z = scores - scores[np.arange(n), labels][:, None]
            temperature = fit_temperature(scores, labels)
            if slope(1 / HOTTEST, z) >= 0 or slope(1 / COLDEST, z) <= 0:
                assert temperature in (HOTTEST, COLDEST)
            else:
                root = brentq(slope, 1 / HOTTEST, 1 / COLDEST, args=(z,), xtol=1e-14, rtol=1e-14)
                assert temperature == pytest.approx(1 / root, rel=1e-11)


def test_temperature_of_hopeless_cases_is_bounded():
    labels = np.array([0, 1, 2, 0])
    certain = 5.0 * np.eye(3)[labels]
    assert fit_temperature(certain, labels) == pytest.approx(COLDEST, rel=1e-6)
    assert fit_temperature(-certain, labels) == pytest.approx(HOTTEST, rel=1e-6)
    assert fit_temperature(np.zeros((4, 3)), labels) == 1
    assert fit_temperature(np.full((4, 3), np.nan), labels) == 1
    # Probabilities of exactly 0 and 1, one of them wrong.
    sure = log_probabilities(np.eye(3)[[0, 1, 2, 1]])
    assert COLDEST <= fit_temperature(sure, labels) <= HOTTEST


def test_temperature_of_one_a_clip():
    p = softmax(np.random.default_rng(0).normal(size=(4, 3)), axis=1)
    p[2] = np.nan
    each = np.array([1.0, 2.0, 1.0, 0.5])
    got = apply_temperature(p, each[:, None])
    np.testing.assert_allclose(got[0], p[0], atol=1e-14)
    np.testing.assert_allclose(got[1], np.sqrt(p[1]) / np.sqrt(p[1]).sum(), atol=1e-14)
    np.testing.assert_allclose(got[3], p[3] ** 2 / (p[3] ** 2).sum(), atol=1e-14)
    assert np.isnan(got[2]).all()


def test_tags_against_scikit_learn_over_all_pairs():
    rng = np.random.default_rng(3)
    p = rng.random((200, 4))
    labels = (rng.random((200, 4)) < p**2).astype(np.int64)
    p[5] = np.nan
    y, q = np.delete(labels, 5, axis=0).ravel(), np.delete(p, 5, axis=0).ravel()
    assert brier_score(labels, p) == pytest.approx(brier_score_loss(y, q))
    assert log_loss(labels, p) == pytest.approx(sklearn_log_loss(y, q))
    diagram = reliability(labels, p)
    assert diagram.count.sum() == len(y)
    share, stated = calibration_curve(y, q, n_bins=15)
    np.testing.assert_allclose(diagram.accuracy, share)
    np.testing.assert_allclose(diagram.confidence, stated)


@pytest.mark.parametrize("task", ["classes", "tags"])
@pytest.mark.parametrize("n", [30, 100, 1000])
def test_exact_probabilities_have_the_ece_of_chance(task, n):
    rng = np.random.default_rng(n)
    proba = softmax(1.5 * rng.normal(size=(n, 4)), axis=1)
    found = []
    for _ in range(200):
        if task == "tags":
            y_true = (rng.random(proba.shape) < proba).astype(int)
        else:
            y_true = (rng.random((n, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, 3)
        diagram = reliability(y_true, proba)
        found.append(diagram.ece)
    assert diagram.ece_by_chance == pytest.approx(np.mean(found), rel=0.12)
    # For 100 clips of classes it is far above 0.05.
    if task == "classes" and n == 100:
        assert diagram.ece_by_chance > 0.08
