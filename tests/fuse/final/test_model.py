"""The model folder: what a model of an evaluation says of new clips, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import (
    MODALITY,
    crossfit_cache,
    features,
    frozen_cache,
    make_table,
    spec,
    write_cache,
)
from fuse_samples import built, plain_settings, reloaded

from mvemo.cache import CacheWriter, open_cache
from mvemo.fuse import BadFeatures, evaluate
from mvemo.fuse.conformal import GRID, PER_CLASS, Asked, members
from mvemo.fuse.features import Features
from mvemo.fuse.final import model as final_model
from mvemo.fuse.final.building import build_model
from mvemo.fuse.final.model import predict_clips, standardise_folders
from mvemo.fuse.final.model_files import load_model, save_model
from mvemo.fuse.metrics.calibration import apply_temperature
from mvemo.fuse.models import LATE, STACKED
from mvemo.fuse.numeric import decision_inputs
from mvemo.fuse.scaling import LIMIT
from mvemo.manifests.errors import MvemoError

TABLE = make_table()
VECTORS = {(name, None): features(TABLE, name).astype(float) for name in MODALITY}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return models of one evaluation by the name of the preferred one, and the results."""
    path = frozen_cache(tmp_path_factory.mktemp("final") / "f.h5", TABLE)
    names = (None, "i3d+music1d", LATE, STACKED)
    with open_cache(path) as cache:
        results = evaluate(cache, plain_settings(refit=True, stacked=True, late=True))
        return {name: build_model(cache, results, preferred=name) for name in names}, results


@pytest.fixture
def model(made):
    return made[0][None]


def predicted(model, name):
    """Return what the head of one evaluated model predicts for the vectors."""
    (head,) = model.heads.select(name)
    (names,) = (m.features for m in model.heads.models if m.name == name)
    return head.predict(np.concatenate([VECTORS[feature, None] for feature in names], axis=1))


def test_predictors_are_ranked_and_each_is_of_use(made, model):
    results = made[1]
    means = [p.expected["mean"] for p in model.predictors]
    assert means == sorted(means, reverse=True)
    assert means[0] >= max(results.primary_mean(m) for m in results.models)
    for row, predictor in enumerate(model.predictors):
        for better in model.predictors[:row]:
            assert not set(better.features) <= set(predictor.features)
    assert model.best(()) is None


def test_what_lacks_features_is_predicted_by_the_product_of_the_others(model):
    best = model.best(("audio",))
    assert (best.features, best.bases) == (("music1d", "music2d"), ("music1d", "music2d"))
    singles = []
    (product,) = model.heads.select("integrated-late")
    for column, name in enumerate(product.features):
        if name in best.features:
            weights = np.diag(product.coef[:, 6 * column : 6 * column + 6])
            singles.append(np.log(predicted(model, name).clip(1e-4)) * weights)
    # Each base's share of the product of four grows to that of a product of two.
    scores = np.sum(singles, axis=0) * len(product.features) / 2
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    outputs = predict_clips(model, best, VECTORS)
    np.testing.assert_allclose(outputs, apply_temperature(expected, best.temperature), rtol=1e-5)
    assert "music2d" not in model.best(("audio", "video"), without=["music2d"]).features
    assert model.best_of({"i3d"}).name == "i3d"


def test_the_preferred_model_comes_first_and_predicts_by_its_head_and_temperature(made):
    model = made[0]["i3d+music1d"]
    predictor = model.predictors[0]
    assert predictor.name == "i3d+music1d"
    # Whatever has these features is predicted by it: nothing else that needs both is kept.
    for other in model.predictors[1:]:
        assert not {"i3d", "music1d"} <= set(other.features)
    expected = apply_temperature(predicted(model, "i3d+music1d"), predictor.temperature)
    np.testing.assert_allclose(predict_clips(model, predictor, VECTORS), expected)


