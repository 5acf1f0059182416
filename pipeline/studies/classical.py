"""Classical models on descriptors for the study of baselines (J22 3.6, Fig. 8)."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mvemo.fuse.report.tables import Value, cell_of
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.labels import LabelKind, label_kind
from mvemo.pipeline.studies.comparison import Draft
from mvemo.pipeline.studies.predictors import StudyRow
from mvemo.pipeline.studies.study import StudyMedia, j22_classes, read_labels

# All descriptors except the spectrogram, which mel summarises.
DESCRIPTORS = ("mel", "mfcc", "rp", "f0", "formants", "contrast", "chroma")
RNN = "MFCC + deep RNN"
# Class of J22's scheme -> signs of valence and arousal.
QUADRANTS: Mapping[str, tuple[int, int]] = {
    "happy": (1, 1),
    "anger": (-1, 1),
    "sad": (-1, -1),
    "relaxation": (1, -1),
}
PENALTIES = np.logspace(-1, 5, 13)
REGRESSION = "linear regression, quadrant"
# (training rows, their labels, test rows, seed) -> outputs of the test rows: probabilities
# (or 0 and 1) of classes or tags, or values of targets.
Model = Callable[[F64, NDArray[Any], F64, int], F64]


def classical_rows(draft: Draft) -> tuple[list[StudyRow], list[str]]:
    """Return rows of the models in J22 Fig. 8, on descriptors' means and deviations; and notes."""
    study, names = draft.study, draft.study.manifest.classes
    kind, notes = label_kind(study.manifest.task), []
    make = _estimators(kind)
    models: dict[str, Model] = {n: partial(_predict, kind, len(names), m) for n, m in make.items()}
    if kind.exclusive and (quadrants := quadrants_of(names)) is not None:
        models[REGRESSION] = partial(_predict_quadrants, quadrants)
    elif kind.exclusive:
        notes.append(
            f"{REGRESSION} is left out, because it needs the four quadrants of valence and "
            f"arousal as classes ({', '.join(QUADRANTS)})."
        )
    rows = []
    for name, model in models.items():
        outputs = partial(_predict_clips, model, ("mel",) if "(mel)" in name else DESCRIPTORS)
        rows.append(StudyRow(name, {"model": name}, descriptors=DESCRIPTORS, model=outputs))
    runs = draft.options.get("rnn_runs")
    if runs != 0:
        rows.append(StudyRow(RNN, {"model": RNN, "net": "rnn"}, (study.plan("rnn"),), runs=runs))
    return rows, notes


def _predict_clips(
    model: Model, descriptors: tuple[str, ...], media: StudyMedia, run: int, folds: Ints
) -> F64:
    """Predict all clips out of fold from statistics of `descriptors`."""
    rows, (_, y_true) = media.statistics(descriptors), read_labels(media.manifest)
    seed = media.extract.run.seed + run
    return predict_out_of_fold(model, rows, y_true, len(media.manifest.classes), folds, seed)


def add_baseline_row(draft: Draft) -> None:
    """Add a row for the baseline without features."""
    table, task = draft.tables[0], draft.task
    score = draft.compared[0].values()["baseline"]
    values: dict[str, Value] = dict.fromkeys((task.primary_title, "majority", "baseline"), score)
    values |= {"runs": draft.study.runs, table.columns[0].title: task.baseline_name}
    cells = tuple(cell_of(values.get(column.title), column.kind) for column in table.columns)
    draft.tables[0] = replace(table, foot=(cells,))


