"""Features as heads read them: standardised on training clips, robust, in the span of clips."""

import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, frozen_cache, make_table
from fuse_samples import evaluated, plain_settings, primary
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mvemo.cache import open_cache
from mvemo.cache.untrusted import PlainArray
from mvemo.fuse import (
    BadFeatures,
    Clips,
    EvaluationSettings,
    Fit,
    HeadSettings,
    evaluate,
    fit_heads,
    models_of,
    task_of,
)
from mvemo.fuse.features import Features, matrix_of
from mvemo.fuse.scaling import (
    LIMIT,
    MIN_CLIPS,
    Rows,
    fit_scaling,
    groups_within,
    standardise_within,
    unit_rows,
)
from mvemo.manifests.errors import MvemoError

RNG = np.random.default_rng(0)
# How far predicted probabilities may lie apart: both fits stop within 1e-6 nats of one minimum.
TOLERANCE = 2e-3


def test_ordinary_clips_are_scaled_as_by_scikit_learn():
    x = RNG.normal(size=(80, 6)).astype(np.float32) * 7 + 1000
    x[:, 2] = 3.0
    scaling, far = fit_scaling(x, np.arange(80) < 60)
    expected = StandardScaler().fit(x[:60].astype(float)).transform(x.astype(float))
    np.testing.assert_allclose(scaling.apply(x), np.clip(expected, -LIMIT, LIMIT), atol=1e-3)
    assert not far.any()


def test_large_features_are_scaled_without_copies():
    x = np.random.default_rng(0).normal(size=(20_000, 300)).astype(np.float32) + 5
    tracemalloc.start()
    scaling, _ = fit_scaling(x, np.ones(len(x), bool))
    z = unit_rows(replace(scaling, limit=np.inf).apply(x))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * x.nbytes
    expected = (x - x.mean(0, float)) / x.std(0, float)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(z, expected, atol=1e-5)


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


def test_more_numbers_than_clips_give_scikit_learns_head():
    labels = np.arange(45) % 3
    x = [
        (RNG.normal(size=(45, d)) + 0.4 * RNG.normal(size=(3, d))[labels]).astype(np.float32)
        for d in (200, 70)
    ]
    groups = tuple(map(str, range(45)))
    clips = Clips(task_of("multiclass"), labels, groups, np.arange(45) % 3, 3)
    model = models_of({"a": "audio", "b": "audio"})[-1]
    matrices = {name: matrix_of(part.copy()) for name, part in zip("ab", x, strict=True)}
    fit = Fit(model, None, np.ones(45, bool), 0.1, tol=1e-10)
    (head,), (found,) = fit_heads([fit], matrices, clips, HeadSettings(C=0.1, choose_C=False))
    np.testing.assert_allclose(head.predict(np.concatenate(x, axis=1)), found, atol=2e-4)
    # Of blocks that weigh alike the wider has the smaller factor.
    factors = [np.sqrt(135 / d) for d in (200, 70)]
    scaled = [f * StandardScaler().fit_transform(part) for f, part in zip(factors, x, strict=True)]
    z = np.concatenate(scaled, axis=1)
    expected = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000).fit(z, labels).predict_proba(z)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_scales_are_those_of_training_folds_only(tmp_path, monkeypatch):
    table = make_table()
    path = frozen_cache(tmp_path / "f.h5", table)
    matrix = Features.matrix

    def changed(self, name, fold):
        found = matrix(self, name, fold)
        found.values[table.folds == 0] *= 50
        return found

    options = {"models": ["c3d"], "head": HeadSettings()}
    plain = evaluated(path, **options).heads[0]
    monkeypatch.setattr(Features, "matrix", changed)
    other = evaluated(path, **options).heads[0]
    assert plain.fold == other.fold == 0
    # Steps are scaled by the spectrum of all clips: equal but for the last digits of fits.
    assert pytest.approx(plain.C, rel=0.1) == other.C
    np.testing.assert_array_equal(other.scale, plain.scale)
    np.testing.assert_allclose(other.coef, plain.coef, atol=0.02)


