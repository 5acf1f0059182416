"""Distances from the training clips: limits, degradations, folders and copies of made clips."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import make_table, spec, write_cache
from fuse_samples import plain_settings

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, evaluate
from mvemo.fuse.features import Features
from mvemo.fuse.final import reference
from mvemo.fuse.final.building import build_model
from mvemo.fuse.final.model import Predictor
from mvemo.fuse.final.model_files import load_model, save_model
from mvemo.fuse.final.reference import (
    AXES,
    FOLDER,
    NEIGHBOURS,
    PLAIN,
    Reference,
    distances,
    fit_references,
    folder_alarm,
    unlikeness,
)

N, DIM = 240, 12
TABLE = make_table(N, group_size=1)
# How far a degradation moves a clip; clips themselves have a deviation of 1 in each of the columns.
DEGRADATIONS = {"mp3": 0.1, "cut": 0.5}


def made(n, seed):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def degraded_cache(path, x, names=TABLE.clip_ids, item=None, degradations=DEGRADATIONS):
    """Write the features of every degradation of every clip."""
    ids = tuple(f"{clip}@{degradation}" for degradation in degradations for clip in names)
    values = [x + size * made(len(x), 9) for size in degradations.values()]
    table = make_table(len(ids), group_size=1)
    return write_cache(
        path,
        replace(table, clip_ids=ids),
        [(item or spec("music1d", DIM), np.concatenate(values))],
    )


def model_of(path, degradations=None, table=TABLE, vectors=None):
    """Return a model of made clips, and its only predictor."""
    write_cache(path, table, vectors or [(spec("music1d", DIM), made(N, 0))])
    with open_cache(path) as cache:
        results = evaluate(cache, plain_settings(refit=True))
        if degradations is None:
            return build_model(cache, results)
        with open_cache(degradations) as degraded:
            return build_model(cache, results, degraded=degraded)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the model without degradations and, after it was saved, the one with degradations."""
    folder = tmp_path_factory.mktemp("reference")
    degradations = degraded_cache(folder / "degradations.h5", made(N, 0))
    save_model(folder / "model", model_of(folder / "b.h5", degradations))
    return model_of(folder / "a.h5"), load_model(folder / "model")


def judged(model, x):
    return unlikeness(model, model.predictors[0], {("music1d", None): x})


