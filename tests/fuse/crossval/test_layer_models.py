"""Models over the layers of an encoder: weights and layer that are learned inside the folds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import make_table, spec, write_cache
from fuse_samples import built, by_name, evaluated, plain_settings, primary, reloaded
from output_samples import output_table
from sklearn.linear_model import LogisticRegression, Ridge

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, evaluate, load_heads, save_heads
from mvemo.fuse.crossval.layer_models import fit_layer_weights, layers_of
from mvemo.fuse.final.model import predict_clips
from mvemo.fuse.report.report_files import metrics_dict, report_html

FIFTH, N_LAYERS, DIM = 5, 8, 6
WEIGHTED, BEST = "MERT-layers:weighted", "MERT-layers:best-layer"


def layered_cache(path, table, *, strength=1.2, missing=()):
    """Write all layers of an encoder, of which only number 5 carries the label."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(table), N_LAYERS, DIM))
    labels = np.asarray(table.labels, float)
    if labels.ndim == 1:
        labels = np.eye(len(table.classes))[table.labels]
    labels = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    values[:, FIFTH] += strength * labels @ rng.normal(size=(labels.shape[1], DIM))
    params = {"layers": list(range(N_LAYERS)), "storage": "float16"}
    item = replace(spec("MERT-layers", N_LAYERS * DIM, modality="audio"), params=params)
    rows = values.reshape(len(table), -1).astype(np.float32)
    return write_cache(path, table, [(item, rows)], missing={"MERT-layers": missing})


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    table = make_table(180, 3, classes=("calm", "sad", "tense"))
    return layered_cache(tmp_path_factory.mktemp("layers") / "f.h5", table, strength=0.4)


def test_the_layer_that_carries_the_label_is_found_and_used(layered):
    results = evaluated(layered, layers=True, choose_model=True, n_resamples=20)
    found = by_name(results)
    assert list(found) == ["MERT-layers", WEIGHTED, BEST]
    learned = results.layers["MERT-layers"]
    assert learned.layers == tuple(range(N_LAYERS))
    assert learned.best == (FIFTH,) * 3
    assert (learned.weights.argmax(axis=1) == FIFTH).all()
    assert learned.weights.min() >= 0.0
    np.testing.assert_allclose(learned.weights.sum(axis=1), 1.0)
    assert learned.weights[:, FIFTH].min() > 0.8
    assert primary(found[BEST]).mean() > 0.8
    assert primary(found[WEIGHTED]).mean() > primary(found["MERT-layers"]).mean() + 0.02
    assert set(results.choice.inside) <= {WEIGHTED, BEST}
    facts = json.loads(json.dumps(metrics_dict(results)))["layers"]["MERT-layers"]
    assert (facts["best"], len(facts["weights"])) == ([FIFTH] * 3, 3)
    page = report_html(results)
    assert "Best single layer of each fold: 5, 5, 5." in page
    assert "Weights of the layers of MERT-layers" in page


def test_shuffled_labels_are_at_chance(layered):
    found = by_name(evaluated(layered, layers=True, permute_labels=True))
    for name in (WEIGHTED, BEST):
        assert primary(found[name]).mean() == pytest.approx(1 / 3, abs=0.12)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_labels_of_the_tested_clips_change_nothing(task, tmp_path):
    table = make_table(120, 3) if task == "multiclass" else output_table(task, 120, 3)
    path, outputs = layered_cache(tmp_path / "f.h5", table, missing=[7]), []
    tested = table.folds == 1
    for turned in (False, True):
        with open_cache(path) as cache:
            if turned:
                cache.table.labels[tested] = cache.table.labels[tested][::-1]
            found = by_name(evaluate(cache, plain_settings(layers=True)))
        outputs.append([found[name].outputs[tested] for name in (WEIGHTED, BEST)])
        for name in (WEIGHTED, BEST):
            assert np.flatnonzero(~found[name].valid).tolist() == [7]
            assert (
                turned or primary(found[name]).mean() > primary(found["MERT-layers"]).mean() - 0.1
            )
        if task == "multilabel":
            assert found[BEST].thresholds.shape == (3, len(table.classes))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_saved_heads_give_the_same_predictions(task, tmp_path):
    table = make_table(120, 3) if task == "multiclass" else output_table(task, 120, 3)
    path = layered_cache(tmp_path / "f.h5", table)
    model, results = built(path, WEIGHTED, layers=True)
    with open_cache(path) as cache:
        values = cache.vectors("MERT-layers")[0]
    save_heads(tmp_path / "h.npz", results)
    heads, found = load_heads(tmp_path / "h.npz"), by_name(results)
    for name in (WEIGHTED, BEST):
        for fold in range(3):
            (head,) = heads.select(name, fold)
            tested = results.folds == fold
            expected = found[name].outputs[tested]
            np.testing.assert_allclose(head.predict(values[tested]), expected, atol=1e-4)
    (plain,) = heads.select("MERT-layers")
    assert plain.model == "MERT-layers"
    model = reloaded(model, tmp_path / "model")
    predictor = model.predictors[0]
    assert predictor.name == WEIGHTED
    predicted = predict_clips(model, predictor, {("MERT-layers", None): values.astype(float)})
    if task == "multiclass":
        assert (predicted.argmax(axis=1) == results.y_true).mean() > 0.9
    else:
        assert np.corrcoef(predicted[:, 0], results.y_true[:, 0])[0, 1] > 0.7


def test_with_one_layer_the_head_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 4)).astype(np.float32), rng.integers(0, 3, 90)
    share = np.ones(90)
    weights, coef, _ = fit_layer_weights(x[None], np.eye(3)[y], "softmax", 0.1, share)
    reference = LogisticRegression(C=0.1, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(coef, reference.coef_, atol=5e-3)
    target = x[:, :1] + rng.normal(size=(90, 1))
    weights, coef, _ = fit_layer_weights(x[None], target, "identity", 0.1, share)
    reference = Ridge(alpha=10.0).fit(x, target[:, 0])
    np.testing.assert_allclose(coef[0], reference.coef_, atol=5e-3)
    np.testing.assert_allclose(weights, [1.0])


def test_layers_are_found_among_means_and_deviations_of_windows():
    params = {"layers": [1, 2, 3], "view": {"pooling": "mean+std"}}
    item = replace(spec("MERT-layers", 12, modality="audio"), params=params)
    layers, columns = layers_of(item)
    assert layers == (1, 2, 3)
    assert columns.tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    for wrong in ({}, {"layers": 3}, {"layers": [1, 2, 3, 4, 5]}):
        assert layers_of(replace(item, params=wrong))[0] == ()


def test_models_of_layers_can_be_named_or_left_out(layered, tmp_path):
    assert list(by_name(evaluated(layered, models=(BEST,)))) == ["MERT-layers", BEST]
    assert list(by_name(evaluated(layered, layers=False))) == ["MERT-layers"]
    with pytest.raises(BadFeatures, match=r"all layers of an encoder \(hf:FOLDER@all\) that fits"):
        evaluated(layered, models=(BEST,), memory=0.0)
    table = make_table(60, 3)
    item = spec("music1d", 4)
    path = write_cache(tmp_path / "f.h5", table, [(item, np.ones((60, 4), np.float32))])
    with pytest.raises(BadFeatures, match=r"music1d:weighted: expected a feature of all layers"):
        evaluated(path, models=("music1d:weighted",))