@pytest.mark.parametrize("name", [STACKED, LATE])
def test_second_layers_read_what_their_bases_predict(made, name):
    model = made[0][name]
    predictor = model.predictors[0]
    (layer,) = model.heads.select(name)
    decisions = [decision_inputs(predicted(model, base), layer.link) for base in layer.features]
    expected = layer.predict(np.concatenate(decisions, axis=1))
    outputs = predict_clips(model, predictor, VECTORS)
    np.testing.assert_allclose(outputs, apply_temperature(expected, predictor.temperature))
    assert (outputs.argmax(axis=1) == TABLE.labels).mean() > 0.9


def test_a_folder_is_read_as_it_was_written(model, tmp_path):
    again = reloaded(model, tmp_path)
    assert (again.predictors, again.specs) == (model.predictors, model.specs)
    assert again.classes == model.classes
    for predictor in model.predictors:
        expected, got = (predict_clips(one, predictor, VECTORS) for one in (model, again))
        np.testing.assert_array_equal(got, expected)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz"}


def test_thresholds_hold_the_share_of_clips_that_is_asked(made, model):
    results, predictor = made[1], model.predictors[0]
    limits = np.array(predictor.nonconformity)
    assert limits.shape == (len(GRID), 1)
    assert (np.diff(limits[:, 0]) >= 0).all()
    (evaluated,) = (m for m in results.models if m.name == predictor.name)
    proba = apply_temperature(evaluated.outputs, predictor.temperature)
    sets = members(proba, final_model.with_coverage(model, Asked(0.8)).limit(predictor))
    assert sets[np.arange(len(proba)), results.y_true].mean() >= 0.8
    assert predictor.expected["coverage"]["size"] >= 1
    # With --per-class, each class has a threshold, which enough of its clips are below.
    sets = members(proba, final_model.with_coverage(model, Asked(0.8, PER_CLASS)).limit(predictor))
    hits = sets[np.arange(len(proba)), results.y_true]
    assert all(hits[results.y_true == label].mean() >= 0.8 for label in set(results.y_true))
    assert predictor.limit_groups == len(set(results.groups))
    assert model.limit(predictor) is None


def test_a_model_knows_the_files_that_it_was_fitted_on(tmp_path):
    net = spec("music1d", 4)
    mfcc = replace(net, name="mfcc", kind="sequence", dim=2, protocol="none")
    rng = np.random.default_rng(0)
    with CacheWriter(tmp_path / "f.h5", TABLE) as writer:
        for clip in TABLE.clip_ids:
            for made, shape in ((net, 4), (mfcc, (4, 2))):
                values = rng.normal(size=shape).astype(np.float32)
                writer.put(made, clip, made.key(f"digest of {clip}", 1.0, 5), values)
    model, _ = built(tmp_path / "f.h5", lld=("mfcc",))
    assert {spec.name for spec in model.specs} == {"music1d", "lld"}
    read, content = reloaded(model, tmp_path / "model"), f"digest of {TABLE.clip_ids[0]}"
    assert read.trained_on(content, 1, 5.0)
    assert not read.trained_on(content, 0, None)
    assert not read.trained_on("digest of another", 1, 5.0)


def test_crossfitted_predictions_are_the_mean_over_nets(tmp_path):
    model, _ = built(crossfit_cache(tmp_path / "f.h5"))
    predictor = next(p for p in model.predictors if p.name == "c3d")
    heads = model.heads.select("c3d")
    assert len(heads) == 6
    rng = np.random.default_rng(0)
    vectors = {("c3d", fold): rng.normal(size=(5, heads[0].mean.size)) for fold in range(6)}
    mean = np.mean([head.predict(vectors["c3d", head.net_fold]) for head in heads], axis=0)
    expected = apply_temperature(mean, predictor.temperature)
    np.testing.assert_allclose(predict_clips(model, predictor, vectors), expected)


