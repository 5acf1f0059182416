"""Classical models of J22 Fig. 8 on statistics of descriptors, fitted without each fold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.manifests import SCHEMES

# Class of J22's scheme -> signs of valence and arousal.
QUADRANTS: Mapping[str, tuple[int, int]] = {
    "happy": (1, 1),
    "anger": (-1, 1),
    "sad": (-1, -1),
    "relaxation": (1, -1),
}
REGRESSION = "linear regression, quadrant"
MEL = "logistic regression (mel)"
# Training rows, their classes, test rows and a seed, to the classes of the test rows.
Predictor = Callable[[F64, Ints, F64, int], Ints]


def classical_models(quadrants: Ints | None) -> dict[str, Predictor]:
    """Name to a function of training rows, their classes, test rows and a seed.

    J22 names kinds of models and no settings: these are scikit-learn's usual ones.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    models: dict[str, Predictor] = {
        "SVM, RBF kernel": _classifier(lambda seed: SVC()),
        "SVM, linear kernel": _classifier(lambda seed: SVC(kernel="linear", C=0.01)),
        "decision tree": _classifier(lambda seed: DecisionTreeClassifier(random_state=seed)),
        "k nearest neighbours": _classifier(lambda seed: KNeighborsClassifier()),
        "multilayer perceptron": _classifier(
            lambda seed: MLPClassifier((64,), alpha=0.1, max_iter=100, random_state=seed)
        ),
        MEL: _classifier(lambda seed: LogisticRegression(C=0.1, max_iter=500)),
    }
    if quadrants is not None:
        models[REGRESSION] = _regression(quadrants)
    return models


def _classifier(make: Callable[[int], Any]) -> Predictor:
    def predict(train: F64, classes: Ints, test: F64, seed: int) -> Ints:
        if len(np.unique(classes)) == 1:
            # Most models refuse to learn from one class; there is nothing to learn.
            return np.full(len(test), classes[0], dtype=np.int64)
        model = make(seed)
        if getattr(model, "n_neighbors", 0) > len(train):
            model.set_params(n_neighbors=len(train))
        model.fit(train, classes)
        y_pred: Ints = np.asarray(model.predict(test), dtype=np.int64)
        return y_pred

    return predict


def _regression(quadrants: Ints) -> Predictor:
    """Linear regression to the signs of valence and arousal, then the class of that quadrant.

    The ridge that descriptors with many columns need is chosen inside the training clips.
    """
    from sklearn.linear_model import RidgeCV

    def predict(train: F64, classes: Ints, test: F64, seed: int) -> Ints:
        del seed  # nothing here is random
        model = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(train, quadrants[classes])
        signs = np.where(np.asarray(model.predict(test)) >= 0, 1, -1)
        # (rows, classes): whether both signs are the class's
        same = (signs[:, None, :] == quadrants[None]).all(axis=2)
        y_pred: Ints = same.argmax(axis=1).astype(np.int64)
        return y_pred

    return predict


def quadrants_of(classes: Sequence[str]) -> Ints | None:
    """int64 (classes, 2): signs of valence and arousal; None unless classes are J22's four."""
    emotions = [str(SCHEMES["j22"].class_of(name)) for name in classes]
    if sorted(emotions) != sorted(QUADRANTS):
        return None
    return np.array([QUADRANTS[emotion] for emotion in emotions], dtype=np.int64)


def predict_out_of_fold(
    predictor: Predictor, rows: F64, y_true: Ints, folds: Ints, seed: int, n_classes: int
) -> F64:
    """One-hot predictions of every clip by a model fitted without its fold.

    Parameters
    ----------
    predictor
        Of `classical_models`.
    rows
        float64 (clips, dim); clips with NaN are left out.
    y_true, folds
        int64 (clips,).

    Returns
    -------
    float64 (clips, classes), NaN rows for clips left out.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    mask = np.isfinite(rows).all(axis=1)
    proba = np.full((len(rows), n_classes), np.nan)
    for fold in np.unique(folds):
        train = np.flatnonzero(mask & (folds != fold))
        test = np.flatnonzero(mask & (folds == fold))
        if not len(train) or not len(test):
            continue
        present = np.unique(y_true[train])
        if len(present) == 1:
            y_pred = np.full(len(test), present[0])
        else:
            scaler = StandardScaler().fit(rows[train])
            x_train, x_test = scaler.transform(rows[train]), scaler.transform(rows[test])
            with warnings.catch_warnings():
                # The number of iterations is the setting, not a problem.
                warnings.simplefilter("ignore", ConvergenceWarning)
                y_pred = predictor(x_train, y_true[train], x_test, seed)
        proba[test] = np.eye(n_classes)[y_pred]
    return proba
