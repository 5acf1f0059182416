"""Cross-validation of any task: equal to scikit-learn's, honest, at chance on permuted labels."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, features, frozen_cache, make_table, spec, write_cache
from fuse_samples import by_name, evaluated, primary
from output_samples import (
    output_cache,
    output_features,
    output_table,
    task_cache,
    task_crossfit_cache,
    task_table,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, f1_score, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.fuse import BadFeatures, HeadSettings, LeakError, format_table
from mvemo.fuse.metrics.scores import best_thresholds
from mvemo.fuse.models import LATE, STACKED
from mvemo.fuse.report.summary import recommend
from mvemo.manifests import make_folds

TASKS = ("multiclass", "multilabel", "regression")
CHANCE = {"multiclass": 1 / 6, "multilabel": 0.5, "regression": 0.0}


def made(folder, task, **options):
    table = output_table(task)
    path = output_cache(folder / "f.h5", table, **options)
    return table, evaluated(path, C=0.1, n_resamples=100), path


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tags"), "multilabel", noise=3.0)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return made(tmp_path_factory.mktemp("values"), "regression")


def logistic(x, y, train, C, scaled_on=None):
    scaler = StandardScaler().fit(x[train if scaled_on is None else scaled_on])
    found = [
        LogisticRegression(C=C, tol=1e-8, max_iter=1000)
        .fit(scaler.transform(x[train]), y[train, t])
        .predict_proba(scaler.transform(x))[:, 1]
        for t in range(y.shape[1])
    ]
    return np.stack(found, axis=1)


def straddles(groups, folds):
    """Return True if the clips of a group are in several folds."""
    return len(set(zip(groups, folds, strict=True))) > len(set(groups))


def test_probabilities_of_classes_are_scikit_learns(tmp_path):
    table = make_table()
    results = evaluated(frozen_cache(tmp_path / "f.h5", table), C=0.05)
    assert [m.name for m in results.models][-1] == "integrated"
    assert len(results.models) == 9
    x = {n: features(table, n) for n in ("music1d", "music2d", "c3d", "i3d")}
    for model in (results.models[0], results.models[5], results.models[8]):
        joined = np.concatenate([x[n] for n in model.features], axis=1)
        for fold in range(6):
            test = table.folds == fold
            reference = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.05, tol=1e-8, max_iter=2000)
            ).fit(joined[~test], table.labels[~test])
            expected = reference.predict_proba(joined[test])
            # Stopped at a gradient of 1e-4.
            np.testing.assert_allclose(model.outputs[test], expected, atol=5e-3)
            said = model.outputs[test].argmax(1)
            assert model.per_fold["accuracy"][fold] == np.mean(said == table.labels[test])
    y, folds = results.y_true, [results.folds == fold for fold in range(6)]
    by_hand = [np.mean(y[test] == np.bincount(y[~test]).argmax()) for test in folds]
    np.testing.assert_allclose(results.primary_per_fold(results.baseline), by_hand)


def test_probabilities_of_tags_are_scikit_learns(tags):
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
        # Thresholds rest on inner folds of the training clips.
        rows = np.flatnonzero(~test)
        groups = [table.groups[i] for i in rows]
        inner = make_folds(y[rows], groups, 3, 0, "multilabel")
        held = np.full((len(rows), 3), np.nan)
        for j in range(3):
            held[inner == j] = logistic(x[rows], y[rows], inner != j, 0.1, inner >= 0)[inner == j]
        assert not straddles(groups, inner)
        off.append(np.abs(model.thresholds[fold] - best_thresholds(held, y[rows])))
    # Of thresholds with nearly the same F1, another may win by a rounding error.
    assert (np.stack(off) < 2e-3).mean() > 0.7
    p, said = model.outputs, model.y_pred
    assert (said == (p >= model.thresholds[table.folds])).all()
    assert model.scores["roc_auc_macro"] == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert model.scores["f1_micro"] == pytest.approx(f1_score(y, said, average="micro"))
    folds = [table.folds == fold for fold in range(3)]
    per_fold = [average_precision_score(y[rows, 1], p[rows, 1]) for rows in folds]
    np.testing.assert_allclose(model.per_output_fold["average_precision"][:, 1], per_fold)
    by_hand = [roc_auc_score(y[rows], p[rows]) for rows in folds]
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
    for name, at in (("r2:1", model.per_output["r2"][1]), ("quadrant_accuracy", right.mean())):
        low, high = model.intervals[name]
        assert low < at < high


def test_a_scale_of_the_settings_goes_before_that_of_the_cache(values):
    _, results, path = values
    assert "the middle of the scale -9..9" in results.task.columns_note
    assert evaluated(path, C=0.1, scale="-3..1").task.plane.centre == (-1.0, -1.0)


def test_the_baselines_know_the_training_labels_only(tags, values):
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


@pytest.mark.parametrize(
    ("task", "make"), [*((task, task_cache) for task in TASKS), ("multiclass", task_crossfit_cache)]
)
def test_permuted_labels_are_at_chance(task, make, tmp_path):
    path = make(tmp_path / "f.h5", task_table(task, n=240), names=("music1d", "music2d", "c3d"))
    head = HeadSettings(choose_C=make is task_crossfit_cache)
    options = {"stacked": True, "late": True, "choose_model": True, "head": head}
    real = evaluated(path, **options)
    found = by_name(real)
    best = max(primary(m).mean() for m in found.values())
    singles = [primary(m).mean() for m in found.values() if len(m.features) == 1]
    pairs = [primary(m).mean() for m in found.values() if "+" in m.name]
    assert primary(found[STACKED]).mean() > max(pairs) - 0.02
    assert primary(found[LATE]).mean() > max(singles) - 0.02
    assert all(np.isfinite(m.outputs).all() for m in real.models)
    assert primary(real.choice.nested).mean() > best - 0.1
    assert "Use " in recommend(real)
    # One shuffle may be lucky.
    several = [evaluated(path, permute_labels=True, seed=seed, **options) for seed in range(2)]
    assert several[0].permuted
    # Whole rows change places.
    assert sorted(several[0].y_true.tolist()) == sorted(real.y_true.tolist())
    assert (several[0].y_true != real.y_true).any()
    for i in range(len(real.models)):
        score = np.mean([primary(one.models[i]).mean() for one in several])
        low = 0.3 if task == "regression" else 0.08
        assert CHANCE[task] - low < score < CHANCE[task] + 0.08, real.models[i].name
    assert primary(several[0].choice.nested).mean() < CHANCE[task] + 0.15
    if task == "multiclass":
        pooled = several[0].models[-1].scores["roc_auc_macro_ovr_pooled"]
        assert abs(pooled - 0.5) < 0.08
        assert recommend(several[0]) == ""


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_a_fold_have_no_part_in_its_predictions(task, tmp_path):
    table = task_table(task, n=60)
    changed = table.labels.copy()
    test = table.folds == 0
    changed[test] = (changed[test] + 1) % 6 if task == "multiclass" else 1 - changed[test]
    made = features if task == "multiclass" else output_features
    vectors = [(spec(name, 8), made(table, name)[:, :8]) for name in ("music1d", "c3d")]
    runs = []
    for i, labels in enumerate((table.labels, changed)):
        path = write_cache(tmp_path / f"{i}.h5", replace(table, labels=labels), vectors)
        options = {"stacked": True, "late": True, "choose_model": True, "temperature": True}
        runs.append(evaluated(path, head=HeadSettings(), **options))
    for a, b in zip(runs[0].models, runs[1].models, strict=True):
        np.testing.assert_allclose(a.outputs[test], b.outputs[test], atol=2e-3)
        assert (a.outputs[~test] != b.outputs[~test]).any()
        if task == "multilabel":
            np.testing.assert_allclose(a.thresholds[0], b.thresholds[0], atol=2e-3)
    one, two = (run.choice for run in runs)
    assert one.inside[0] == two.inside[0]
    np.testing.assert_allclose(one.nested.outputs[test], two.nested.outputs[test], atol=2e-3)


def test_crossfit_uses_each_folds_own_nets(tmp_path):
    results = evaluated(crossfit_cache(tmp_path / "f.h5", strength=1.5))
    assert results.protocol == "crossfit"
    assert not results.leaky
    # Each net has a basis of its own: features of another fold's net would be noise.
    assert np.mean(results.models[-1].per_fold["accuracy"]) > 0.7
    assert {h.net_fold for h in results.heads} == set(range(6))


@pytest.mark.parametrize("task", TASKS)
def test_a_net_that_saw_its_test_clips_is_refused(task, tmp_path):
    table = task_table(task, k=6)
    made = features if task == "multiclass" else output_features
    n = [int((table.folds == fold).sum()) for fold in range(6)]
    leaky = spec("c3d", 8, "shared", None, table.clip_ids)
    path = write_cache(tmp_path / "f.h5", table, [(leaky, made(table, "c3d")[:, :8])])
    message = rf"c3d was trained on {n[0]} of the {n[0]} clips of fold 0.*--protocol shared"
    with pytest.raises(LeakError, match=message):
        evaluated(path)
    results = evaluated(path, allow_leak=True)
    assert results.leaky
    assert results.protocol == "shared"
    # Called frozen, but its record says that it saw one clip: the record counts, for its group.
    one = table.clip_ids[int(np.flatnonzero(table.folds == 2)[0])]
    seen = spec("c3d", 8, "frozen", None, (one,))
    path = write_cache(tmp_path / "g.h5", table, [(seen, made(table, "c3d")[:, :8])])
    with pytest.raises(LeakError, match=f"trained on 2 of the {n[2]} clips of fold 2"):
        evaluated(path)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_missing_feature_leaves_that_clip_out_of_the_models_that_need_it(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task), missing={"c3d": [4, 5, 40]})
    results = evaluated(path)
    assert results.missing == {"music1d": 0, "music2d": 0, "c3d": 3, "i3d": 0}
    lacking = {m.name: np.flatnonzero(~m.valid).tolist() for m in results.models}
    for model in results.models:
        assert lacking[model.name] == ([4, 5, 40] if "c3d" in model.features else [])
        assert np.isnan(model.outputs[lacking[model.name]]).all()
    if task == "multiclass":
        assert by_name(results)["integrated"].confusion.sum() == 117


@pytest.mark.parametrize("task", TASKS)
def test_folds_follow_the_features(task, tmp_path):
    table = task_table(task, n=90)
    path = task_crossfit_cache(tmp_path / "c.h5", table, ("music1d",))
    with pytest.raises(BadFeatures, match=r"trained for 3 folds, not 5: give --folds 3"):
        evaluated(path, folds=5)
    results = evaluated(path, refit=True)
    assert [h.net_fold for h in results.heads if h.fold is None] == [0, 1, 2]
    assert results.models[0].valid.all()
    frozen = task_cache(tmp_path / "f.h5", table, names=("c3d",))
    assert (evaluated(frozen).folds == table.folds).all()
    other, five = evaluated(frozen, seed=7), evaluated(frozen, folds=5)
    assert (other.folds != table.folds).any()
    assert set(five.folds.tolist()) == set(range(5))
    for results in (other, five):
        assert not straddles(results.groups, results.folds.tolist())


def test_a_cache_that_cannot_be_evaluated_says_why(tmp_path):
    table = make_table()
    x = features(table, "c3d")
    lacking = [(spec("c3d", 12, "crossfit", fold, ()), x) for fold in (0, 1, 3, 4)]
    for vectors, models, message in (
        (lacking, None, "c3d lacks the nets of folds 2, 5"),
        ([], None, "no feature vectors"),
        ([(spec("c3d", 12), x)], ["nothing"], "unknown model 'nothing'"),
    ):
        with pytest.raises(BadFeatures, match=message):
            evaluated(write_cache(tmp_path / f"{len(vectors)}.h5", table, vectors), models=models)


@pytest.mark.parametrize("songs", [None, "mean"])
def test_clips_that_no_head_could_be_trained_for_lack_no_feature(tmp_path, songs):
    # All but the clips of fold 0 are of one class: no head can leave fold 0 out.
    table = make_table(n=40, k=2)
    folds = (np.arange(40) >= 8).astype(np.int64)
    table = replace(
        table,
        clip_ids=tuple(f"song {i // 2}@{i % 2}" for i in range(40)),
        labels=np.where(folds == 0, np.arange(40) // 2 % 6, 5),
        folds=folds,
        fold_seed=-1,
    )
    path = frozen_cache(tmp_path / "f.h5", table, names=("music1d", "c3d"), missing={"c3d": [0, 1]})
    results = evaluated(path, songs=songs)
    models = by_name(results)
    of_song = 1 if songs is None else 2
    assert results.missing == {"music1d": 0, "c3d": 2 // of_song}
    assert models["music1d"].n_untrained == 8 // of_song
    # Clips without pictures are missing a feature; the others are not.
    assert models["c3d"].n_untrained == 6 // of_song
    assert (~models["music1d"].valid).sum() == 8 // of_song
    text = " ".join(format_table(results).split())
    assert f"have too few clips (at least two classes are needed): music1d {8 // of_song}, " in text


def test_class_weights_make_rare_classes_count(tmp_path):
    labels = np.where(np.arange(240) < 24, 1, 0).astype(np.int64)
    table = replace(make_table(n=240, k=3), classes=("common", "rare"), labels=labels)
    path = frozen_cache(tmp_path / "f.h5", table, strength=0.4, names=("c3d",))
    plain = evaluated(path).models[0]
    weighed = evaluated(path, head=HeadSettings(class_weight="balanced", choose_C=False)).models[0]
    assert weighed.confusion[1, 1] > plain.confusion[1, 1]
