"""Fallbacks, thresholds and temperatures of any task, and the choice of the model to use."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import by_name, evaluated, primary
from output_samples import task_cache, task_crossfit_cache, task_table

from mvemo.fuse import HeadSettings, Model, task_of
from mvemo.fuse.crossval.out_of_fold import simplest_model
from mvemo.fuse.models import STACKED

# Enough for a stack, two pairs and all comparisons, in two thirds of the time.
THREE = ("music1d", "c3d", "i3d")
TASKS = ["multiclass", "multilabel", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_clips_without_pictures_are_predicted_by_their_sound_also_in_the_stack(task, tmp_path):
    absent = [4, 5, 6, 70]
    table = task_table(task)
    path = task_cache(
        tmp_path / "f.h5", table, names=THREE, missing={"c3d": absent, "i3d": absent}, noise=1.0
    )
    plain = by_name(evaluated(path, stacked=True))
    results = evaluated(path, stacked=True, missing_modality=True)
    full = by_name(results)
    assert results.missing == {"music1d": 0, "c3d": 4, "i3d": 4}
    assert np.flatnonzero(~plain["c3d+music1d"].valid).tolist() == absent
    assert np.isnan(plain[STACKED].outputs[absent]).all()
    pair, sound = full["c3d+music1d"], full["music1d"]
    assert pair.n_fallback == full[STACKED].n_fallback == 4
    np.testing.assert_array_equal(pair.outputs[absent], sound.outputs[absent])
    # The others are as they were.
    rest = np.setdiff1d(np.arange(120), absent)
    np.testing.assert_allclose(pair.outputs[rest], plain["c3d+music1d"].outputs[rest], atol=1e-4)
    assert np.isfinite(full[STACKED].outputs).all()
    assert set(full["integrated"].without_modality) == {"audio", "video", "none"}
    assert sound.without_modality == {}
    # All columns are of the clips that have both modalities.
    assert pair.without_modality["none"] == pytest.approx(
        np.mean(primary(plain["c3d+music1d"])), abs=1e-3
    )
    both = plain["c3d+music1d"].valid
    by_hand = results.task.primary_per_fold(
        results.y_true[both], sound.outputs[both], results.folds[both], 3
    )
    assert pair.without_modality["video"] == pytest.approx(np.mean(by_hand))
    if task == "multilabel":
        # Decided by the thresholds of the head that predicted.
        for model in (pair, full[STACKED]):
            np.testing.assert_array_equal(model.y_pred[absent], sound.y_pred[absent])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("crossfit", [False, True])
def test_training_clips_of_one_group_have_no_inner_folds(task, crossfit, tmp_path):
    # Fold 0 is one group, so fold 1 trains on one group; with crossfit, fold 0 on two.
    n = 36 if crossfit else 24
    table = task_table(task, n=n, k=2, group_size=12)
    labels = np.arange(n, dtype=np.int64) % 6
    if task == "multilabel":
        labels = np.eye(3, dtype=np.int64)[labels % 3]
    folds = np.repeat([0, 1, 1], 12) if crossfit else table.folds
    table = replace(table, labels=table.labels if task == "regression" else labels, folds=folds)
    make = task_crossfit_cache if crossfit else task_cache
    path = make(tmp_path / "f.h5", table, names=("music1d", "c3d"))
    results = evaluated(path, stacked=True, missing_modality=True, refit=True)
    assert STACKED not in {*by_name(results), *(h.model for h in results.heads)}
    assert all(np.isfinite(m.outputs).all() for m in results.models)
    if not crossfit:
        chosen = evaluated(path, head=HeadSettings(choose_C=True), models=["c3d"], refit=True)
        assert {h.C for h in chosen.heads} == {0.01}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    table = make_table(60, 3)
    path = frozen_cache(folder / "f.h5", table, strength=0.6, names=("music1d", "c3d"))
    return evaluated(path, choose_model=True, late=True, n_resamples=50)


def test_each_fold_is_predicted_by_its_own_choice(chosen):
    choice, models = chosen.choice, by_name(chosen)
    assert choice.model in models
    assert len(choice.inside) == chosen.k
    for fold, name in enumerate(choice.inside):
        rows = chosen.folds == fold
        np.testing.assert_array_equal(choice.nested.outputs[rows], models[name].outputs[rows])
        assert primary(choice.nested)[fold] == primary(models[name])[fold]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.02, 0.01, 0.02], "integrated"),
        # The mean gain is larger, but only one group in three has it.
        ([0.3, -0.2, 0.0], "one"),
        ([-0.02, -0.01, -0.02], "one"),
    ],
)
@pytest.mark.parametrize("simple", ["single", "integrated-late"])
def test_a_more_complex_model_must_be_better_by_one_standard_error(gains, expected, simple):
    features = ("a",) if simple == "single" else ("a", "b")
    models = [Model("integrated", ("a", "b"), ("audio",)), Model(simple, features, ("audio",))]
    y_true = np.arange(24) % 2
    plain = np.full(24, 0.6)
    better = np.exp(np.log(plain) + np.repeat(gains, 8))
    outputs = [np.where(y_true == 1, p, 1 - p)[:, None] for p in (better, plain)]
    groups = [str(i // 8) for i in range(24)]
    found, best = simplest_model(task_of("multilabel"), y_true[:, None], groups, models, outputs)
    assert found.name == (simple if expected == "one" else expected)
    assert best.name == ("integrated" if np.mean(gains) > 0 else simple)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("names", [("a+b", "integrated"), ("a+b", "integrated-late")])
def test_a_choice_does_not_depend_on_rounding(names, first):
    """Of two models with the same predictions but for rounding, one order decides."""
    models = [Model(name, ("a", "b"), ("audio",)) for name in names]
    proba = np.random.default_rng(0).uniform(0.2, 0.8, (24, 1))
    outputs = [proba * (1 - 1e-9 * (i == first)) for i in range(2)]
    y_true, groups = np.ones((24, 1), int), [str(i // 2) for i in range(24)]
    chosen = simplest_model(task_of("multilabel"), y_true, groups, models, outputs)
    expected = "integrated-late" if "integrated-late" in names else "a+b"
    assert [one.name for one in chosen] == [expected, expected]


@pytest.mark.parametrize("task", TASKS)
def test_a_pair_that_has_all_features_is_the_integrated_model(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task, n=60), names=("c3d", "music1d"))
    results = evaluated(path, choose_model=True)
    found = by_name(results)
    assert found["integrated"].features == found["c3d+music1d"].features
    np.testing.assert_array_equal(found["integrated"].outputs, found["c3d+music1d"].outputs)
    assert {one.n_tests for one in results.comparisons} == {1}
    assert "integrated" not in {*results.choice.inside, results.choice.model, results.choice.best}