def test_groups_of_several_clips_have_mean_0_and_deviation_1():
    groups = ["a"] * 8 + ["b"] * MIN_CLIPS + ["c"] * (MIN_CLIPS - 1)
    x = (RNG.normal(size=(17, 3)) * 4 + np.repeat([50.0, -9, 2], [8, 5, 4])[:, None]).astype("f4")
    present = np.ones(17, bool)
    present[0] = False
    found = standardise_within(x, present, groups)
    assert groups_within(present, groups).tolist() == [False] + [True] * 12 + [False] * 4
    for part in (slice(1, 8), slice(8, 13)):
        np.testing.assert_allclose(found[part].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(found[part].std(0), 1, atol=1e-4)
    # A small group is standardised as all clips are.
    np.testing.assert_array_equal(found[13:], fit_scaling(x, present)[0].apply(x[13:]))
    assert (found[0] == 0).all()


def test_a_feature_drowned_by_its_singer_is_found(tmp_path, monkeypatch):
    singer = RNG.permutation(120) % 12
    offset = 30 * RNG.normal(size=12)[singer]
    raw = Features.raw_matrix

    def sung(self, name, fold):
        matrix = raw(self, name, fold)
        matrix.values[:] += offset[:, None]
        return matrix

    table = replace(make_table(n=120, k=0), groups=tuple(f"s{i}" for i in singer))
    path = frozen_cache(tmp_path / "f.h5", table, strength=2.0)
    monkeypatch.setattr(Features, "raw_matrix", sung)
    options = {"models": ["c3d"], "folds": 4, "seed": 1}
    plain, within = (evaluated(path, within_groups=w, **options) for w in (False, True))
    shuffled = evaluated(path, within_groups=True, permute_labels=True, **options)
    assert primary(within.models[0]).mean() > primary(plain.models[0]).mean()
    assert primary(shuffled.models[0]).mean() < 0.4
    assert within.provenance["within_groups"]["clips"] == 120


def in_blocks(values, step=7):
    """The values as if they were read from a file, without rows of zeros."""

    def read():
        for start in range(0, len(values), step):
            rows = np.arange(start, min(start + step, len(values)))
            rows = rows[values[rows].any(axis=1)]
            yield rows, values[rows]

    return Rows(values.shape, read)


def test_scaling_with_outliers_and_a_large_mean():
    draw = np.random.default_rng(1)
    values = draw.normal(size=(200, 5)).astype(np.float32)
    values[:, 1] = 1e3 + 0.1 * values[:, 1]
    values[:, 2] = 7.0
    values[[0, 60]] = 1e8
    rows = draw.random(200) < 0.8
    rows[[0, 60]] = True
    (one, far), (other, other_far) = fit_scaling(values, rows), fit_scaling(in_blocks(values), rows)
    assert np.flatnonzero(far).tolist() == np.flatnonzero(other_far).tolist() == [0, 60]
    np.testing.assert_allclose(other.shift, one.shift, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.scale, one.scale, rtol=1e-4)


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_an_evaluation_within_little_memory(tmp_path, make):
    missing = {"missing": {"c3d": [0, 1, 2]}} if make is frozen_cache else {}
    path = make(tmp_path / "f.h5", names=("music1d", "c3d"), **missing)
    in_memory, streamed = (
        evaluated(path, missing_modality=True, refit=True, memory=memory) for memory in (4.0, 0.0)
    )
    for one, other in zip(in_memory.models, streamed.models, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(other.outputs, one.outputs, atol=TOLERANCE)
        assert one.n_fallback == other.n_fallback
    assert len(in_memory.heads) == len(streamed.heads)


def test_groups_need_memory(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", names=("music1d", "c3d"))
    with open_cache(path) as cache, pytest.raises(BadFeatures, match=r"GiB\): set fuse\.memory to"):
        evaluate(cache, EvaluationSettings(memory=0.0, within_groups=True))
    with pytest.raises(MvemoError, match="memory is -1: it must be 0 or more"):
        EvaluationSettings(memory=-1)


def test_nothing_is_read_that_no_model_needs(tmp_path, monkeypatch):
    path = frozen_cache(tmp_path / "f.h5")
    read, plain = Counter(), PlainArray.read_into

    def count(self, values, start=0):
        read[self.name] += values.nbytes
        plain(self, values, start)

    monkeypatch.setattr(PlainArray, "read_into", count)
    with open_cache(path) as cache:
        evaluate(cache, plain_settings(models=("i3d",)))
        # The values of one feature of four, once.
        assert read["values"] == 4 * len(cache.table) * cache.spec("i3d").dim


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e-37, 1e-30, 1e-20, 1e-16, 1e14, 1e20, 1e30, 1e35])
@pytest.mark.parametrize("streamed", [False, True])
def test_columns_of_any_magnitude_are_scaled(factor, streamed):
    x = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32) + 2
    x[7] = 500.0  # an outlier
    expected, far = fit_scaling(x, np.ones(60, bool))
    other = x.copy()
    other[:, 1] *= np.float32(factor)
    scaling, outside = fit_scaling(in_blocks(other) if streamed else other, np.ones(60, bool))
    np.testing.assert_allclose(scaling.apply(other), expected.apply(x), atol=1e-5)
    np.testing.assert_array_equal(outside, far)
