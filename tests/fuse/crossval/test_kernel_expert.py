"""The kernel expert: what it learns, when it is chosen, and where it is left out."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import MODALITY, frozen_cache, make_table, spec, write_cache
from fuse_samples import by_name, evaluated, plain_settings, primary
from output_samples import task_cache, task_table

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, evaluate, load_heads, save_heads
from mvemo.fuse.crossval import kernel_expert
from mvemo.fuse.final.building import build_model
from mvemo.fuse.models import KERNEL, LATE

TASKS = ["multiclass", "multilabel", "regression"]


def corners_cache(path, n=240, names=("music1d",), *, linear=False):
    """Write a cache of two classes: opposite corners, or sides of a line if `linear`."""
    rng, table = np.random.default_rng(0), make_table(n, 3, classes=("calm", "tense"))
    signs = rng.choice([-1.0, 1.0], n)
    other = np.where(table.labels == 1, signs, -signs)
    if linear:
        other = np.where(table.labels == 1, 1.0, -1.0)
    x = np.stack([signs, other], axis=1) + rng.normal(0, 0.5, (n, 2))
    parts = (x, rng.normal(size=(n, 2)))
    vectors = [
        (spec(name, 2), part.astype(np.float32)) for name, part in zip(names, parts, strict=False)
    ]
    return write_cache(path, table, vectors)


@pytest.fixture(scope="module")
def corners(tmp_path_factory):
    return corners_cache(tmp_path_factory.mktemp("k") / "f.h5")


def test_it_is_chosen_where_no_linear_head_can_learn_the_classes(corners):
    results = evaluated(corners, kernel=True, choose_model=True, n_resamples=20)
    found = by_name(results)
    assert list(found) == ["music1d", KERNEL]
    assert primary(found["music1d"]).mean() < 0.65 < 0.85 < primary(found[KERNEL]).mean()
    assert results.choice.inside == (KERNEL,) * 3
    np.testing.assert_array_equal(results.choice.nested.outputs, found[KERNEL].outputs)
    # It is compared with the single feature that it reads.
    assert [(c.model, c.reference) for c in results.comparisons] == [(KERNEL, "music1d")]
    np.testing.assert_allclose(found[KERNEL].outputs.sum(axis=1), 1.0)


def test_it_is_not_chosen_where_a_line_divides_the_classes(tmp_path):
    path = corners_cache(tmp_path / "f.h5", names=("music1d", "c3d"), linear=True)
    results = evaluated(path, kernel=True, choose_model=True, late=True)
    assert results.choice.model != KERNEL
    assert [m.name for m in results.models][-2:] == [LATE, KERNEL]


def test_shuffled_labels_are_at_chance(corners):
    found = by_name(evaluated(corners, kernel=True, permute_labels=True))
    assert primary(found[KERNEL]).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learned(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task), missing={"c3d": [5]}, noise=1.0)
    results = evaluated(path, kernel=True, temperature=True, missing_modality=True)
    found = by_name(results)
    assert found[KERNEL].features == found["integrated"].features == tuple(MODALITY)
    assert primary(found[KERNEL]).mean() > primary(found["integrated"]).mean() - 0.1
    # A clip without one of the features is not predicted.
    assert np.flatnonzero(~found[KERNEL].valid).tolist() == [5]
    if task == "multilabel":
        assert found[KERNEL].thresholds.shape == (3, len(results.classes))


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_the_tested_clips_change_nothing(task, tmp_path):
    tables = [task_table(task), task_table(task)]
    tested = tables[0].folds == 1
    tables[1].labels[tested] = tables[1].labels[tested][::-1]
    outputs = []
    for i, table in enumerate(tables):
        # The features are those of the first table.
        path = task_cache(tmp_path / f"{i}.h5", tables[0])
        with open_cache(path) as cache:
            cache.table.labels[:] = table.labels
            made = by_name(evaluate(cache, plain_settings(kernel=True, choose_model=True)))
        outputs.append(made[KERNEL].outputs[tested])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_class_weights_raise_the_recall_of_a_rare_class(tmp_path):
    rng, n = np.random.default_rng(0), 240
    table = make_table(n, 3, classes=("calm", "tense"))
    rare = np.repeat(rng.random(n // 3) < 0.15, 3)
    table.labels[:] = rare
    x = (rare[:, None] + rng.normal(0, 1.0, (n, 3))).astype(np.float32)
    path, recall = write_cache(tmp_path / "f.h5", table, [(spec("music1d", 3), x)]), []
    for class_weight in ("none", "balanced"):
        settings = plain_settings(kernel=True)
        head = replace(settings.head, class_weight=class_weight)
        with open_cache(path) as cache:
            made = by_name(evaluate(cache, replace(settings, head=head)))[KERNEL]
        recall.append((made.outputs.argmax(axis=1) == 1)[rare].mean())
    assert recall[1] > recall[0] + 0.2


def test_large_sets_do_not_have_it(corners, monkeypatch):
    monkeypatch.setattr(kernel_expert, "MOST_CLIPS", 239)
    assert [m.name for m in evaluated(corners, kernel=True).models] == ["music1d"]
    with pytest.raises(BadFeatures, match="kernel: it needs at most 239 clips, got 240: leave it"):
        evaluated(corners, models=("music1d", KERNEL))


def test_features_that_are_not_in_memory_do_not_have_it(corners):
    assert KERNEL not in by_name(evaluated(corners, kernel=True, memory=0.0))
    with pytest.raises(BadFeatures, match=r"in memory \(fuse.memory\): leave it out"):
        evaluated(corners, models=("music1d", KERNEL), memory=0.0)


def test_it_can_be_named_next_to_its_features(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    made = by_name(evaluated(path, models=("i3d", "c3d", KERNEL)))
    assert list(made) == ["i3d", "c3d", KERNEL]
    assert made[KERNEL].features == ("i3d", "c3d")
    with pytest.raises(BadFeatures, match="needs at least one other model"):
        evaluated(path, models=(KERNEL,))


def test_a_model_for_new_clips_uses_another_one_and_says_so(corners, tmp_path):
    settings = plain_settings(refit=True, kernel=True, choose_model=True)
    with open_cache(corners) as cache:
        results = evaluate(cache, settings)
        model = build_model(cache, results, settings, results.choice.model)
    assert [p.name for p in model.predictors] == ["music1d"]
    assert model.facts["nested"] is None
    assert any(note.startswith("kernel, the recommended model,") for note in model.facts["notes"])
    save_heads(tmp_path / "h.npz", results)
    assert [m.name for m in load_heads(tmp_path / "h.npz").models] == ["music1d"]
