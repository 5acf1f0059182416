"""Regression scores against scikit-learn and a plain formula."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mvemo.fuse.metrics.regression import QUADRANTS, quadrants, regression_scores
from mvemo.fuse.models import Model
from mvemo.fuse.results import score_model
from mvemo.fuse.tasks import task_of


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    y = rng.normal((5, -3), (1, 0.1), size=(90, 2))
    p = y + rng.normal((0.2, 0), (0.5, 0.2), size=(90, 2))
    overall, got = regression_scores(y, p)
    each = {"r2": r2_score, "rmse": root_mean_squared_error, "mae": mean_absolute_error}
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
    index = quadrants(np.round(np.cos(angle), 9), np.round(np.sin(angle), 9))
    np.testing.assert_array_equal(index, [0, 1, 2, 3, 0, 0])
    assert QUADRANTS[index[1]] == "valence- arousal+"
    moved = quadrants(np.array([6.0, 4.0, np.nan]), np.array([4.0, 6.0, 6.0]), (5, 5))
    np.testing.assert_array_equal(moved, [3, 1, -1])


def test_the_share_in_the_right_quadrant_is_of_predicted_clips():
    y = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    task = task_of("regression").for_labels(("valence", "arousal"), y, "-1..1")
    p = np.where(np.arange(4)[:, None] == 3, np.nan, y * [[1, 1], [1, -1], [1, 1], [1, 1]])
    net, folds = Model("net", (), ()), np.zeros(4, int)
    assert score_model(task, net, p, y, folds, 1).scores["quadrant_accuracy"] == 2 / 3
    p[:] = np.nan
    assert np.isnan(score_model(task, net, p, y, folds, 1).scores["quadrant_accuracy"])
