"""Classical models on descriptors for the study of baselines (J22 3.6, Fig. 8)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mvemo.fuse.arrays import F64, Ints
from mvemo.manifests import SCHEMES
from mvemo.manifests.labels import LabelKind, label_kind
from mvemo.pipeline.studies.comparison import Draft, Row
from mvemo.pipeline.studies.predictors import FoldPredictions, NetTraining
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.study import Study, StudyMedia
from mvemo.pipeline.studies.study_file import StudyFile

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
REGRESSION = "linear regression, quadrant"
# (training rows, their labels, test rows, seed) -> outputs of the test rows: probabilities
# (or 0 and 1) of classes or tags, or values of targets.
Model = Callable[[F64, NDArray[Any], F64, int], F64]


@dataclass(frozen=True)
class ClassicalPredictor:
    """Cross-validation of a classical model on the statistics of descriptors."""

    model: Model
    rows: F64  # float64 (clips, statistics)
    labels: Labels
    seed: int

    def __call__(self, run: int, folds: Ints) -> FoldPredictions:
        """Predict in one repeat."""
        y_true, n_outputs = self.labels.y_true, len(self.labels.names)
        seed = self.seed + run
        return FoldPredictions(
            predict_out_of_fold(self.model, self.rows, y_true, folds, seed, n_outputs)
        )

    def trainings(self, run: int, folds: Ints) -> Sequence[NetTraining]:
        """Return the trainings of nets: none."""
        return ()


def classical_rows(
    study: Study, file: StudyFile, options: Mapping[str, Any]
) -> tuple[list[Row], list[str]]:
    """Return the models that J22 Fig. 8 compares with; with notes.

    Models read the mean and the standard deviation of each descriptor over a clip's frames.
    Scalers are fitted inside the training folds. Each run has its own folds and seeds.
    """
    labels, kind = Labels.of(study.manifest), label_kind(study.manifest.task)
    quadrants = quadrants_of(labels.names) if kind.exclusive else None
    notes = []
    if quadrants is None and kind.exclusive:
        notes.append(
            f"{REGRESSION} is left out: it needs classes that are quadrants of arousal and "
            f"valence ({', '.join(QUADRANTS)})."
        )
    known: dict[tuple[str, ...], F64] = {}
    rows = [
        Row(
            name,
            {"model": name},
            descriptors=DESCRIPTORS,
            model=_predictor(study, name, model, known),
        )
        for name, model in classical_models(kind, len(labels.names), quadrants).items()
    ]
    runs = options.get("rnn_runs")
    if runs != 0:
        rows.append(Row(RNN, {"model": RNN, "net": "rnn"}, (study.plan("rnn"),), runs=runs))
    return rows, notes


def _predictor(
    study: Study, name: str, model: Model, known: dict[tuple[str, ...], F64]
) -> Callable[[StudyMedia], ClassicalPredictor]:
    """Return a function that makes a model's predictor; `known` has statistics of all models."""
    descriptors = ("mel",) if name.endswith("(mel)") else DESCRIPTORS

    def make(media: StudyMedia) -> ClassicalPredictor:
        labels, seed = Labels.of(media.manifest), study.settings.extract.run.seed
        if descriptors not in known:
            known[descriptors] = media.statistics(descriptors)
        return ClassicalPredictor(model, known[descriptors], labels, seed)

    return make


def add_baseline_row(draft: Draft) -> None:
    """Add a row for the baseline without features."""
    table, task = draft.tables[0], draft.labels.task
    score, runs = draft.compared[0].scores.baseline, draft.study.runs
    known = {task.primary_title: score, "runs": runs, "majority": score, "baseline": score}
    last = (task.baseline_name, *(known.get(column.name) for column in table.columns[1:]))
    draft.tables[0] = replace(table, rows=(*table.rows, last))


def classical_models(kind: LabelKind, n_outputs: int, quadrants: Ints | None) -> dict[str, Model]:
    """Return the kinds of models of J22's [14] and [17], for classes, tags or ratings.

    J22 names the kinds of models without settings, so these are mostly scikit-learn's
    defaults. Each tag has a model of its own; ratings are predicted by regression.
    """
    if kind.numeric:
        return {name: _regressor(make) for name, make in _regressors().items()}
    wrap = _classifier(n_outputs) if kind.exclusive else _tagger
    models = {name: wrap(make) for name, make in _classifiers().items()}
    if quadrants is not None:
        models[REGRESSION] = _quadrant_regression(quadrants)
    return models


