"""Two results are compared on common clips, whatever their folds and order."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

import mvemo
from mvemo.fuse.errors import BadFeatures

IDS = [f"clip{i:02}" for i in range(60)]
Y = np.tile(["calm", "tense"], 30)


def evaluate(noise, rows=slice(None), **options):
    import pandas

    X = (Y == "tense")[:, None] + np.random.default_rng(noise).normal(size=(60, 3))
    frame = pandas.DataFrame(X, index=IDS).iloc[rows]
    y = pandas.Series(Y, index=IDS).iloc[rows]
    options = {"folds": 4, "n_resamples": 0, "audit": False, "kernel": False, **options}
    return mvemo.evaluate(frame, y, **options)


def test_the_difference_is_that_of_the_common_clips():
    a, b = evaluate(0), evaluate(1, slice(59, 9, -1), folds=3, seed=5)
    found = mvemo.compare(a, b)
    rows = [a.clip_ids.index(clip) for clip in b.clip_ids]
    expected = [
        accuracy_score(a.y_true[rows], a.models[0].y_pred[rows]),
        accuracy_score(b.y_true, b.models[0].y_pred),
    ]
    assert found.scores == pytest.approx(expected, abs=1e-12)
    assert found.difference == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert (found.n_clips, found.n_groups, found.metric) == (50, 50, "accuracy")
    assert found.low < found.difference < found.high
    back = mvemo.compare(b, a)
    assert back.difference == pytest.approx(-found.difference, abs=1e-12)


def test_a_result_does_not_differ_from_itself():
    a = evaluate(0)
    found = mvemo.compare(a, a, models=("features", "features"))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_results_that_do_not_fit_are_refused():
    a = evaluate(0)
    other = replace(a, y_true=1 - a.y_true)
    with pytest.raises(BadFeatures, match="the labels differ, for example of 'clip00'"):
        mvemo.compare(a, other)
    with pytest.raises(BadFeatures, match="unknown model 'x'; expected one of features"):
        mvemo.compare(a, a, models=("features", "x"))
    with pytest.raises(BadFeatures, match="expected the same task and outputs"):
        mvemo.compare(a, replace(a, classes=("calm", "sad")))
    with pytest.raises(BadFeatures, match="no clip was predicted in both"):
        mvemo.compare(a, replace(a, clip_ids=tuple(f"x{i}" for i in range(60))))
    with pytest.raises(mvemo.MvemoError, match=r"b: expected what mvemo.evaluate returns"):
        mvemo.compare(a, "out")
