"""Coverage of the intervals, and their form by independent code."""

import numpy as np
import pytest
from scipy import stats

from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.intervals import MIN_GROUPS, score_interval, wilson_interval
from mvemo.fuse.tasks import task_of


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 2), (5, 9), (12, 12)])
def test_wilson_is_scipys(n_right, n):
    expected = stats.binomtest(n_right, n).proportion_ci(0.95, method="wilson")
    z = stats.norm.ppf(0.975)
    assert wilson_interval(n_right / n, n, z) == pytest.approx(tuple(expected), abs=1e-14)


def test_a_difference_of_means_has_students_interval():
    values = np.random.default_rng(0).normal(size=(30, 1))
    resamples = resample_groups(range(30), 20000)
    found = score_interval("difference", resamples.sums(values)[:, 0] / 30, resamples)
    expected = stats.ttest_1samp(values[:, 0], 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(expected), abs=0.01)


def test_a_score_that_is_the_same_in_all_resamples_is_not_certain():
    resamples = resample_groups(np.arange(24) // 2, 50)
    for value, name in ((1.0, "recall:0"), (0.0, "accuracy"), (1.0, "mcc"), (-1.0, "cohen_kappa")):
        low, high = score_interval(name, np.full(51, value), resamples)
        assert high - low > 0.2
        assert low == value or high == value


def test_few_groups_have_no_interval():
    groups = np.repeat(np.arange(MIN_GROUPS - 1), 20)
    resamples = resample_groups(groups, 50)
    drawn = np.random.default_rng(0).uniform(size=51)
    assert np.isnan(score_interval("accuracy", drawn, resamples)).all()
    # Only the clips of the score count.
    resamples = resample_groups(np.arange(60) // 3, 50)
    assert np.isfinite(score_interval("recall:1", drawn, resamples)).all()
    assert np.isnan(score_interval("recall:1", drawn, resamples, np.arange(60) < 20)).all()


@pytest.mark.parametrize(
    ("task", "n_groups", "size"),
    [("multiclass", 8, 5), ("multiclass", 20, 1), ("multiclass", 30, 4), ("regression", 12, 4)],
)
def test_intervals_hold_the_true_score_as_often_as_they_state(task, n_groups, size):
    """The percentiles of the resamples held it in 85 to 90 % with ten groups."""
    rng = np.random.default_rng(n_groups)
    kind, n_runs = task_of(task), 300

    def clips(n):
        groups = np.repeat(np.arange(n), rng.integers(1, 2 * size, n))
        error = 0.5 * rng.normal(size=n)[groups] + 0.85 * rng.normal(size=len(groups))
        if task == "regression":
            y = rng.normal(size=n)[groups]
            return groups, y[:, None], (0.7 * y + 0.5 * error)[:, None]
        right = error < 0.7
        return groups, np.zeros(len(groups), int), np.where(right[:, None], [0.8, 0.2], [0.3, 0.7])

    _, y_true, outputs = clips(20000)
    true = kind.primary(y_true, outputs)
    held = 0
    for run in range(n_runs):
        groups, y_true, outputs = clips(n_groups)
        resamples = resample_groups(groups, 300, run)
        zeros = np.zeros(len(groups), int)
        drawn = kind.resample_primary(y_true, outputs[None], zeros, 1, resamples)[0]
        low, high = score_interval(kind.primary_metric, drawn, resamples)
        held += low <= true <= high
    error = np.sqrt(0.95 * 0.05 / n_runs)
    assert 0.93 - 2 * error <= held / n_runs <= 0.97 + 2 * error
