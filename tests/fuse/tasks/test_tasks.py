"""Which targets make a plane, and where it is neutral; resamples of the primary metric."""

import numpy as np
import pytest

from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.regression import plane_of


@pytest.mark.parametrize(("scale", "middle"), [("-1..1", 0.0), ("1..7", 4.0), ("1..9", 5.0)])
def test_quadrants_meet_in_the_middle_of_the_stated_scale(scale, middle):
    # The labels alone would fit other scales, too.
    labels = np.array([[0.9, 1.0], [1.0, 0.9]]) if scale == "-1..1" else np.array([[2.0, 6.8]])
    plane = plane_of(("Arousal", "valence"), labels, scale)
    assert plane.centre == (middle, middle)
    assert f"the middle of the scale {scale}" in str(plane)


def test_quadrants_without_a_stated_scale_are_about_the_median_and_say_so():
    # Columns are arousal, valence.
    labels = np.array([[0.5, 60.0], [20.0, 3.0], [1.0, 50.0]])
    plane = plane_of(("arousal", "valence"), labels)
    assert plane.centre == (50.0, 1.0)
    assert plane.quadrants(labels).tolist() == [3, 1, 0]
    assert str(plane) == (
        "around the median (valence 50, arousal 1), as no scale is stated with --scale"
    )
    assert plane_of(("arousal", "tension"), labels) is None


def test_labels_off_the_stated_scale_are_refused():
    with pytest.raises(BadFeatures, match=r"scale 1\.\.7: .* must lie on it, got 2 to 8\.8"):
        plane_of(("valence", "arousal"), np.array([[2.0, 8.8]]), "1..7")


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
