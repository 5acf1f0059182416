"""Which targets make a plane, and where it is neutral; resamples of the primary metric."""

import numpy as np
import pytest

from mvemo.fuse.statistics.resamples import resample_groups
from mvemo.fuse.tasks.registry import task_of
from mvemo.fuse.tasks.regression import plane_of


@pytest.mark.parametrize(
    ("low", "high", "neutral"),
    [(-1, 1, 0.0), (-0.2, 0.4, 0.0), (0.1, 0.9, 0.5), (1, 4.9, 3.0), (1.5, 7, 4.0), (2, 8.8, 5.0)],
)
def test_the_neutral_point_is_that_of_the_scale(low, high, neutral):
    labels = np.array([[low, high], [high, low]], dtype=float)
    assert plane_of(("Arousal", "valence"), labels).centre == (neutral, neutral)


def test_other_dimensions_and_scales_have_no_quadrants():
    labels = np.array([[0.5, 60.0], [20.0, 3.0]])
    assert plane_of(("arousal", "valence"), labels) is None
    assert plane_of(("arousal", "tension"), labels / 100) is None
    plane = plane_of(("arousal", "valence"), labels, (40.0, 10.0))
    # Columns are arousal, valence: high valence and low arousal, then the reverse.
    assert plane.quadrants(labels).tolist() == [3, 1]


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_resamples_of_the_primary_metric_are_the_scores_of_repeated_clips(task):
    rng = np.random.default_rng(1)
    n, k = 60, 2
    folds = np.arange(n) // 2 % k
    groups = [f"g{i // 2}" for i in range(n)]
    predictions = rng.normal(size=(2, n, 3))
    predictions[1, 5] = np.nan
    labels = {
        "multiclass": rng.integers(3, size=n),
        "multilabel": rng.integers(2, size=(n, 3)),
        "regression": rng.normal(size=(n, 3)),
    }[task]
    resamples = resample_groups(groups, 5, 0)
    got = task_of(task).resample_primary(labels, predictions, folds, k, resamples)
    for m in range(2):
        for d, weights in enumerate(resamples.counts[:, resamples.codes]):
            rows = np.repeat(np.arange(n), weights)
            cut = np.zeros(len(rows), int) if task == "regression" else folds[rows]
            per_fold = task_of(task).primary_per_fold(
                labels[rows], predictions[m, rows], cut, cut.max() + 1
            )
            assert got[m, d] == pytest.approx(per_fold.mean(), abs=1e-6)
