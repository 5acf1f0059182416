"""Corrected tests of fusions against their best single modality."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from mvemo.fuse.statistics.model_tests import holm, nadeau_bengio


def test_statistic_by_hand():
    # Mean 0.02, variance 0.00025 over 5; (1/5 + 1/4) 0.00025 = 0.0001125.
    mean, t, p = nadeau_bengio([0.0, 0.01, 0.02, 0.03, 0.04], 80, 20)
    assert mean == pytest.approx(0.02, abs=1e-12)
    assert t == pytest.approx(0.02 / np.sqrt(0.0001125), abs=1e-10)
    # Student's t with 4 degrees of freedom has a closed form.
    x = t / np.sqrt(4 + t * t)
    assert p == pytest.approx(1 - x * (3 - x * x) / 2, abs=1e-10)


def test_without_overlap_it_is_the_plain_t_test():
    d = np.random.default_rng(0).normal(0.1, 0.3, size=12)
    mean, t, p = nadeau_bengio(np.append(d, np.nan), 1e15, 1)
    expected = ttest_1samp(d, 0)
    assert (t, p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-10)
    assert mean == pytest.approx(d.mean(), abs=1e-12)
    assert nadeau_bengio(d, 5, 1)[2] > p


def test_degenerate_differences():
    assert nadeau_bengio([0, 0, 0], 5, 1) == (0, 0, 1)
    assert nadeau_bengio([0.1] * 6, 5, 1) == (pytest.approx(0.1), np.inf, 0)
    assert np.isnan(nadeau_bengio([0.1], 5, 1)[1:]).all()
    assert np.isnan(nadeau_bengio([], 5, 1)).all()
    with pytest.raises(ValueError, match="n_train 0"):
        nadeau_bengio([1, 2], 0, 1)


def test_false_alarms_are_held_at_the_level():
    # Six-fold differences with no true difference, correlated as overlap makes them: with
    # correlation n_test / (n_train + n_test) = 1/6 the correction is exact.
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(2000, 1)) * np.sqrt(1 / 6)
    d = shared + rng.normal(size=(2000, 6)) * np.sqrt(5 / 6)
    alarms = np.mean([nadeau_bengio(row, 5, 1)[2] < 0.05 for row in d])
    plain = np.mean(ttest_1samp(d, 0, axis=1).pvalue < 0.05)
    # Standard error 0.005.
    assert abs(alarms - 0.05) < 0.02
    assert plain > 0.08


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    np.testing.assert_array_equal(holm([np.nan, 0.02, 0.02]), [np.nan, 0.04, 0.04])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_rule_rejects(p):
    corrected = holm(p)
    alpha = 0.05
    rejected = [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > alpha:
            break
        rejected[i] = True
    assert (corrected <= alpha).tolist() == rejected
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