def test_the_distance_is_that_to_the_nearest_clips_over_theirs(models):
    model, x, new = models[0], made(N, 0), made(30, 1)
    z, z_new = ((v - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(DIM) for v in (x, new))

    def relative(found):
        nearest = np.argsort(found, axis=1)[:, :NEIGHBOURS]
        return np.take_along_axis(found, nearest, 1).mean(axis=1), nearest

    own = np.linalg.norm(z[:, None] - z, axis=2) + np.diag([np.inf] * N)
    spread, nearest = relative(own)
    known = np.sort(spread / np.sqrt(spread[nearest].mean(axis=1)))
    limit = model.alarm(model.predictors[0])["limit"]
    assert limit == pytest.approx(known[227], rel=0.02)  # 12 of 240 are farther
    distance, nearest = relative(np.linalg.norm(z_new[:, None] - z, axis=2))
    expected = distance / np.sqrt(spread[nearest].mean(axis=1)) / limit
    np.testing.assert_allclose(judged(model, new)[0], expected, rtol=0.03)


def test_random_axes_keep_distances():
    x = np.random.default_rng(0).normal(size=(50, 1000)) * np.linspace(1, 3, 1000)
    whole = Reference(x.mean(axis=0), x.std(axis=0), np.empty((0, 0)))
    places = whole.project(x)
    assert places.shape == (50, AXES)
    found = distances({("a", None): replace(whole, places=places)}, ["a"], {("a", None): places})
    # The mean square of differences of standardised values is 2.
    assert np.median(found[np.triu_indices(50, 1)]) == pytest.approx(np.sqrt(2), rel=0.05)
    assert (found.diagonal() == 0).all()


def test_no_degradation_is_called_unlike_more_often_than_five_in_a_hundred(models):
    plain, degraded = (model.alarm(model.predictors[0]) for model in models)
    assert list(plain["false_alarms"]) == [PLAIN]
    assert list(degraded["false_alarms"]) == [PLAIN, *DEGRADATIONS]
    assert max(degraded["false_alarms"].values()) == pytest.approx(0.05, abs=0.005)
    assert degraded["limit"] > plain["limit"]
    new = made(2000, 3)
    for size in (0, *DEGRADATIONS.values()):
        changed = new + size * made(2000, 4)
        assert (judged(models[1], changed)[0] > 1).mean() < 0.08
    for model in models:
        assert (judged(model, 3 * new)[0] > 1).mean() > 0.9


def test_copies_are_told_from_other_clips(models):
    for model in models:
        assert judged(model, made(N, 0) + 0.1 * made(N, 4))[1].mean() > 0.95
        assert judged(model, made(2000, 3))[1].mean() < 0.02
        assert not judged(model, made(100, 3) + 20)[1].any()


def test_a_folder_is_unlike_the_clips_though_most_of_its_clips_are_not(models):
    model = models[0]
    (predictor,) = model.predictors
    ratios = judged(model, 1.25 * made(400, 5))[0]
    assert (ratios > 1).mean() < 0.5
    folders = [[(predictor, x) for x in part] for part in ratios.reshape(-1, FOLDER)]
    assert np.mean([folder_alarm(model, folder) for folder in folders]) > 0.8
    usual = judged(model, made(2000, 6))[0].reshape(-1, FOLDER)
    alarms = [folder_alarm(model, [(predictor, x) for x in part]) for part in usual]
    assert np.mean(alarms) < 0.15
    # Clips whose distance is unknown do not count.
    assert not folder_alarm(model, [*folders[0][1:], (predictor, np.nan)])


def test_clips_of_the_same_group_are_left_out_unless_groups_are_whole_sets(tmp_path):
    # Each clip has a near twin.
    twins = np.repeat(made(N // 2, 0), 2, axis=0) + 0.01 * made(N, 1)
    limits = {}
    for n_groups in (N, N // 2, 3):
        groups = tuple(f"g{row * n_groups // N}" for row in range(N))
        vectors = [(spec("music1d", DIM), twins)]
        table = replace(TABLE, groups=groups)
        path = write_cache(tmp_path / f"{n_groups}.h5", table, vectors)
        with open_cache(path) as cache:
            (predictor,) = model_of(tmp_path / f"{n_groups}m.h5").predictors
            found = fit_references(Features(cache), cache.specs, [predictor])[1]
        limits[n_groups] = found[predictor.name]["limit"]
    assert limits[N] == limits[3] < limits[N // 2]


def test_clips_above_a_number_are_left_out_of_the_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "MOST_CLIPS", 50)
    degradations = degraded_cache(tmp_path / "d.h5", made(N, 0))
    models = [model_of(tmp_path / name, degradations) for name in ("a.h5", "b.h5")]
    kept = [model.reference["music1d", None].places for model in models]
    assert len(kept[0]) == 50
    np.testing.assert_array_equal(*kept)
    assert (judged(models[0], made(2000, 3))[0] > 1).mean() < 0.08


def test_degradations_without_pictures_have_those_of_their_clips(tmp_path):
    pictures = spec("c3d", DIM)
    vectors = [(spec("music1d", DIM), made(N, 0)), (pictures, made(N, 7))]
    degradations = degraded_cache(tmp_path / "d.h5", made(N, 0), degradations={"same": 0.0})
    model = model_of(tmp_path / "f.h5", degradations, vectors=vectors)
    for predictor in model.predictors:
        alarms = model.alarm(predictor)["false_alarms"]
        assert alarms["same"] == alarms[PLAIN] <= 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": [f"other {i}" for i in range(N)]}, "CLIP@DEGRADATION, such as clip 0@mp3"),
        ({"degradations": {"": 0.1}}, "got clip 0@"),
        ({"degradations": {"plain": 0.1}}, "got clip 0@plain"),
        ({"item": replace(spec("music1d", DIM), version=2)}, "expected the feature music1d as in"),
    ],
)
def test_files_that_are_not_degradations_of_the_clips_are_refused(tmp_path, changes, message):
    degradations = degraded_cache(tmp_path / "d.h5", made(N, 0), **changes)
    with pytest.raises(BadFeatures, match=message):
        model_of(tmp_path / "f.h5", degradations)


@pytest.mark.parametrize("values", [made(1, 0), made(2, 0), np.ones((N, DIM), np.float32)])
def test_too_few_and_equal_clips_have_no_limit(tmp_path, values):
    table = make_table(len(values), k=0, group_size=1)
    predictor = Predictor("music1d", ("music1d",), ("audio",), {})
    path = write_cache(tmp_path / "f.h5", table, [(spec("music1d", DIM), values)])
    with open_cache(path) as cache:
        found = fit_references(Features(cache), cache.specs, [predictor])[1]
    assert found["music1d"]["limit"] is None


def test_without_a_limit_nothing_is_known_of_new_clips(models):
    for alarm in ({}, {"music1d": {"limit": None}}):
        ratios, is_copy = judged(replace(models[0], facts={"alarm": alarm}), made(3, 0))
        assert np.isnan(ratios).all()
        assert not is_copy.any()
