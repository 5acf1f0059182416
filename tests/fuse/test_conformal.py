"""Sets hold the true labels as often as was asked, whatever the predictions are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from mvemo.fuse.conformal import cross_conformal, members, thresholds


def sample(task, seed, n=3000, strength=2.0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 4))
    noise = rng.normal(size=(n, 4))
    if task == "softmax":
        y = (strength * hidden + rng.gumbel(size=(n, 4))).argmax(axis=1)
        return y, softmax(strength * hidden, axis=1)
    if task == "sigmoid":
        return (rng.random((n, 4)) < expit(strength * hidden)).astype(int), expit(strength * hidden)
    return strength * hidden + noise, strength * hidden


@pytest.mark.parametrize("coverage", [0.8, 0.9])
@pytest.mark.parametrize("strength", [0.1, 2.0])
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_the_asked_share_is_covered(link, strength, coverage):
    y_true, outputs = sample(link, 1, strength=strength)
    outputs[5] = np.nan
    groups = [f"g{i // 3}" for i in range(len(y_true))]
    folds = np.arange(len(y_true)) // 3 % 6
    found = cross_conformal(y_true, outputs, folds, groups, link, coverage)
    assert np.nanmean(found.covered) == pytest.approx(coverage, abs=0.02)
    assert np.isnan(found.covered[5]).all()
    assert found.size[5].sum() == 0
    if link == "softmax":
        # Worthless predictions are answered by nearly all classes.
        assert found.size.mean() > 3 if strength < 1 else found.size.mean() < 2.2


def test_the_threshold_counts_groups_and_one_more():
    scores = np.array([[0.1], [0.2], [0.3], [0.4], [0.9], [0.9], [0.9]])
    groups = ["a", "b", "c", "d", "e", "e", "e"]
    # Rank 3.6 of 5 groups and a new one.
    assert thresholds(scores, groups, [0.6]) == pytest.approx(0.36)
    assert thresholds(scores[:4], list("abcd"), [0.8, 0.9]).tolist() == [[0.4], [np.inf]]
    # A class without clips, or with too few, is in every set.
    columns = np.array([[0.1, np.nan, np.nan], [0.2, 0.5, np.nan]])
    assert thresholds(columns, list("ab"), [0.5]) == pytest.approx(np.array([[0.15, 0.5, np.inf]]))


@given(st.integers(0, 10**6))
def test_the_threshold_follows_a_monotone_scale(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, (40, 1)).astype(float)
    groups = [f"g{i}" for i in rng.integers(0, 25, 40)]
    limits = thresholds(scores, groups, np.linspace(0.5, 0.99, 20))
    assert (np.sort(limits, axis=0) == limits).all()
    assert thresholds(3 * scores, groups, np.linspace(0.5, 0.99, 20)) == pytest.approx(3 * limits)


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_the_optional_form_covers_each_class_or_all_ratings_at_once(link):
    y_true, outputs = sample(link, 3, n=6000, strength=1.0)
    if link == "identity":
        # Ratings of other units, one of them with heavy tails.
        y_true = outputs + (y_true - outputs) ** [1, 3, 1, 1] * [1, 10, 0.01, 1]
    elif link == "softmax":
        # The first class gets too small probabilities.
        outputs = outputs * [0.3, 1, 1, 1]
        outputs /= outputs.sum(axis=1, keepdims=True)
    n = len(y_true)
    groups, folds = [f"g{i // 3}" for i in range(n)], np.arange(n) // 3 % 6
    usual, other = (
        cross_conformal(y_true, outputs, folds, groups, link, 0.9, form) for form in (False, True)
    )
    if link == "identity":
        assert usual.covered.all(axis=1).mean() < 0.75
        assert other.covered.all(axis=1).mean() == pytest.approx(0.9, abs=0.02)
    else:
        ones = y_true[:, None] == np.arange(4) if link == "softmax" else y_true > 0
        shares = [(s.sets & ones).sum(axis=0) / ones.sum(axis=0) for s in (usual, other)]
        assert shares[1] == pytest.approx(0.9, abs=0.03)
        assert np.ptp(shares[0]) > 0.1 or link == "sigmoid"


def test_the_likeliest_class_is_always_a_member():
    outputs = np.array([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    assert members(outputs, np.array([0.1])).tolist() == [[True, False, False]] * 2
    assert members(outputs, np.array([0.75])).sum(axis=1).tolist() == [2, 1]
