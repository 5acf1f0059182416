"""Training subsets are nested, made of whole groups, and of the size asked for."""

import numpy as np
import pytest
from fuse_samples import plain_settings, primary
from hypothesis import given, settings
from hypothesis import strategies as st
from output_samples import task_cache, task_crossfit_cache, task_table

from mvemo.cache import open_cache
from mvemo.fuse import evaluate, metrics_dict
from mvemo.fuse.crossval.evaluation import learning_curve_masks, with_learning_curve
from mvemo.fuse.report.report_files import report_html

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
TASKS = ("multiclass", "multilabel", "regression")


def made(seed, n_groups=60, k=5, n_classes=4):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    # Clips of fold -1 are never trained on.
    folds = (rng.permutation(np.arange(n_groups) % (k + 1)) - 1)[groups]
    labels = rng.choice(n_classes, n_groups, p=(0.55, 0.25, 0.15, 0.05))[groups]
    order = rng.permutation(len(groups))
    return folds[order], tuple(f"g{g}" for g in groups[order]), labels[order]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_subsets_are_nested_whole_and_of_the_size_asked_for(seed, stratified):
    folds, groups, labels = made(seed)
    names = np.array(groups)
    labels = labels if stratified else np.zeros_like(labels)
    masks = learning_curve_masks(folds, groups, FRACTIONS, seed, labels)
    largest = max(np.unique(names, return_counts=True)[1])
    for fold in range(5):
        train = (folds != fold) & (folds >= 0)
        np.testing.assert_array_equal(masks[fold, -1], train)
        for i, fraction in enumerate(FRACTIONS):
            chosen = masks[fold, i]
            assert not (chosen & ~train).any()
            if i:
                assert not (masks[fold, i - 1] & ~chosen).any()
            assert not set(names[chosen]) & set(names[train & ~chosen])
            # Reached, and not by more than one group.
            wanted = fraction * train.sum()
            assert wanted - 1e-6 <= chosen.sum() < wanted + largest


def test_seed_decides_and_the_order_of_fractions_does_not():
    folds, groups, labels = made(0)
    one, turned, other = (
        learning_curve_masks(folds, groups, fractions, seed, labels)
        for fractions, seed in (((0.2, 0.7), 1), ((0.7, 0.2), 1), ((0.2, 0.7), 2))
    )
    np.testing.assert_array_equal(one, turned[:, ::-1])
    assert (one != other).any()
    # Exact fractions take no group too many.
    groups = tuple(map(str, range(20)))
    masks = learning_curve_masks(np.repeat([0, 1], 10), groups, (0.3, 0.7), 0, np.zeros(20, int))
    np.testing.assert_array_equal(masks.sum(axis=2), [[3, 7], [3, 7]])


def test_small_stratified_sets_keep_the_classes_shares():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    groups, folds = tuple(f"{i // 2}" for i in range(1000)), np.arange(1000) // 2 % 4
    for chosen in learning_curve_masks(folds, groups, (0.1,), 0, labels)[:, 0]:
        # Within a group of 38 of each class's share.
        shares = np.bincount(labels[chosen], minlength=3) / chosen.sum()
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.035)


def curves_of(path, fractions, **options):
    settings = plain_settings(**options)
    with open_cache(path) as cache:
        results = evaluate(cache, settings)
        return results, with_learning_curve(cache, results, settings, fractions)


@pytest.mark.parametrize(
    ("task", "make"),
    [*((task, task_cache) for task in TASKS), ("multiclass", task_crossfit_cache)],
)
def test_more_training_clips_help_and_the_last_point_is_the_evaluation(task, make, tmp_path):
    path = make(tmp_path / "f.h5", task_table(task, n=180), names=("music1d", "c3d"))
    results, with_curves = curves_of(path, (0.1, 0.5))
    for model in results.models:
        points = with_curves.learning_curve[model.name]
        assert [p[0] for p in points] == [0.1, 0.5, 1.0]
        assert [round(p[1]) for p in points] == pytest.approx([12, 60, 120], abs=8)
        assert points[-1][2] == pytest.approx(np.mean(primary(model)), abs=1e-3)
    first, *_, last = with_curves.learning_curve["integrated"]
    assert last[2] > first[2]
    kept = metrics_dict(with_curves)["learning_curve"]["integrated"][-1]
    assert kept[results.task.primary_metric] == pytest.approx(last[2])


@pytest.mark.parametrize("task", TASKS)
def test_points_that_nothing_is_left_for_are_left_out(task, tmp_path):
    table = task_table(task, n=60, group_size=6)
    path = task_cache(tmp_path / "f.h5", table, missing={"c3d": range(50)})
    results = curves_of(path, (0.05, 0.6), models=["music1d", "c3d"])[1]
    curves = results.learning_curve
    assert "Learning curves" in report_html(results)
    assert [p[0] for p in curves["music1d"]][-2:] == [0.6, 1.0]
    assert len(curves.get("c3d", ())) < 3
    assert all(np.isfinite(point).all() for points in curves.values() for point in points)
