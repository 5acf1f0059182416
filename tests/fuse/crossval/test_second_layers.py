"""The stack and the product: what they are, what they do without a base, and what is saved."""

import numpy as np
import pytest
from feature_samples import MODALITY, features, frozen_cache, make_table, spec, write_cache
from fuse_samples import by_name, evaluated
from output_samples import output_cache, output_table, task_cache, task_table

from mvemo.fuse import BadFeatures, Clips, task_of
from mvemo.fuse.crossval.second_layers import Stack, late_fusion_outputs, late_weights
from mvemo.fuse.metrics.calibration import apply_temperature, fit_temperature
from mvemo.fuse.models import LATE, STACKED, models_of

TASKS = ["multiclass", "multilabel", "regression"]


def product(task, y_true, outputs, weights=None):
    n = len(y_true)
    clips = Clips(task_of(task), y_true, ("",) * n, np.zeros(n, int), outputs.shape[2])
    return late_fusion_outputs(
        clips, outputs, late_weights(clips, outputs) if weights is None else weights
    )


def test_the_bases_of_a_stack_are_the_four_fusions_of_one_feature_each():
    fusions = ["c3d+music1d", "i3d+music1d", "c3d+music2d", "i3d+music2d"]
    assert [m.name for m in Stack.bases_of(models_of(MODALITY))] == fusions
    # With one fusion there is nothing to stack but the single features.
    two = models_of({"music1d": "audio", "c3d": "video"})
    assert [m.name for m in Stack.bases_of(two)] == ["music1d", "c3d"]
    assert Stack.bases_of(models_of({"music1d": "audio"})) == ()


def test_a_product_of_classes_is_the_geometric_mean_of_calibrated_probabilities():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), (2, 50)) * 0.97 + 0.01
    y_true = rng.integers(0, 3, 50)
    calibrated = [apply_temperature(p, fit_temperature(np.log(p), y_true)) for p in proba]
    expected = np.sqrt(calibrated[0] * calibrated[1])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(product("multiclass", y_true, proba), expected, rtol=1e-9)


def test_a_product_of_tags_is_the_mean_of_log_odds():
    proba = np.array([[[0.2, 0.5]], [[0.6, 0.9]]])
    fused = product("multilabel", np.array([[0, 1]]), proba)
    np.testing.assert_allclose(np.log(fused / (1 - fused)), np.log(proba / (1 - proba)).mean(0))


def test_a_product_of_targets_is_weighted_by_inverse_errors():
    y_true = np.array([[0.0], [1.0], [2.0], [3.0]])
    fused = product("regression", y_true, np.stack([y_true + 0.1, y_true - 0.2]))
    np.testing.assert_allclose(fused, y_true + (4 * 0.1 - 0.2) / 5)


def test_without_a_base_a_product_is_that_of_the_others():
    proba = np.array([[[0.2, 0.8]], [[np.nan] * 2], [[0.5, 0.5]]])
    weights = np.array([[2.0] * 2, [9.0] * 2, [1.0] * 2])
    all_bases, others, missing = (
        product("multiclass", np.array([1]), proba[rows], weights[rows])
        for rows in (slice(None), [0, 2], [1])
    )
    np.testing.assert_allclose(all_bases, others)
    assert np.isnan(missing).all()


def test_a_stack_of_two_singles_is_not_the_integrated_model(tmp_path):
    # Both have the same features in the same order; their thresholds must not mix.
    table = output_table("multilabel", n=120)
    path = output_cache(tmp_path / "f.h5", table, names=("music1d", "music2d"), noise=3.0)
    alone, both = evaluated(path), evaluated(path, stacked=True)
    assert [m.name for m in both.models] == ["music1d", "music2d", "integrated", STACKED]
    np.testing.assert_array_equal(alone.models[2].thresholds, both.models[2].thresholds)
    assert (both.models[2].thresholds != both.models[3].thresholds).any()


@pytest.mark.parametrize("task", TASKS)
def test_clips_without_a_feature_are_predicted_by_the_product_of_the_others(task, tmp_path):
    silent, no_i3d = [4, 5, 70], [20, 21]
    missing = {"c3d": silent, "i3d": [*silent, *no_i3d]}
    path = task_cache(tmp_path / "f.h5", task_table(task), missing=missing)
    plain = by_name(evaluated(path, late=True))[LATE]
    full = by_name(evaluated(path, late=True, missing_modality=True))[LATE]
    assert np.isnan(plain.outputs[silent]).all()
    # One of two features of a modality may be missing.
    assert np.isfinite(plain.outputs[no_i3d]).all()
    assert np.isfinite(full.outputs).all()
    assert full.n_fallback == len(silent)
    assert set(full.without_modality) == {"audio", "video", "none"}
    sound = by_name(evaluated(path, models=["music1d", "music2d", LATE]))[LATE]
    np.testing.assert_allclose(full.outputs[silent], sound.outputs[silent], atol=1e-4)


def test_a_stack_without_a_modality_is_the_best_remaining_model(tmp_path):
    table = make_table(n=120, k=3)
    strengths = {"music1d": 0.1, "music2d": 0.9, "c3d": 0.3, "i3d": 0.3}
    vectors = [(spec(n, 12), features(table, n, 12, s)) for n, s in strengths.items()]
    path = write_cache(tmp_path / "f.h5", table, vectors)
    found = by_name(evaluated(path, stacked=True, missing_modality=True))
    without = found[STACKED].without_modality["video"]
    assert without > found["music2d"].scores["accuracy"] - 0.1
    assert without > found["i3d+music1d"].without_modality["video"] + 0.2


@pytest.mark.parametrize("name", [STACKED, LATE])
def test_a_second_layer_over_nothing_is_refused(name, tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    with pytest.raises(BadFeatures, match=f"{name} (needs|multiplies) .*name these, too, or lea"):
        evaluated(path, models=[name])
    named = evaluated(path, models=["music1d", "c3d", name])
    assert [m.name for m in named.models] == ["music1d", "c3d", name]
