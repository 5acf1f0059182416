"""The product of single features: what it is, that it is honest, and what it does without."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import features, frozen_cache, make_table, spec, write_cache
from fuse_samples import plain_settings, primary
from output_samples import output_cache, output_features, output_table

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, HeadSettings, evaluate, load_heads, save_heads
from mvemo.fuse.clips import Clips
from mvemo.fuse.heads.late import late_outputs, late_weights
from mvemo.fuse.metrics.calibration import apply_temperature, fit_temperature
from mvemo.fuse.models import LATE
from mvemo.fuse.tasks import task_of

FOUR = ("music1d", "music2d", "c3d", "i3d")
TASKS = ["multiclass", "multilabel", "regression"]
CHANCE = {"multiclass": 1 / 6, "multilabel": 0.5, "regression": 0.0}


def run(path, **options):
    with open_cache(path) as cache:
        return evaluate(cache, plain_settings(late=True, **options))


def by_name(results):
    return {model.name: model for model in results.models}


def make_cache(path, task, *, n=120, missing=None, noise=3.0):
    missing = missing or {}
    if task == "multiclass":
        return frozen_cache(path, make_table(n=n, k=3), missing=missing, strength=1.0)
    return output_cache(path, output_table(task, n=n), names=FOUR, missing=missing, noise=noise)


def clips_of(task, y_true, n_outputs):
    n = len(y_true)
    return Clips(task_of(task), y_true, tuple(map(str, range(n))), np.zeros(n, int), n_outputs)


def test_of_classes_it_is_the_geometric_mean_of_calibrated_probabilities():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), (2, 50)) * 0.97 + 0.01
    y_true = rng.integers(0, 3, 50)
    clips = clips_of("multiclass", y_true, 3)
    weights = late_weights(clips, proba)
    calibrated = [apply_temperature(p, fit_temperature(np.log(p), y_true)) for p in proba]
    expected = np.sqrt(calibrated[0] * calibrated[1])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(late_outputs(clips, proba, weights), expected, rtol=1e-9)


def test_of_tags_it_is_the_mean_of_log_odds():
    proba = np.array([[[0.2, 0.5]], [[0.6, 0.9]]])
    clips = clips_of("multilabel", np.array([[0, 1]]), 2)
    fused = late_outputs(clips, proba, late_weights(clips, proba))
    np.testing.assert_allclose(np.log(fused / (1 - fused)), np.log(proba / (1 - proba)).mean(0))


def test_of_targets_it_is_weighted_by_inverse_errors():
    y_true = np.array([[0.0], [1.0], [2.0], [3.0]])
    values = np.stack([y_true + 0.1, y_true - 0.2])
    clips = clips_of("regression", y_true, 1)
    fused = late_outputs(clips, values, late_weights(clips, values))
    np.testing.assert_allclose(fused, y_true + (4 * 0.1 - 0.2) / 5)


def test_without_a_base_it_is_the_product_of_the_others():
    proba = np.array([[[0.2, 0.8]], [[np.nan] * 2], [[0.5, 0.5]]])
    clips = clips_of("multiclass", np.array([1]), 2)
    weights = np.array([[2.0] * 2, [9.0] * 2, [1.0] * 2])
    fused = late_outputs(clips, proba, weights)
    np.testing.assert_allclose(fused, late_outputs(clips, proba[::2], weights[::2]))
    assert np.isnan(late_outputs(clips, proba[1:2], weights[1:2])).all()


@pytest.mark.parametrize("task", TASKS)
def test_it_is_better_than_its_bases_and_at_chance_without_labels(task, tmp_path):
    path = make_cache(tmp_path / "f.h5", task, n=240)
    results = run(path)
    found = by_name(results)
    assert results.models[-1].name == LATE
    assert np.isfinite(found[LATE].outputs).all()
    best = max(np.mean(primary(found[name])) for name in FOUR)
    assert np.mean(primary(found[LATE])) > best - 0.02
    permuted = by_name(run(path, permute_labels=True))[LATE]
    assert np.mean(primary(permuted)) < CHANCE[task] + 0.08


@pytest.mark.parametrize(
    ("task", "balanced"), [*((task, True) for task in TASKS), ("multiclass", False)]
)
def test_no_label_of_a_fold_has_a_say_in_it(task, balanced, tmp_path):
    multiclass = task == "multiclass"
    table = make_table(n=60, k=3) if multiclass else output_table(task, n=60)
    changed = table.labels.copy()
    test = table.folds == 0
    changed[test] = (changed[test] + 1) % 6 if multiclass else 1 - changed[test]
    made = features if multiclass else output_features
    vectors = [(spec(name, 8), made(table, name)[:, :8]) for name in ("music1d", "c3d")]
    runs = []
    for i, labels in enumerate((table.labels, changed)):
        path = write_cache(tmp_path / f"{i}.h5", replace(table, labels=labels), vectors)
        head = HeadSettings(choose_C=True, balance_blocks=balanced)
        runs.append(by_name(run(path, head=head, temperature=True)))
    for name in (LATE, "c3d+music1d"):
        a, b = runs[0][name], runs[1][name]
        np.testing.assert_allclose(a.outputs[test], b.outputs[test], atol=2e-3)
        assert (a.outputs[~test] != b.outputs[~test]).any()
        if task == "multilabel":
            np.testing.assert_allclose(a.thresholds[0], b.thresholds[0], atol=2e-3)


@pytest.mark.parametrize("task", TASKS)
def test_clips_without_a_feature_are_predicted_by_the_others(task, tmp_path):
    silent, no_i3d = [4, 5, 70], [20, 21]
    missing = {"c3d": silent, "i3d": [*silent, *no_i3d]}
    path = make_cache(tmp_path / "f.h5", task, missing=missing)
    plain, full = by_name(run(path))[LATE], by_name(run(path, missing_modality=True))[LATE]
    assert np.isnan(plain.outputs[silent]).all()
    # One of two features of a modality may be missing.
    assert np.isfinite(plain.outputs[no_i3d]).all()
    assert np.isfinite(full.outputs).all()
    assert full.n_fallback == len(silent)
    assert set(full.without_modality) == {"audio", "video", "none"}
    sound = by_name(run(path, models=["music1d", "music2d", LATE]))[LATE]
    np.testing.assert_allclose(full.outputs[silent], sound.outputs[silent], atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_saved_gives_what_is_reported(task, tmp_path):
    path = make_cache(tmp_path / "f.h5", task)
    results = run(path, refit=True, stacked=True)
    save_heads(tmp_path / "h.npz", results)
    saved = load_heads(tmp_path / "h.npz")
    (head,) = saved.select(LATE, 1)
    assert head.features == FOUR
    assert len(saved.select(LATE)) == 1
    test = results.folds == 1
    found = by_name(results)
    inputs = [found[name].outputs[test] for name in head.features]
    if task == "multiclass":
        inputs = [np.log(np.maximum(p, 1e-4)) for p in inputs]
    if task == "multilabel":
        inputs = [np.log(p / (1 - p)) for p in np.clip(inputs, 1e-4, 1 - 1e-4)]
        np.testing.assert_array_equal(head.thresholds, found[LATE].thresholds[1])
    outputs = head.predict(np.concatenate(inputs, axis=1))
    np.testing.assert_allclose(outputs, found[LATE].outputs[test], atol=1e-5)


def test_a_product_of_one_is_refused(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    with pytest.raises(BadFeatures, match="integrated-late multiplies"):
        run(path, models=[LATE])
    named = run(path, models=["music1d", "c3d", LATE])
    assert [m.name for m in named.models] == ["music1d", "c3d", LATE]


def test_other_rows_are_the_same_with_it(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    with open_cache(path) as cache:
        alone = evaluate(cache, plain_settings(stacked=True, temperature=True))
    both = by_name(run(path, stacked=True, temperature=True))
    for model in alone.models:
        np.testing.assert_array_equal(model.outputs, both[model.name].outputs)
