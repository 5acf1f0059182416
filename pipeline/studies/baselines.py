"""Study T5: classical models and an RNN on descriptors (J22 3.6, Fig. 8)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mvemo.fuse.numeric import F64, Ints
from mvemo.fuse.report.published import J22 as j22
from mvemo.manifests import SCHEMES
from mvemo.manifests.labels import LabelKind, label_kind
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies import tags
from mvemo.pipeline.studies.comparison import (
    OTHERS,
    Compared,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.crossfit import FoldPredictions
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import PERCENT, Column, Table, capital

# All descriptors except the spectrogram, which mel summarises.
DESCRIPTORS = ("mel", "mfcc", "rp", "f0", "formants", "contrast", "chroma")
RNN = "MFCC + deep RNN"
NOTE = "low and high: 95 % interval over groups, of the mean over runs. sd: over runs."
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
Predictor = Callable[[F64, NDArray[Any], F64, int], F64]


def run_baselines(study: Study, *, rnn_runs: int | None = None) -> StudyResult:
    """Cross-validate the models that J22 Fig. 8 compares with, `study.runs` times.

    Models read the mean and the standard deviation of each descriptor over a clip's frames.
    Scalers are fitted inside the training folds. Each run has its own folds and seeds.
    """
    rnn_runs = study.runs if rnn_runs is None else rnn_runs
    media = study.media([study.plan("rnn")] if rnn_runs else [], DESCRIPTORS)
    labels, kind = Labels.of(media.manifest), label_kind(study.manifest.task)
    quadrants = quadrants_of(labels.names) if kind.exclusive else None
    notes = [NOTE, *media.left_out(media.described)]
    if quadrants is None and kind.exclusive:
        notes.append(
            f"{REGRESSION} is left out: it needs classes that are quadrants of arousal and "
            f"valence ({', '.join(QUADRANTS)})."
        )
    models = classical_models(kind, len(labels.names), quadrants)
    compared = _compare_classical(study, media, models, labels)
    if rnn_runs:
        rnn = _rnn_variant(study, media)
        compared += compare(study, [rnn], media.manifest, study.folds_of_runs(rnn_runs))
    bars = [each.bar() for each in compared]
    what = f"{labels.task.primary_title} of classical models and an RNN"
    return StudyResult(
        name="baselines",
        title="Classical models and an RNN",
        tables=(_table(compared, labels, study.runs),),
        plots=(score_plot("accuracy", capital(what), bars, compared, labels),),
        notes=(*notes, *divergence_notes(compared)),
        sources=(tags.SOURCE,),
    )


def _compare_classical(
    study: Study, media: StudyMedia, models: Mapping[str, Predictor], labels: Labels
) -> list[Compared]:
    """Compare classical models on the statistics of all descriptors; one reads mel only."""
    all_rows, mel_rows = media.statistics(DESCRIPTORS), media.statistics(["mel"])
    on_mel = last_on_mel(label_kind(study.manifest.task))

    def variant(name: str, predictor: Predictor, bar: Progress) -> Variant:
        rows: F64 = mel_rows if name == on_mel else all_rows

        def predict(run: int, folds: Ints) -> FoldPredictions:
            seed = study.settings.extract.run.seed + run
            y_true, n_outputs = labels.y_true, len(labels.names)
            outputs = predict_out_of_fold(predictor, rows, y_true, folds, seed, n_outputs)
            bar.step()
            return FoldPredictions(outputs)

        # J22 prints one figure for all classifiers of its [14], which reads other features.
        return Variant(name, predict, (name,), (None,))

    with Progress("baselines", len(models) * study.runs, "run") as bar:
        variants = [variant(name, predictor, bar) for name, predictor in models.items()]
        return compare(study, variants, media.manifest, study.folds_of_runs())


def _rnn_variant(study: Study, media: StudyMedia) -> Variant:
    """Return the RNN on MFCC, trained without each fold in turn."""
    plan = study.plan("rnn")
    known = j22.FIGURE_8["rnn"] if matches_j22(study, plan, seconds=0.0) else None
    predict = NetPredictor(study, media, plan, title="rnn")
    return Variant(RNN, predict, (RNN,), (known,), known)


def _table(compared: list[Compared], labels: Labels, n_runs: int) -> Table:
    """Return a table with a row for each model, then the baseline without features."""
    task = labels.task
    table = comparison_table(
        "accuracy",
        f"{capital(task.primary_title)} of the models that J22 Fig. 8 compares with, mean of runs",
        compared,
        labels=labels,
        first=(Column("model"),),
        measures=("score", "sd over runs", "low", "high", OTHERS, "runs", "baseline"),
        published=(Column("J22 Fig. 8", PERCENT, published=True),),
    )
    score = compared[0].scores.baseline
    known = {task.primary_title: score, "runs": n_runs, "majority": score, "baseline": score}
    last = (task.baseline_name, *(known.get(column.name) for column in table.columns[1:]))
    return Table(table.name, table.title, table.columns, (*table.rows, last))


def classical_models(
    kind: LabelKind, n_outputs: int, quadrants: Ints | None
) -> dict[str, Predictor]:
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


def last_on_mel(kind: LabelKind) -> str:
    """Return the name of the model that reads only the mel spectrogram."""
    return f"{'ridge' if kind.numeric else 'logistic'} regression (mel)"


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


def _classifier(n_classes: int) -> Callable[[Callable[[int], Any]], Predictor]:
    def wrap(make: Callable[[int], Any]) -> Predictor:
        def predict(train: F64, classes: NDArray[Any], test: F64, seed: int) -> F64:
            if len(np.unique(classes)) == 1:
                # Most models refuse to fit a single class.
                y_pred = np.full(len(test), classes[0], dtype=np.int64)
            else:
                y_pred = np.asarray(_fitted(make, seed, train, classes).predict(test), np.int64)
            return np.eye(n_classes)[y_pred]

        return predict

    return wrap


def _tagger(make: Callable[[int], Any]) -> Predictor:
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


def _regressor(make: Callable[[int], Any]) -> Predictor:
    def predict(train: F64, values: NDArray[Any], test: F64, seed: int) -> F64:
        outputs = np.empty((len(test), values.shape[1]))
        for i, target in enumerate(values.T):
            scale = target.std() or 1.0
            model = _fitted(make, seed, train, (target - target.mean()) / scale)
            outputs[:, i] = np.asarray(model.predict(test)) * scale + target.mean()
        return outputs

    return predict


def _quadrant_regression(quadrants: Ints) -> Predictor:
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
    predictor: Predictor, rows: F64, y_true: NDArray[Any], folds: Ints, seed: int, n_outputs: int
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
            outputs[test] = predictor(x_train, y_true[train], x_test, seed)
    return outputs
