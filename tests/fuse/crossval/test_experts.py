"""The kernel expert and estimators of scikit-learn among the models."""

import numpy as np
import pytest
from feature_samples import MODALITY, crossfit_cache, frozen_cache, make_table, spec, write_cache
from fuse_samples import built, by_name, evaluated, primary, reloaded
from output_samples import output_cache, task_table
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import mvemo
from mvemo.cache import open_cache
from mvemo.fuse import (
    BadFeatures,
    EstimatorSettings,
    HeadSettings,
    load_heads,
    save_heads,
    scaling,
)
from mvemo.fuse.crossval import experts
from mvemo.fuse.final.adaptation import linear_part
from mvemo.fuse.final.model import predict_clips
from mvemo.fuse.heads.kernel import FLOOR
from mvemo.fuse.models import BLENDED, KERNEL, LATE, STACKED
from mvemo.manifests.errors import BadOption

TREE = "sklearn:sklearn.tree.DecisionTreeClassifier"
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
    named = by_name(evaluated(path, models=("c3d", "music1d", KERNEL)))
    assert list(named) == ["c3d", "music1d", KERNEL]
    assert named[KERNEL].features == ("c3d", "music1d")


def test_class_weights_raise_the_recall_of_a_rare_class(tmp_path):
    rng, n = np.random.default_rng(0), 240
    table = make_table(n, 3, classes=("calm", "tense"))
    rare = np.repeat(rng.random(n // 3) < 0.15, 3)
    table.labels[:] = rare
    x = (rare[:, None] + rng.normal(0, 1.0, (n, 3))).astype(np.float32)
    path = write_cache(tmp_path / "f.h5", table, [(spec("music1d", 3), x)])
    plain, balanced = (
        [m.per_output["recall"][1] for m in evaluated(path, kernel=True, head=head).models]
        for head in (HeadSettings(choose_C=False, class_weight=w) for w in ("none", "balanced"))
    )
    assert (np.subtract(balanced, plain) > 0.2).all()


@pytest.mark.parametrize(
    ("most", "memory", "models", "message"),
    [
        (239, 1.0, ("music1d", KERNEL), "kernel: it needs at most 239 clips, got 240: leave it"),
        (240, 0.0, ("music1d", KERNEL), r"in memory \(fuse.memory\): leave it out"),
        (240, 1.0, (KERNEL,), "needs at least one other model"),
        (240, 1.0, ("music1d", BLENDED), "integrated-blended: it needs ratings: leave it out"),
    ],
)
def test_it_is_left_out_where_it_cannot_be_made(
    corners, monkeypatch, most, memory, models, message
):
    monkeypatch.setattr(experts.kernel, "MOST_CLIPS", most)
    with pytest.raises(BadFeatures, match=message):
        evaluated(corners, models=models, memory=memory)
    names = [m.name for m in evaluated(corners, kernel=True, memory=memory).models]
    assert names == ["music1d"] + [KERNEL] * (most == 240 and memory > 0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dim", [6, 200])  # 200 columns are reduced to the span of the clips
def test_new_clips_are_predicted_as_by_scikit_learn(task, dim, tmp_path):
    write = frozen_cache if task == "multiclass" else output_cache
    path = write(
        tmp_path / "f.h5", task_table(task), missing={"c3d": [5]}, dim=dim, names=tuple(MODALITY)
    )
    model, results = built(path, KERNEL, kernel=True)
    with open_cache(path) as cache:
        values = {(name, None): cache.vectors(name)[0].astype(float) for name in MODALITY}
    model = reloaded(model, tmp_path / "model")
    predictor, (head,) = model.predictors[0], model.heads.select(KERNEL)
    assert predictor.name == KERNEL
    # A clip without one of the features is not predicted.
    assert np.flatnonzero(~by_name(results)[KERNEL].valid).tolist() == [5]
    present = np.logical_and.reduce([np.isfinite(x).all(axis=1) for x in values.values()])
    assert np.flatnonzero(~present).tolist() == [5]
    assert head.rows.shape == (present.sum(), dim * len(MODALITY))

    fits = [scaling.fit_scaling(x.astype(np.float32), present)[0] for x in values.values()]
    z = [fit.apply(x.astype(np.float32)) for fit, x in zip(fits, values.values(), strict=True)]
    unit = scaling.unit_rows(np.concatenate(z, axis=1))
    target, mean, scale = results.y_true, 0.0, 1.0
    if task == "multiclass":
        target = np.eye(len(results.classes))[target]
    elif task == "regression":
        mean, scale = target[present].mean(axis=0), target[present].std(axis=0)
    reference = KernelRidge(alpha=1 / head.C, kernel=lambda x, y: np.exp(-((x - y) ** 2).sum()) + 1)
    reference.fit(unit[present].astype(float), ((target - mean) / scale)[present])
    expected = reference.predict(unit[present].astype(float)) * scale + mean
    found = head.predict(np.concatenate(list(values.values()), axis=1)[present])
    if task == "multiclass":
        expected = np.maximum(expected, FLOOR) ** head.slope
        expected /= expected.sum(axis=1, keepdims=True)
    elif task == "multilabel":
        assert head.thresholds.shape == (len(results.classes),)
        expected = expected.clip(0, 1)
    # A saved head has rows of whole numbers from -127 to 127.
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.max(scale))
    clips = {key: x[present] for key, x in values.items()}
    calibrated = predict_clips(model, predictor, clips)
    assert (calibrated.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.98


def test_a_model_that_recommends_it_predicts_new_clips_with_it(corners, tmp_path):
    model, results = built(corners, KERNEL, kernel=True, choose_model=True)
    assert results.choice.model == KERNEL
    # The linear head stays, because corrections can adapt it.
    assert [p.name for p in model.predictors] == [KERNEL, "music1d"]
    assert model.facts["nested"]["model"] == KERNEL
    assert [p.name for p in linear_part(model).predictors] == ["music1d"]
    new = np.random.default_rng(5).choice([-1.0, 1.0], (200, 2))
    found = predict_clips(model, model.predictors[0], {("music1d", None): new})
    assert (found.argmax(axis=1) == (new[:, 0] == new[:, 1])).mean() > 0.95
    save_heads(tmp_path / "h.npz", results)
    heads = load_heads(tmp_path / "h.npz")
    assert [m.name for m in heads.models] == ["music1d", KERNEL]
    assert len(heads.select(KERNEL)) == 1
    with pytest.raises(BadFeatures, match="model 'kernel' has no head for fold 0"):
        heads.select(KERNEL, 0)


def test_nets_of_every_fold_have_a_kernel_head(tmp_path):
    model, _ = built(crossfit_cache(tmp_path / "f.h5"), KERNEL, kernel=True)
    assert [head.net_fold for head in model.heads.select(KERNEL)] == list(range(6))


@pytest.mark.parametrize("stacked", [False, True])
def test_ratings_are_blended_and_new_clips_predicted_alike(stacked, tmp_path):
    path = output_cache(
        tmp_path / "f.h5", task_table("regression"), missing={"c3d": [5]}, names=tuple(MODALITY)
    )
    model, results = built(path, BLENDED, kernel=True, stacked=stacked, choose_model=True)
    found = by_name(results)
    with open_cache(path) as cache:
        values = {(name, None): cache.vectors(name)[0].astype(float) for name in MODALITY}
    bases = [STACKED if stacked else "integrated", KERNEL]
    mean = np.mean([found[base].outputs for base in bases], axis=0)
    np.testing.assert_allclose(found[BLENDED].outputs, mean)
    assert primary(found[BLENDED]).mean() > primary(found["integrated"]).mean() - 0.05
    loaded = reloaded(model, tmp_path / "model")
    new = {key: np.delete(x, 5, axis=0) for key, x in values.items()}
    predicted = predict_clips(loaded, loaded.predictors[0], new)
    assert loaded.predictors[0].name == BLENDED
    # A loaded model may predict the whole scale, and not only the range of the training clips.
    before = predict_clips(model, model.predictors[0], new)
    assert (predicted == before).mean() > 0.9
    np.testing.assert_allclose(predicted, before, atol=0.05)
    # All heads know these clips, so that they are nearer to the labels than left-out predictions.
    error = np.abs(predicted - np.delete(results.y_true, 5, axis=0)).mean()
    assert error < np.nanmean(np.abs(found[BLENDED].outputs - results.y_true))
    assert not {BLENDED, KERNEL} & {p.name for p in linear_part(loaded).predictors}


# --- estimators of scikit-learn


def evaluate_arrays(X, y, *estimators, **options):
    groups = [f"group {i // 2}" for i in range(len(X))]
    options = {"folds": 3, "n_resamples": 0, "audit": False, "kernel": False, **options}
    return mvemo.evaluate({"audio": X}, y, groups, estimators=estimators, **options)


def model_of(results, name):
    return next(model for model in results.models if model.name == name)


@pytest.fixture(scope="module")
def middle():
    """Features of which one has one class in its middle, which no single threshold finds."""
    X = np.random.default_rng(0).uniform(0, 4, size=(120, 3)).astype(np.float32)
    return X, ((X[:, 0] > 1) & (X[:, 0] < 3)).astype(int)


def test_a_tree_predicts_as_in_scikit_learn(middle):
    X, y = middle
    results = evaluate_arrays(X, y, EstimatorSettings(TREE, {"max_depth": 4, "random_state": 3}))
    tree = DecisionTreeClassifier(max_depth=4, random_state=3)
    split = PredefinedSplit(results.folds)
    expected = cross_val_predict(tree, X, y, cv=split, method="predict_proba")
    np.testing.assert_allclose(model_of(results, "DecisionTreeClassifier").outputs, expected)


def test_a_regression_tree_predicts_each_target_as_in_scikit_learn(middle):
    X = middle[0]
    y = np.stack([X[:, 0] + X[:, 1], X[:, 2]], axis=1).astype(float)
    head = "sklearn:sklearn.tree.DecisionTreeRegressor"
    results = evaluate_arrays(X, y, EstimatorSettings(head, {"max_depth": 3}), task="regression")
    found = model_of(results, "DecisionTreeRegressor").outputs
    for target in range(2):
        tree = DecisionTreeRegressor(max_depth=3, random_state=0)
        expected = cross_val_predict(tree, X, y[:, target], cv=PredefinedSplit(results.folds))
        np.testing.assert_allclose(found[:, target], expected, rtol=1e-6)


def test_a_list_is_tuned_on_inner_folds(middle):
    X, y = middle
    depth_1 = evaluate_arrays(X, y, EstimatorSettings(TREE, {"max_depth": 1}))
    tuned = evaluate_arrays(X, y, EstimatorSettings(TREE, {"max_depth": [1, 6]}))
    scores = [model_of(r, "DecisionTreeClassifier").scores["accuracy"] for r in (depth_1, tuned)]
    assert scores[0] < 0.85 < scores[1]
    chance = evaluate_arrays(X, y, EstimatorSettings(TREE, {"max_depth": [1, 6]}), permute_labels=1)
    assert abs(model_of(chance, "DecisionTreeClassifier").scores["accuracy"] - 0.5) < 0.15


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_without_probabilities_get_a_scale_inside_the_training_folds(middle, task):
    X = middle[0]
    noise = np.random.default_rng(1).normal(size=X.shape)
    y = (X - 2 + noise)[:, :2] > 0
    y = y.astype(int) if task == "multilabel" else y @ [1, 2]
    head = EstimatorSettings("sklearn:sklearn.linear_model.RidgeClassifier")
    results = evaluate_arrays(X, y, head, task=task)
    found, linear = model_of(results, "RidgeClassifier"), model_of(results, "audio")
    assert ((found.outputs > 0) & (found.outputs < 1)).all()
    # The loss is near that of the own head, which fits probabilities.
    losses = [results.task.losses(results.y_true, m.outputs).mean() for m in (found, linear)]
    assert losses[0] < 1.1 * losses[1]


@pytest.mark.parametrize(
    ("head", "parameters", "problem"),
    [
        ("forest", {}, "expected one of sklearn:MODULE.CLASS"),
        ("sklearn:sklearn.svm.SVCC", {}, "AttributeError"),
        ("sklearn:no_module.SVC", {}, "ModuleNotFoundError"),
        ("sklearn:math.pi", {}, "expected the class of an estimator"),
        ("sklearn:sklearn.svm.SVC", {"c": 1}, "unknown parameter 'c'; expected one of C"),
        ("sklearn:sklearn.svm.SVC", {"C": -1.0}, "InvalidParameterError"),
        ("sklearn:sklearn.svm.SVR", {}, "the task multiclass needs a classifier"),
        ("sklearn:sklearn.cluster.KMeans", {}, "the task multiclass needs a classifier"),
    ],
)
def test_a_wrong_head_is_one_line(middle, head, parameters, problem):
    with pytest.raises(BadOption) as caught:
        evaluate_arrays(*middle, EstimatorSettings(head, parameters))
    assert str(caught.value).startswith(f"--head {head}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_must_not_have_the_name_of_another_model(middle):
    head = EstimatorSettings("sklearn:sklearn.svm.SVC")
    with pytest.raises(BadOption, match="SVC is the name of another model"):
        mvemo.evaluate({"audio:SVC": middle[0]}, middle[1], folds=3, estimators=(head,))
