"""Intervals that do not collapse where every resample scores the same."""

import dataclasses

import numpy as np
import pytest
from fuse_samples import MULTICLASS, make_results
from scipy.stats import binomtest

from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.models import Model
from mvemo.fuse.results import score_model
from mvemo.fuse.statistics.intervals import score_intervals, wilson_interval


@pytest.fixture(scope="module")
def model():
    """Right on every clip but those of classes 1 and 2, which are taken for each other."""
    made = make_results(96, 2, missing=0)
    predicted = np.array([0, 2, 1, 3, 4, 5])[made.y_true]
    outputs = 0.9 * np.eye(6)[predicted] + 0.1 / 6
    scored = score_model(MULTICLASS, Model("net", (), ()), outputs, made.y_true, made.folds, 2)
    results = with_uncertainty(dataclasses.replace(made, models=(scored,)), n_resamples=100)
    return results.models[0]


def test_a_class_that_is_always_right_or_always_wrong_is_not_certain(model):
    # 16 clips in 8 groups of each class.
    low, high = wilson_interval(8, 8)
    for name in ("recall", "precision"):
        assert model.intervals[f"{name}:0"] == (low, high)
        assert model.intervals[f"{name}:1"] == pytest.approx((0, 1 - low))
    assert 0.6 < low < 0.7
    assert high == 1
    # F1 by way of the share that is right of the clips that have the class or are given it.
    assert model.intervals["f1:0"] == pytest.approx((2 * low / (1 + low), 1))
    wrong = wilson_interval(0, 16)[1]
    assert model.intervals["f1:1"] == pytest.approx((0, 2 * wrong / (1 + wrong)))


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 2), (5, 9), (12, 12)])
def test_wilson_is_scipys(n_right, n):
    expected = binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(n_right, n) == pytest.approx(tuple(expected), abs=1e-14)


def test_other_intervals_are_percentiles_of_the_resamples(model):
    low, high = model.intervals["accuracy"]
    assert 0.4 < low < 2 / 3 < high < 0.9
    values = np.linspace(0.2, 0.8, 101)
    assert score_intervals({"accuracy": values}, {}, ["a", "b"])["accuracy"] == pytest.approx(
        tuple(np.percentile(values, [2.5, 97.5]))
    )


def test_scores_that_are_no_shares_have_no_interval_then(model):
    same = np.full(50, 0.7)
    intervals = score_intervals({"r2:0": same, "accuracy": same}, {}, ["a", "b"])
    assert np.isnan([*intervals["r2:0"], *intervals["accuracy"]]).all()