def _estimators(kind: LabelKind) -> dict[str, Callable[[int], Any]]:
    """Return functions that build a regressor (of ratings) or a classifier from a seed, by name.

    They are the models of J22's references [14] and [17], mostly with default parameters.
    """
    from sklearn import linear_model, neighbors, neural_network, svm, tree

    # Index into the pairs of a regressor and a classifier.
    which = not kind.numeric
    support = svm.SVR, svm.SVC
    trees = tree.DecisionTreeRegressor, tree.DecisionTreeClassifier
    neighbours = neighbors.KNeighborsRegressor, neighbors.KNeighborsClassifier
    perceptrons = neural_network.MLPRegressor, neural_network.MLPClassifier
    layers = {"hidden_layer_sizes": (64,), "alpha": 0.1, "max_iter": 100}
    found: dict[str, Callable[[int], Any]] = {
        "SVM, RBF kernel": lambda seed: support[which](),
        "SVM, linear kernel": lambda seed: support[which](kernel="linear", C=0.01),
        "decision tree": lambda seed: trees[which](random_state=seed),
        "k nearest neighbours": lambda seed: neighbours[which](),
        "multilayer perceptron": lambda seed: perceptrons[which](**layers, random_state=seed),
    }
    if kind.numeric:
        # The penalty is chosen on the training clips only.
        for name in ("linear regression", "ridge regression (mel)"):
            found[name] = lambda seed: linear_model.RidgeCV(alphas=PENALTIES)
    else:
        logistic = linear_model.LogisticRegression
        found["logistic regression (mel)"] = lambda seed: logistic(C=0.1, max_iter=500)
    return found


def _predict(
    kind: LabelKind,
    n_outputs: int,
    make: Callable[[int], Any],
    train: F64,
    y: NDArray[Any],
    test: F64,
    seed: int,
) -> F64:
    """Fit an estimator for all classes, or one for each tag or target."""

    def predict(of_train: NDArray[Any]) -> NDArray[Any]:
        model = make(seed)
        if getattr(model, "n_neighbors", 0) > len(train):
            model.set_params(n_neighbors=len(train))
        if kind.numeric:
            middle, scale = of_train.mean(), of_train.std() or 1.0
            model.fit(train, (of_train - middle) / scale)
            return np.asarray(model.predict(test)) * scale + middle
        # Most models refuse to fit a single class.
        if len(np.unique(of_train)) == 1:
            return np.full(len(test), of_train[0])
        model.fit(train, of_train)
        if kind.exclusive:
            return np.asarray(model.predict(test))
        if hasattr(model, "predict_proba"):
            return np.asarray(model.predict_proba(test)[:, 1])
        # A support vector machine gives distances; ROC-AUC needs only their order.
        return expit(model.decision_function(test))

    if kind.exclusive:
        return np.eye(n_outputs)[predict(y)]
    return np.stack([predict(column) for column in y.T], axis=1).astype(np.float64)


def _predict_quadrants(
    quadrants: Ints, train: F64, classes: NDArray[Any], test: F64, seed: int
) -> F64:
    """Predict the signs of valence and arousal, and from them the class (without a seed)."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=PENALTIES).fit(train, quadrants[classes])
    signs = np.where(np.asarray(model.predict(test)) >= 0, 1, -1)
    # (rows, classes): True if both signs are those of the class
    same = (signs[:, None, :] == quadrants[None]).all(axis=2)
    return np.eye(len(quadrants))[same.argmax(axis=1)]


def quadrants_of(classes: Sequence[str]) -> Ints | None:
    """Return each class's signs of valence and arousal, int64 (classes, 2), or None."""
    emotions = j22_classes(classes)
    return np.array([QUADRANTS[each] for each in emotions], dtype=np.int64) if emotions else None


def predict_out_of_fold(
    model: Model, rows: F64, y_true: NDArray[Any], n_outputs: int, folds: Ints, seed: int
) -> F64:
    """Predict each clip with a model fitted without its fold; NaN if its row contains NaN."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    mask = np.isfinite(rows).all(axis=1)
    outputs = np.full((len(rows), n_outputs), np.nan)
    for fold in np.unique(folds):
        train, test = mask & (folds != fold), mask & (folds == fold)
        if not train.any() or not test.any():
            continue
        scaler = StandardScaler().fit(rows[train])
        x_train, x_test = scaler.transform(rows[train]), scaler.transform(rows[test])
        with warnings.catch_warnings():
            # The number of iterations is limited on purpose.
            warnings.simplefilter("ignore", ConvergenceWarning)
            outputs[test] = model(x_train, y_true[train], x_test, seed)
    return outputs
