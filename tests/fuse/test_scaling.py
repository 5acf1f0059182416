"""Features as heads read them: standardised on training clips, robust, in the span of clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import plain_settings, primary
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mvemo.cache import open_cache
from mvemo.fuse import Clips, Fit, HeadSettings, evaluate, fit_heads, models_of, task_of
from mvemo.fuse.features import Features, matrix_of
from mvemo.fuse.scaling import (
    LIMIT,
    MIN_CLIPS,
    fit_scaling,
    groups_within,
    standardise_within,
)

RNG = np.random.default_rng(0)


def clips_of(labels):
    n = len(labels)
    groups = tuple(map(str, range(n)))
    return Clips(task_of("multiclass"), labels, groups, np.arange(n) % 3, int(labels.max()) + 1)


def fitted(x, labels, settings, names=("a",)):
    """Probabilities by a head of all clips, as it is fitted and as it is kept."""
    clips = clips_of(labels)
    model = models_of(dict.fromkeys(names, "audio"))[-1]
    everything = np.ones(len(labels), bool)
    matrices = {name: matrix_of(part.copy()) for name, part in zip(names, x, strict=True)}
    fit = Fit(model, None, everything, settings.C, tol=1e-10)
    heads, outputs = fit_heads([fit], matrices, clips, settings)
    np.testing.assert_allclose(heads[0].predict(np.concatenate(x, axis=1)), outputs[0], atol=2e-4)
    return outputs[0]


def test_ordinary_clips_are_scaled_as_by_scikit_learn():
    x = RNG.normal(size=(80, 6)).astype(np.float32) * 7 + 1000
    x[:, 2] = 3.0
    scaling, far = fit_scaling(x, np.arange(80) < 60)
    expected = StandardScaler().fit(x[:60].astype(float)).transform(x.astype(float))
    np.testing.assert_allclose(scaling.apply(x), np.clip(expected, -LIMIT, LIMIT), atol=1e-3)
    assert not far.any()


@pytest.mark.parametrize("value", [1e3, 1e12, -1e6])
def test_clips_far_outside_have_no_part_in_the_scale(value):
    x = RNG.normal(size=(60, 8)).astype(np.float32)
    spoilt = x.copy()
    spoilt[[3, 7]] = value
    scaling, far = fit_scaling(spoilt, np.ones(60, bool))
    assert np.flatnonzero(far).tolist() == [3, 7]
    rest = np.delete(x.astype(float), [3, 7], axis=0)
    np.testing.assert_allclose(scaling.shift, rest.mean(0), atol=1e-6)
    np.testing.assert_allclose(scaling.scale, rest.std(0), rtol=1e-5)
    assert np.abs(scaling.apply(spoilt)).max() == LIMIT


def test_one_spoilt_clip_costs_one_clip(tmp_path):
    table = make_table()
    path = frozen_cache(tmp_path / "f.h5", table, strength=3.0)
    with open_cache(path) as cache:
        clean = evaluate(cache, plain_settings(models=["c3d"]))
        vectors = cache.vectors

        def spoilt(name, fold=None):
            values, present = vectors(name, fold)
            values[0] *= 1e8
            return values, present

        cache.vectors = spoilt
        results = evaluate(cache, plain_settings(models=["c3d"]))
    lost = (clean.models[0].y_pred != results.models[0].y_pred).sum()
    assert lost <= 3
    assert primary(results.models[0]).mean() > primary(clean.models[0]).mean() - 0.05


def test_more_numbers_than_clips_give_scikit_learns_head():
    labels = np.arange(45) % 3
    x = [
        (RNG.normal(size=(45, d)) + 0.4 * RNG.normal(size=(3, d))[labels]).astype(np.float32)
        for d in (200, 70)
    ]
    settings = HeadSettings(C=0.1, choose_C=False)
    found = fitted(x, labels, settings, names=("a", "b"))
    # Of blocks that weigh alike the wider has the smaller factor.
    factors = [np.sqrt(135 / d) for d in (200, 70)]
    scaled = [f * StandardScaler().fit_transform(part) for f, part in zip(factors, x, strict=True)]
    z = np.concatenate(scaled, axis=1)
    expected = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(z, labels).predict_proba(z)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_scales_are_those_of_training_folds_alone(tmp_path):
    """Tested clips may be anything: heads that left them out stay the same."""
    table = make_table()
    path = frozen_cache(tmp_path / "f.h5", table)
    heads = []
    with open_cache(path) as cache:
        matrix = Features.matrix
        try:
            for factor in (1.0, 50.0):

                def changed(self, name, fold, factor=factor):
                    found = matrix(self, name, fold)
                    found.values[table.folds == 0] *= factor
                    return found

                Features.matrix = changed
                settings = plain_settings(models=["c3d"], head=HeadSettings())
                heads.append(evaluate(cache, settings).heads[0])
        finally:
            Features.matrix = matrix
    assert heads[0].fold == heads[1].fold == 0
    # Steps are scaled by the spectrum of all clips: equal but for the last digits of fits.
    assert pytest.approx(heads[1].C, rel=0.1) == heads[0].C
    np.testing.assert_array_equal(heads[0].scale, heads[1].scale)
    np.testing.assert_allclose(heads[0].coef, heads[1].coef, atol=0.02)


def test_groups_of_several_clips_have_mean_0_and_deviation_1():
    groups = ["a"] * 8 + ["b"] * 6 + ["c"] * (MIN_CLIPS - 1)
    x = (RNG.normal(size=(18, 3)) * 4 + np.repeat([50.0, -9, 2], [8, 6, 4])[:, None]).astype("f4")
    present = np.ones(18, bool)
    present[0] = False
    found = standardise_within(x, present, groups)
    assert groups_within(present, groups).tolist() == [False] + [True] * 13 + [False] * 4
    for part in (slice(1, 8), slice(8, 14)):
        np.testing.assert_allclose(found[part].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(found[part].std(0), 1, atol=1e-4)
    # A small group is standardised as all clips are.
    np.testing.assert_array_equal(found[14:], fit_scaling(x, present)[0].apply(x[14:]))
    assert (found[0] == 0).all()


def test_a_feature_drowned_by_its_singer_is_found(tmp_path, monkeypatch):
    table = make_table(n=120, k=0)
    singers = tuple(f"s{i % 12}" for i in RNG.permutation(120))
    assert groups_within(np.ones(120, bool), singers).all()
    offset = {s: 30 * RNG.normal(size=(1, 1)) for s in singers}
    raw = Features.raw_matrix

    def sung(self, name, fold):
        matrix = raw(self, name, fold)
        matrix.values[:] += np.concatenate([offset[s] for s in self._cache.table.groups])
        return matrix

    path = frozen_cache(tmp_path / "f.h5", replace(table, groups=singers), strength=2.0)
    monkeypatch.setattr(Features, "raw_matrix", sung)
    with open_cache(path) as cache:
        plain, within = (
            evaluate(cache, plain_settings(models=["c3d"], within_groups=w, folds=4, seed=1))
            for w in (False, True)
        )
        shuffled = evaluate(
            cache,
            plain_settings(
                models=["c3d"], within_groups=True, folds=4, seed=1, permute_labels=True
            ),
        )
    assert primary(within.models[0]).mean() > primary(plain.models[0]).mean()
    assert primary(shuffled.models[0]).mean() < 0.4
    assert within.provenance["within_groups"]["clips"] == 120