def test_what_remains_of_a_fusion_predicts_where_nothing_smaller_was_evaluated(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    model, _ = built(path, models=["integrated"], missing_modality=True)
    assert [p.modalities for p in model.predictors] == [("audio", "video"), ("audio",), ("video",)]
    assert model.best(("audio",)).expected["mean"] is None


def ratings_cache(path, protocol):
    """Two ratings that twelve numbers tell well."""
    table = make_table(task="regression", classes=("valence", "energy"))
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(len(table), 2)) + 5.0
    table = replace(table, labels=ratings)
    x = np.repeat(ratings, 6, axis=1) + rng.normal(size=(len(table), 12))
    return write_cache(path, table, [(spec("music1d", 12, protocol), x.astype("f4"))]), x, ratings


def test_values_have_intervals_and_a_scale(tmp_path):
    path, x, ratings = ratings_cache(tmp_path / "f.h5", "frozen")
    model, results = built(path)
    (predictor,) = model.predictors
    outputs = predict_clips(model, predictor, {("music1d", None): x})
    width = model.limit(predictor, 0.9)
    errors = np.abs(ratings - results.models[0].outputs)
    assert (errors <= width).mean() == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(outputs[:, 0], ratings[:, 0])[0, 1] > 0.8
    assert model.scale["energy"]["maximum"] == ratings[:, 1].max()
    assert model.ends("energy") == (ratings[:, 1].min(), ratings[:, 1].max())
    model, _ = built(path, scale="1..9")
    assert {model.ends(name) for name in model.classes} == {(1.0, 9.0)}
    loaded = reloaded(model, tmp_path / "model")
    assert loaded.ends("energy") == (1.0, 9.0)
    # A clip far above all training clips gets more than their ratings, but stays on the scale.
    far = predict_clips(loaded, loaded.predictors[0], {("music1d", None): x + 9.0})
    assert ratings.max() < far.max() <= 9.0
    model, _ = built(path, scale="4..6")  # energy is on another scale
    assert model.ends("energy") == (ratings[:, 1].min(), ratings[:, 1].max())


SETS = ("film", "pop", "videos")


def sets_cache(path, sizes=(40, 40, 40), names=SETS):
    """Valence and arousal of clips of a few sets, which are the groups and the folds."""
    table = make_table(sum(sizes), 0, task="regression", classes=("valence", "arousal"))
    rng, of_set = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    ratings = rng.uniform(-1, 1, (len(table), 2))
    groups = tuple(names[i] for i in of_set)
    table = replace(
        table,
        labels=ratings,
        groups=groups,
        folds=of_set.astype(np.int64),
        k=len(sizes),
        fold_seed=0,
    )
    x = np.repeat(ratings, 6, axis=1) + rng.normal(0, 2, (len(table), 12))
    return write_cache(path, table, [(spec("music1d", 12), x.astype("f4"))]), ratings, of_set


def test_each_set_that_was_left_out_has_its_scores(tmp_path):
    path, ratings, of_set = sets_cache(tmp_path / "f.h5")
    model, results = built(path, scale="-1..1")
    found = model.predictors[0].expected["per_group"]
    outputs = results.models[0].outputs
    assert [*found] == [*SETS]
    for i, name in enumerate(SETS):
        y, p = ratings[of_set == i], outputs[of_set == i]
        r = [np.corrcoef(y[:, j], p[:, j])[0, 1] for j in range(2)]
        expected = {
            "r valence": r[0],
            "r arousal": r[1],
            "quadrant_accuracy": ((y >= 0) == (p >= 0)).all(axis=1).mean(),
            "r2_macro": (1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)).mean(),
        }
        assert found[name].pop("n") == 40
        assert {k: v[0] for k, v in found[name].items() if k in expected} == pytest.approx(expected)
        assert all(low < mean < high for mean, low, high in map(found[name].get, expected))
    plane, errors = model.predictors[0].expected["plane"], ratings - outputs
    assert (plane["at"], plane["centre"]) == ([0, 1], (0.0, 0.0))
    np.testing.assert_allclose(plane["covariance"], errors.T @ errors / len(errors))
    # Intervals are those of the clips, because three sets have no quantiles.
    assert (model.limit(model.predictors[0], 0.9) < 3).all()
    loaded = reloaded(model, tmp_path / "model").predictors[0].expected
    assert loaded["per_group"] == model.predictors[0].expected["per_group"]


