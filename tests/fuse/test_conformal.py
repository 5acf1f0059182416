"""Sets hold the true labels as often as was asked, whatever the predictions are worth."""

import numpy as np
import pytest
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
    assert thresholds(scores, groups, [0.6]).tolist() == [[0.4]]
    assert thresholds(scores[:4], list("abcd"), [0.8, 0.9]).tolist() == [[0.4], [np.inf]]


def test_the_likeliest_class_is_always_a_member():
    outputs = np.array([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    assert members(outputs, np.array([0.1])).tolist() == [[True, False, False]] * 2
    assert members(outputs, np.array([0.75])).tolist() == [
        [True, True, False],
        [True, False, False],
    ]