def _classifiers() -> dict[str, Callable[[int], Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "SVM, RBF kernel": lambda seed: SVC(),
        "SVM, linear kernel": lambda seed: SVC(kernel="linear", C=0.01),
        "decision tree": lambda seed: DecisionTreeClassifier(random_state=seed),
        "k nearest neighbours": lambda seed: KNeighborsClassifier(),
        "multilayer perceptron": lambda seed: MLPClassifier(
            hidden_layer_sizes=(64,), alpha=0.1, max_iter=100, random_state=seed
        ),
        "logistic regression (mel)": lambda seed: LogisticRegression(C=0.1, max_iter=500),
    }


def _regressors() -> dict[str, Callable[[int], Any]]:
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.svm import SVR
    from sklearn.tree import DecisionTreeRegressor

    alphas = np.logspace(-1, 5, 13)
    return {
        "SVM, RBF kernel": lambda seed: SVR(),
        "SVM, linear kernel": lambda seed: SVR(kernel="linear", C=0.01),
        "decision tree": lambda seed: DecisionTreeRegressor(random_state=seed),
        "k nearest neighbours": lambda seed: KNeighborsRegressor(),
        "multilayer perceptron": lambda seed: MLPRegressor(
            hidden_layer_sizes=(64,), alpha=0.1, max_iter=100, random_state=seed
        ),
        # The penalty is chosen inside the training clips.
        "linear regression": lambda seed: RidgeCV(alphas=alphas),
        "ridge regression (mel)": lambda seed: RidgeCV(alphas=alphas),
    }


def _fitted(make: Callable[[int], Any], seed: int, train: F64, y: NDArray[Any]) -> Any:
    model = make(seed)
    if getattr(model, "n_neighbors", 0) > len(train):
        model.set_params(n_neighbors=len(train))
    return model.fit(train, y)


def _classifier(n_classes: int) -> Callable[[Callable[[int], Any]], Model]:
    def wrap(make: Callable[[int], Any]) -> Model:
        def predict(train: F64, classes: NDArray[Any], test: F64, seed: int) -> F64:
            if len(np.unique(classes)) == 1:
                # Most models refuse to fit a single class.
                y_pred = np.full(len(test), classes[0], dtype=np.int64)
            else:
                y_pred = np.asarray(_fitted(make, seed, train, classes).predict(test), np.int64)
            return np.eye(n_classes)[y_pred]

        return predict

    return wrap


def _tagger(make: Callable[[int], Any]) -> Model:
    def predict(train: F64, tags: NDArray[Any], test: F64, seed: int) -> F64:
        outputs = np.empty((len(test), tags.shape[1]))
        for i, has in enumerate(tags.T):
            if len(np.unique(has)) == 1:
                outputs[:, i] = has[0]
                continue
            model = _fitted(make, seed, train, has)
            # A support vector machine gives distances; ROC-AUC needs only their order.
            outputs[:, i] = (
                model.predict_proba(test)[:, 1]
                if hasattr(model, "predict_proba")
                else expit(model.decision_function(test))
            )
        return outputs

    return predict


def _regressor(make: Callable[[int], Any]) -> Model:
    def predict(train: F64, values: NDArray[Any], test: F64, seed: int) -> F64:
        outputs = np.empty((len(test), values.shape[1]))
        for i, target in enumerate(values.T):
            scale = target.std() or 1.0
            model = _fitted(make, seed, train, (target - target.mean()) / scale)
            outputs[:, i] = np.asarray(model.predict(test)) * scale + target.mean()
        return outputs

    return predict


def _quadrant_regression(quadrants: Ints) -> Model:
    """Predict the class by a linear regression to the signs of valence and arousal.

    Descriptors have many columns, so the regression is a ridge, whose penalty is chosen
    inside the training clips.
    """
    from sklearn.linear_model import RidgeCV

    def predict(train: F64, classes: NDArray[Any], test: F64, seed: int) -> F64:
        del seed  # nothing here is random
        model = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(train, quadrants[classes])
        signs = np.where(np.asarray(model.predict(test)) >= 0, 1, -1)
        # (rows, classes): True if both signs are the class's
        same = (signs[:, None, :] == quadrants[None]).all(axis=2)
        outputs: F64 = np.eye(len(quadrants))[same.argmax(axis=1)]
        return outputs

    return predict


def quadrants_of(classes: Sequence[str]) -> Ints | None:
    """Return the signs of valence and arousal, int64 (classes, 2); None for other classes."""
    emotions = [str(SCHEMES["j22"].class_of(name)) for name in classes]
    if sorted(emotions) != sorted(QUADRANTS):
        return None
    return np.array([QUADRANTS[emotion] for emotion in emotions], dtype=np.int64)


def predict_out_of_fold(
    model: Model, rows: F64, y_true: NDArray[Any], folds: Ints, seed: int, n_outputs: int
) -> F64:
    """Predict every clip by a model fitted without its fold; NaN for rows that have NaN."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    mask = np.isfinite(rows).all(axis=1)
    outputs = np.full((len(rows), n_outputs), np.nan)
    for fold in np.unique(folds):
        train = np.flatnonzero(mask & (folds != fold))
        test = np.flatnonzero(mask & (folds == fold))
        if not len(train) or not len(test):
            continue
        scaler = StandardScaler().fit(rows[train])
        x_train, x_test = scaler.transform(rows[train]), scaler.transform(rows[test])
        with warnings.catch_warnings():
            # The number of iterations is the setting, not a problem.
            warnings.simplefilter("ignore", ConvergenceWarning)
            outputs[test] = model(x_train, y_true[train], x_test, seed)
    return outputs
