"""Stacked fusions, and predictions with a modality missing."""

from __future__ import annotations

import numpy as np
import pytest
from feature_samples import crossfit_cache, frozen_cache, make_table
from fuse_samples import plain_settings

from mvemo.cache import open_cache
from mvemo.fuse import evaluate, task_of
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.second_layers import base_models
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.models import STACKED, models_of


def run(path, **options):
    with open_cache(path) as cache:
        return evaluate(cache, plain_settings(**options))


def test_the_bases_are_the_four_fusions_of_one_feature_each():
    papers = {"music1d": "audio", "music2d": "audio", "c3d": "video", "i3d": "video"}
    assert [m.name for m in base_models(models_of(papers))] == [
        "c3d+music1d",
        "i3d+music1d",
        "c3d+music2d",
        "i3d+music2d",
    ]
    # With one fusion there is nothing to stack but the single features.
    two = models_of({"music1d": "audio", "c3d": "video"})
    assert [m.name for m in base_models(two)] == ["music1d", "c3d"]
    assert base_models(models_of({"music1d": "audio"})) == ()


def test_inner_folds_hold_only_training_clips_and_whole_groups():
    table = make_table(n=60, k=3)
    clips = Clips(task_of("multiclass"), np.asarray(table.labels), table.groups, table.folds, 6)
    inner = clips.inner_folds(2, 3)
    assert (inner[table.folds == 2] == -1).all()
    assert set(inner[table.folds != 2].tolist()) == {0, 1, 2}
    for group in set(table.groups):
        assert len({inner[i] for i, g in enumerate(table.groups) if g == group}) == 1


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_the_stack_is_honest(tmp_path, make):
    path = make(tmp_path / "f.h5", make_table(n=240, k=3), strength=1.5)
    results = run(path, stacked=True)
    stack = results.models[-1]
    assert stack.name == STACKED
    assert np.mean(stack.per_fold["accuracy"]) > 0.7
    assert np.isfinite(stack.outputs).all()
    permuted = run(path, stacked=True, permute_labels=True).models[-1]
    assert abs(np.mean(permuted.per_fold["accuracy"]) - 1 / 6) < 0.09


def test_no_label_of_a_fold_has_a_say_in_its_predictions(tmp_path):
    table = make_table(n=120)
    results = run(frozen_cache(tmp_path / "a.h5", table), stacked=True, temperature=True)
    from dataclasses import replace

    labels = np.asarray(table.labels).copy()
    tested = table.folds == 0
    labels[tested] = np.roll(labels[tested], 1)
    # The same features with other labels in fold 0 alone.
    from feature_samples import MODALITY, features, spec, write_cache

    vectors = [(spec(n, 12), features(table, n)) for n in MODALITY]
    path = write_cache(tmp_path / "b.h5", replace(table, labels=labels), vectors)
    other = run(path, stacked=True, temperature=True)
    for a, b in zip(results.models, other.models, strict=True):
        np.testing.assert_allclose(a.outputs[tested], b.outputs[tested], atol=1e-4)
        assert (a.outputs[~tested] != b.outputs[~tested]).any()


def test_a_clip_without_pictures_is_predicted_by_its_sound(tmp_path):
    absent = [4, 5, 6]
    names = ("music1d", "c3d", "i3d")
    path = frozen_cache(tmp_path / "f.h5", names=names, missing={"c3d": absent, "i3d": absent})
    plain = {m.name: m for m in run(path).models}
    full = {m.name: m for m in run(path, missing_modality=True).models}
    assert np.isnan(plain["c3d+music1d"].outputs[absent]).all()
    pair = full["c3d+music1d"]
    assert pair.n_fallback == 3
    np.testing.assert_allclose(pair.outputs[absent], full["music1d"].outputs[absent], atol=1e-6)
    # The others are as they were.
    rest = np.setdiff1d(np.arange(120), absent)
    np.testing.assert_allclose(pair.outputs[rest], plain["c3d+music1d"].outputs[rest], atol=1e-4)
    assert set(pair.without_modality) == {"audio", "video", "none"}
    there = np.isfinite(plain["c3d+music1d"].outputs[:, 0])
    by_hand = [
        np.mean(
            full["music1d"].outputs[there & (make_table().folds == f)].argmax(1)
            == make_table().labels[there & (make_table().folds == f)]
        )
        for f in range(6)
    ]
    assert pair.without_modality["video"] == pytest.approx(np.mean(by_hand))
    assert full["music1d"].without_modality == {}


def test_choosing_the_penalty_looks_at_inner_folds_alone(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", strength=0.0)
    results = run(path, head=HeadSettings(choose_C=True), models=["integrated"])
    easy = frozen_cache(tmp_path / "g.h5", strength=3.0)
    found = run(easy, head=HeadSettings(choose_C=True), models=["integrated"])
    # Without signal stronger penalties predict better.
    assert np.mean([h.C for h in results.heads]) < np.mean([h.C for h in found.heads])
    assert max(h.C for h in results.heads) == 1e-4


def test_class_weights_make_rare_classes_count(tmp_path):
    table = make_table(n=240, k=3)
    from dataclasses import replace

    labels = np.where(np.arange(240) < 24, 1, 0)
    table = replace(table, classes=("common", "rare"), labels=labels.astype(np.int64))
    path = frozen_cache(tmp_path / "f.h5", table, strength=0.4, names=("c3d",))
    plain = run(path, models=["c3d"]).models[0]
    weighed = run(path, models=["c3d"], head=HeadSettings(class_weight="balanced")).models[0]
    assert weighed.confusion[1, 1] > plain.confusion[1, 1]