@pytest.mark.parametrize("sizes", [(50, 50, 19), (20,) * 13])
def test_groups_that_are_no_sets_have_no_scores_of_their_own(sizes, tmp_path):
    names = [f"set {i}" for i in range(len(sizes))]
    model, _ = built(sets_cache(tmp_path / "f.h5", sizes, names)[0], folds=3)
    assert model.predictors[0].expected["per_group"] == {}


def test_imported_features_and_shuffled_labels_are_refused(tmp_path):
    with pytest.raises(BadFeatures, match=r"imported features \(music1d\)"):
        built(ratings_cache(tmp_path / "f.h5", "imported")[0])
    with pytest.raises(BadFeatures, match="shuffled"):
        built(frozen_cache(tmp_path / "g.h5"), permute_labels=True)


def test_what_is_no_model_is_one_line(model, tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(MvemoError, match=r"is not a model \(it has no model.json\)"):
        load_model(folder)
    save_model(folder, model)
    record = json.loads((folder / "model.json").read_text())
    (folder / "reference.npz").write_bytes(b"other")
    for text, message in (
        (json.dumps({**record, "mvemo_model": 99}), "expected a model of version 2, got 99"),
        (json.dumps(record), r"reference\.npz: is not the file that the model"),
        ("{", "not JSON: |is damaged, or is not a model"),
    ):
        (folder / "model.json").write_text(text)
        with pytest.raises(MvemoError, match=message):
            load_model(folder)


def test_a_number_that_is_far_out_tells_a_head_no_more_than_a_limit(model):
    (predictor,) = [p for p in model.predictors if p.features == ("music1d",)]
    reference = model.reference["music1d", None]
    x, outputs = VECTORS["music1d", None].copy(), []
    for value in (reference.mean[0] + LIMIT * reference.scale[0], 1e9):
        x[:, 0] = value
        outputs.append(predict_clips(model, predictor, {("music1d", None): x}))
    np.testing.assert_allclose(*outputs, atol=1e-9)


def test_a_model_within_groups_reads_a_folder_as_one(tmp_path):
    table = make_table(n=60, group_size=10)
    path = frozen_cache(tmp_path / "f.h5", table, names=("c3d", "i3d"))
    model = reloaded(built(path, within_groups=True)[0], tmp_path / "m")
    assert model.within_groups
    with open_cache(path) as cache:
        within = Features(cache, plain_settings(within_groups=True)).matrix("c3d", None).values
    vectors = {("c3d", None): features(table, "c3d").astype(float)}
    scaled = standardise_folders(model, vectors, table.groups)
    np.testing.assert_allclose(scaled["c3d", None], within, atol=1e-5)
    # One clip alone is standardised by all training clips, with which the model was kept.
    alone = standardise_folders(model, {k: x[:1] for k, x in vectors.items()}, ["new"])
    reference = model.reference["c3d", None]
    expected = (vectors["c3d", None][:1] - reference.mean) / reference.scale
    np.testing.assert_allclose(alone["c3d", None], expected, atol=1e-4)
    # Another offset of a whole folder changes nothing.
    moved = standardise_folders(model, {k: x[:10] + 7 for k, x in vectors.items()}, ["a"] * 10)
    np.testing.assert_allclose(moved["c3d", None], within[:10], atol=1e-4)
    plain, _ = built(path)
    assert standardise_folders(plain, vectors, table.groups) is vectors
