"""Estimators of scikit-learn among the models: outputs, tuning, chance and problems."""

import numpy as np
import pytest
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import mvemo
from mvemo.fuse import EstimatorSettings
from mvemo.manifests.errors import BadOption

TREE = "sklearn:sklearn.tree.DecisionTreeClassifier"


def evaluate(X, y, *estimators, **options):
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
    results = evaluate(X, y, EstimatorSettings(TREE, {"max_depth": 4, "random_state": 3}))
    tree = DecisionTreeClassifier(max_depth=4, random_state=3)
    split = PredefinedSplit(results.folds)
    expected = cross_val_predict(tree, X, y, cv=split, method="predict_proba")
    np.testing.assert_allclose(model_of(results, "DecisionTreeClassifier").outputs, expected)


def test_a_regression_tree_predicts_each_target_as_in_scikit_learn(middle):
    X = middle[0]
    y = np.stack([X[:, 0] + X[:, 1], X[:, 2]], axis=1).astype(float)
    head = "sklearn:sklearn.tree.DecisionTreeRegressor"
    results = evaluate(X, y, EstimatorSettings(head, {"max_depth": 3}), task="regression")
    found = model_of(results, "DecisionTreeRegressor").outputs
    for target in range(2):
        tree = DecisionTreeRegressor(max_depth=3, random_state=0)
        expected = cross_val_predict(tree, X, y[:, target], cv=PredefinedSplit(results.folds))
        np.testing.assert_allclose(found[:, target], expected, rtol=1e-6)


def test_a_list_is_tuned_on_inner_folds(middle):
    X, y = middle
    depth_1 = evaluate(X, y, EstimatorSettings(TREE, {"max_depth": 1}))
    tuned = evaluate(X, y, EstimatorSettings(TREE, {"max_depth": [1, 6]}))
    scores = [model_of(r, "DecisionTreeClassifier").scores["accuracy"] for r in (depth_1, tuned)]
    assert scores[0] < 0.85 < scores[1]
    chance = evaluate(X, y, EstimatorSettings(TREE, {"max_depth": [1, 6]}), permute_labels=1)
    assert abs(model_of(chance, "DecisionTreeClassifier").scores["accuracy"] - 0.5) < 0.15


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_without_probabilities_get_a_scale_inside_the_training_folds(middle, task):
    X = middle[0]
    noise = np.random.default_rng(1).normal(size=X.shape)
    y = (X - 2 + noise)[:, :2] > 0
    y = y.astype(int) if task == "multilabel" else y @ [1, 2]
    head = EstimatorSettings("sklearn:sklearn.linear_model.RidgeClassifier")
    results = evaluate(X, y, head, task=task)
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
        evaluate(*middle, EstimatorSettings(head, parameters))
    assert str(caught.value).startswith(f"--head {head}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_must_not_have_the_name_of_another_model(middle):
    head = EstimatorSettings("sklearn:sklearn.svm.SVC")
    with pytest.raises(BadOption, match="SVC is the name of another model"):
        mvemo.evaluate({"audio:SVC": middle[0]}, middle[1], folds=3, estimators=(head,))
