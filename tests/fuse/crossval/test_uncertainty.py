"""Intervals, tests, repeats and learning curves as an evaluation carries them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, frozen_cache, make_table
from fuse_samples import MULTICLASS, make_results, plain_settings
from scipy.stats import binomtest

from mvemo.cache import open_cache
from mvemo.fuse import Model, evaluate, format_table, metrics_dict, score_model
from mvemo.fuse.crossval.evaluation import with_repeats
from mvemo.fuse.crossval.learning_curves import with_learning_curve
from mvemo.fuse.crossval.uncertainty import score_intervals, wilson_interval, with_uncertainty
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.head import HeadSettings


@pytest.fixture
def path(tmp_path):
    return frozen_cache(tmp_path / "f.h5", make_table(n=180), strength=0.4)


def test_every_model_has_an_interval_around_its_pooled_score(path):
    with open_cache(path) as cache:
        results = with_uncertainty(evaluate(cache, plain_settings(stacked=True)), n_resamples=300)
    for model in results.models:
        low, high = model.intervals["accuracy"]
        pooled = np.trace(model.confusion) / model.confusion.sum()
        assert low <= pooled <= high
        assert 0.02 < high - low < 0.3
    assert [c.model for c in results.comparisons][:1] == ["c3d+music1d"]
    text = format_table(results)
    assert "95 %" in text
    assert max(map(len, text.splitlines())) <= 79
    found = metrics_dict(results)
    assert found["models"]["integrated"]["intervals"]["accuracy"][0] < 1
    assert {c["model"] for c in found["comparisons"]} >= {"integrated", "integrated-stacked"}


def test_repeats_are_on_other_folds_and_narrow_the_test(path, tmp_path):
    with open_cache(path) as cache:
        models = ["music1d", "c3d", "c3d+music1d", "integrated"]
        first = evaluate(cache, plain_settings(models=models))
        again = [evaluate(cache, plain_settings(models=models, seed=s)) for s in (1, 2)]
        other = evaluate(cache, plain_settings(models=["c3d"], seed=3))
    results = with_uncertainty(with_repeats(first, again), n_resamples=100)
    assert len(results.repeats) == 3
    assert (results.repeats[1].folds != first.folds).any()
    for i, model in enumerate(results.models):
        assert model.scores["f1_macro"] == pytest.approx(
            np.mean([r.models[i].scores["f1_macro"] for r in (first, *again)])
        )
        assert len(model.per_fold["roc_auc_macro_ovr"]) == 18
    assert len(results.comparisons[0].differences) == 18
    with pytest.raises(BadFeatures, match="other clips or models"):
        with_repeats(first, [other])
    with pytest.raises(BadFeatures, match="on the same folds"):
        with_repeats(first, [again[0], again[0]])


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_more_training_clips_help_and_the_last_point_is_the_evaluation(tmp_path, make):
    path = make(tmp_path / "f.h5", make_table(n=240), strength=1.0)
    with open_cache(path) as cache:
        results = evaluate(cache, plain_settings(models=["music1d", "c3d", "integrated"]))
        curves = with_learning_curve(cache, results, HeadSettings(), (0.1, 0.5)).learning_curve
    for model in results.models:
        points = curves[model.name]
        assert [p[0] for p in points] == [0.1, 0.5, 1.0]
        assert [round(p[1]) for p in points] == pytest.approx([20, 100, 200], abs=8)
        assert points[-1][2] == pytest.approx(np.mean(model.per_fold["accuracy"]))
    assert curves["integrated"][-1][2] > curves["integrated"][0][2]


def test_a_perfect_score_of_one_group_is_not_certain():
    results = make_results(24, 2, missing=0)
    model = results.models[0]
    one_group = np.array(results.groups) == results.groups[0]
    outputs = np.where(one_group[:, None], model.outputs, np.nan)
    few = score_model(
        results.task,
        Model(model.name, model.features, model.modalities),
        outputs,
        results.y_true,
        results.folds,
        results.k,
    )
    results = with_uncertainty(replace(results, models=(few, *results.models[1:])), n_resamples=20)
    # All resamples of one group are the same, and say nothing of other groups.
    for low, high in results.models[0].intervals.values():
        assert np.isnan(low) or high - low > 0.5
    assert "100-100" not in format_table(results)


@pytest.fixture(scope="module")
def model():
    """Right on every clip but those of classes 1 and 2, which are taken for each other."""
    made = make_results(96, 2, missing=0)
    predicted = np.array([0, 2, 1, 3, 4, 5])[made.y_true]
    outputs = 0.9 * np.eye(6)[predicted] + 0.1 / 6
    scored = score_model(MULTICLASS, Model("net", (), ()), outputs, made.y_true, made.folds, 2)
    results = with_uncertainty(replace(made, models=(scored,)), n_resamples=100)
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
