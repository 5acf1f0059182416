"""Tags and dimensions: equal to scikit-learn's heads, honest, at chance when permuted."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import spec, write_cache
from fuse_samples import plain_settings, primary
from output_samples import crossfit_output_cache, output_cache, output_features, output_table
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, f1_score, r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, LeakError, evaluate, load_heads, save_heads
from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.metrics.scores import best_thresholds
from mvemo.manifests import make_folds


def run(path, n_resamples=0, **options):
    with open_cache(path) as cache:
        return with_uncertainty(evaluate(cache, plain_settings(**options)), n_resamples=n_resamples)


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    table = output_table("multilabel")
    path = output_cache(tmp_path_factory.mktemp("t") / "f.h5", table, noise=3.0)
    return table, run(path, C=0.1, refit=True, n_resamples=100), path


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    table = output_table("regression")
    path = output_cache(tmp_path_factory.mktemp("v") / "f.h5", table)
    return table, run(path, C=0.1, refit=True, n_resamples=100), path


def logistic(x, y, train, C, scaled_on=None):
    scaler = StandardScaler().fit(x[train if scaled_on is None else scaled_on])
    found = [
        LogisticRegression(C=C, tol=1e-8, max_iter=1000)
        .fit(scaler.transform(x[train]), y[train, t])
        .predict_proba(scaler.transform(x))[:, 1]
        for t in range(y.shape[1])
    ]
    return np.stack(found, axis=1)


def test_tags_are_scikit_learns(tags):
    table, results, _ = tags
    assert [m.name for m in results.models] == ["music1d", "c3d", "c3d+music1d", "integrated"]
    x = np.concatenate([output_features(table, n, noise=3.0) for n in ("c3d", "music1d")], axis=1)
    y = table.labels
    model = results.models[2]
    off = []
    for fold in range(3):
        test = table.folds == fold
        expected = logistic(x, y, ~test, 0.1)
        np.testing.assert_allclose(model.outputs[test], expected[test], atol=2e-3)
        # Thresholds rest on inner folds of the training clips alone.
        rows = np.flatnonzero(~test)
        groups = [table.groups[i] for i in rows]
        inner = make_folds(y[rows], groups, 3, 0, "multilabel")
        held = np.full((len(rows), 3), np.nan)
        for j in range(3):
            held[inner == j] = logistic(x[rows], y[rows], inner != j, 0.1, inner >= 0)[inner == j]
            inside = {g for g, i in zip(groups, inner, strict=True) if i == j}
            assert not inside & {g for g, i in zip(groups, inner, strict=True) if i != j}
        off.append(np.abs(model.thresholds[fold] - best_thresholds(held, y[rows])))
    # Of thresholds with nearly the same F1, another may win by a rounding error.
    assert (np.stack(off) < 2e-3).mean() > 0.7
    p, said = model.outputs, model.y_pred
    assert (said == (p >= model.thresholds[table.folds])).all()
    assert model.scores["roc_auc_macro"] == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert model.scores["roc_auc_micro"] == pytest.approx(roc_auc_score(y, p, average="micro"))
    assert model.scores["f1_micro"] == pytest.approx(f1_score(y, said, average="micro"))
    np.testing.assert_allclose(model.per_output["f1"], f1_score(y, said, average=None))
    per_fold = [
        average_precision_score(y[table.folds == f, 1], p[table.folds == f, 1]) for f in range(3)
    ]
    np.testing.assert_allclose(model.per_output_fold["average_precision"][:, 1], per_fold)
    by_hand = [roc_auc_score(y[table.folds == f], p[table.folds == f]) for f in range(3)]
    np.testing.assert_allclose(primary(model), by_hand)
    assert primary(model).mean() > 0.7
    low, high = model.intervals["primary"]
    assert low < primary(model).mean() < high


def test_values_are_those_of_ridge_regression(values):
    table, results, _ = values
    x = np.concatenate([output_features(table, n) for n in ("c3d", "music1d")], axis=1)
    y = table.labels
    model = results.models[2]
    for fold in range(3):
        test = table.folds == fold
        scaler = StandardScaler().fit(x[~test])
        ridge = Ridge(alpha=1 / 0.1, tol=1e-10).fit(scaler.transform(x[~test]), y[~test])
        expected = ridge.predict(scaler.transform(x[test]))
        np.testing.assert_allclose(model.outputs[test], expected, atol=2e-4)
    p = model.outputs
    np.testing.assert_allclose(model.per_output["r2"], r2_score(y, p, multioutput="raw_values"))
    by_hand = [r2_score(y[table.folds == f], p[table.folds == f]) for f in range(3)]
    np.testing.assert_allclose(primary(model), by_hand)
    assert model.per_output["r2"].min() > 0.5
    assert results.task.plane.centre == (0.0, 0.0)
    right = ((p >= 0) == (y >= 0)).all(axis=1)
    assert model.scores["quadrant_accuracy"] == pytest.approx(right.mean())
    assert model.confusion.sum() == 90
    assert np.trace(model.confusion) == right.sum()
    for name, at in (
        ("r2:1", model.per_output["r2"][1]),
        ("quadrant_accuracy", right.mean()),
    ):
        low, high = model.intervals[name]
        assert low < at < high


def test_a_scale_of_the_settings_goes_before_that_of_the_cache(values):
    _, results, path = values
    assert "the middle of the scale -9..9" in results.task.columns_note
    assert run(path, C=0.1, scale="-3..1").task.plane.centre == (-1.0, -1.0)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_permuted_labels_are_at_chance(task, tmp_path):
    table = output_table(task, n=300, group_size=1)
    path = output_cache(tmp_path / "f.h5", table, strength=2.0)
    real, shuffled = run(path), run(path, permute_labels=True)
    assert shuffled.permuted
    # Whole rows change places.
    rows = {tuple(row) for row in table.labels.tolist()}
    assert {tuple(row) for row in shuffled.y_true.tolist()} == rows
    assert (shuffled.y_true != real.y_true).any()
    for before, after in zip(real.models, shuffled.models, strict=True):
        if task == "multilabel":
            assert primary(before).mean() > 0.85
            assert abs(primary(after).mean() - 0.5) < 0.06
        else:
            assert primary(before).mean() > 0.5
            assert -0.3 < primary(after).mean() < 0.02


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_no_label_of_a_fold_has_a_part_in_its_predictions(task, tmp_path):
    table = output_table(task)
    x = output_features(table, "c3d")
    changed = table.labels.copy()
    test = table.folds == 0
    changed[test] = 1 - changed[test]
    found = []
    for i, labels in enumerate((table.labels, changed)):
        path = write_cache(
            tmp_path / f"{i}.h5", replace(table, labels=labels), [(spec("c3d", 8), x)]
        )
        found.append(run(path).models[0])
    assert (found[0].outputs[test] == found[1].outputs[test]).all()
    assert (found[0].outputs[~test] != found[1].outputs[~test]).any()
    if task == "multilabel":
        assert (found[0].thresholds[0] == found[1].thresholds[0]).all()


def test_the_baselines_know_the_training_labels_alone(tags, values):
    for table, results, _ in (tags, values):
        assert results.baseline.features == ()
        for fold in range(3):
            test = table.folds == fold
            expected = np.broadcast_to(
                table.labels[~test].mean(axis=0), (test.sum(), table.labels.shape[1])
            )
            np.testing.assert_allclose(results.baseline.outputs[test], expected)
    assert values[1].baseline.per_output["r2"].max() <= 0
    np.testing.assert_allclose(primary(tags[1].baseline), 0.5)
    # Each tag is always said: its recall is 1.
    np.testing.assert_allclose(tags[1].baseline.per_output["recall"], 1.0)


def test_saved_heads_predict_what_was_reported(tags, values, tmp_path):
    for table, results, _ in (tags, values):
        save_heads(tmp_path / "heads.npz", results)
        saved = load_heads(tmp_path / "heads.npz")
        assert saved.facts["task"] == table.task
        model = results.models[-1]
        noise = 3.0 if table.task == "multilabel" else 1.0
        x = np.concatenate([output_features(table, n, noise=noise) for n in model.features], axis=1)
        for fold in range(3):
            (head,) = saved.select("integrated", fold)
            test = table.folds == fold
            np.testing.assert_allclose(head.predict(x[test]), model.outputs[test], atol=1e-4)
            if table.task == "multilabel":
                assert head.link == "sigmoid"
                np.testing.assert_array_equal(head.thresholds, model.thresholds[fold])
            else:
                assert (head.link, head.thresholds) == ("identity", None)
        (final,) = saved.select("integrated")
        assert final.fold is None
        if table.task == "multilabel":
            np.testing.assert_array_equal(
                final.thresholds, best_thresholds(model.outputs, table.labels)
            )


def test_clips_without_a_feature_are_left_out(tmp_path):
    table = output_table("regression")
    path = output_cache(tmp_path / "f.h5", table, missing={"c3d": [3, 40]})
    results = run(path)
    held = {m.name: int(m.valid.sum()) for m in results.models}
    assert held == {"music1d": 90, "c3d": 88, "c3d+music1d": 88, "integrated": 88}
    assert results.missing == {"music1d": 0, "c3d": 2}


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_crossfitted_nets_and_the_guard(task, tmp_path):
    table = output_table(task)
    path = crossfit_output_cache(tmp_path / "f.h5", table)
    results = run(path, refit=True)
    assert results.models[0].valid.all()
    assert primary(results.models[0]).mean() > 0.4
    assert [h.net_fold for h in results.heads if h.fold is None] == [0, 1, 2]
    with pytest.raises(BadFeatures, match="not 4: give --folds 3"):
        run(path, folds=4)
    shared = spec("c3d", 8, "shared", None, table.clip_ids)
    leaky = write_cache(tmp_path / "s.h5", table, [(shared, output_features(table, "c3d"))])
    with pytest.raises(LeakError, match="--protocol shared"):
        run(leaky)
    assert run(leaky, allow_leak=True).leaky


def test_folds_of_other_number_keep_groups_whole(tags):
    results = run(tags[2], folds=5, seed=3)
    assert set(results.folds.tolist()) == set(range(5))
    for group in set(results.groups):
        rows = [i for i, g in enumerate(results.groups) if g == group]
        assert len(set(results.folds[rows].tolist())) == 1
