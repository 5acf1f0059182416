"""T5: classical models and an RNN on descriptors (J22 3.6, Fig. 8)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvemo.fuse.report import published_j22 as j22
from mvemo.manifests import SCHEMES
from mvemo.pipeline.progress import Progress
from mvemo.pipeline.studies.core import Floats, Ints, Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.output import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
)
from mvemo.pipeline.studies.plots import Bar, accuracy_bars

# All but the spectrogram, which mel already sums up.
DESCRIPTORS = ("mel", "mfcc", "rp", "f0", "formants", "contrast", "chroma")
# Class of J22's scheme -> signs of valence and arousal.
QUADRANTS: Mapping[str, tuple[int, int]] = {
    "happy": (1, 1),
    "anger": (-1, 1),
    "sad": (-1, -1),
    "relaxation": (1, -1),
}
REGRESSION = "linear regression, quadrant"
RNN = "MFCC + deep RNN"
RUNS = 10
Predictor = Callable[[Floats, Ints, Floats, int], Ints]


def run_baselines(study: Study, *, rnn_runs: int | None = None) -> StudyResult:
    """Cross-validate the models that J22 Fig. 8 compares with, `study.runs` times.

    A clip's statistics are the mean and the standard deviation of each descriptor over its
    frames; scalers are fitted inside the training folds. Each run has folds and seeds of
    its own.

    Parameters
    ----------
    study
        Of the clips.
    rnn_runs
        Repeats of the RNN, which takes longest; None for as many as the others, 0 for none.
    """
    rnn_runs = study.runs if rnn_runs is None else rnn_runs
    plan = study.plan("rnn")
    media = study.media([plan] if rnn_runs else [], DESCRIPTORS)
    labels, groups = labels_of(media), study.manifest.groups
    folds = [study.folds(run) for run in range(study.runs)]
    statistics = media.statistics(DESCRIPTORS)
    mel = media.statistics(["mel"])
    quadrants = quadrants_of(study.manifest.classes)
    notes = [
        "low and high: 95 % interval over groups, of the mean over runs. sd: over runs. J22 "
        "prints one accuracy for all classifiers of its [14]."
    ]
    notes += media.left_out(media.described)
    if quadrants is None:
        notes.append(
            f"{REGRESSION} is left out: it needs classes that are quadrants of arousal and "
            f"valence ({', '.join(QUADRANTS)})."
        )
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []

    def add(name: str, runs: list[Floats], used: Sequence[Ints], known: float | None) -> None:
        found = score(labels, runs, used, groups)
        sd = found.sd if len(runs) > 1 else None
        rows.append(
            (
                name,
                found.accuracy,
                sd,
                found.low,
                found.high,
                found.f1,
                len(runs),
                found.majority,
                known,
            )
        )
        bars.append(Bar(name, found.accuracy, found.low, found.high, known))

    models = classical_models(quadrants)
    with Progress("baselines", len(models) * study.runs, "run") as bar:
        for name, predictor in models.items():
            given = mel if name.endswith("(mel)") else statistics
            runs = []
            for run in range(study.runs):
                seed = study.settings.extract.seed + run
                runs.append(
                    out_of_fold(
                        predictor, given, labels, folds[run], seed, len(study.manifest.classes)
                    )
                )
                bar.step()
            known = (
                None if name.endswith("(mel)") or name == REGRESSION else j22.FIGURE_8["classical"]
            )
            add(name, runs, folds, known)
    if rnn_runs:
        used = [study.folds(run) for run in range(rnn_runs)]
        add(
            RNN,
            [
                cross_fit(
                    study, media, plan, fold, run=run, title=f"rnn, run {run + 1}"
                ).probabilities
                for run, fold in enumerate(used)
            ],
            used,
            j22.FIGURE_8["rnn"],
        )
    majority = float(rows[0][7] or 0.0)
    rows.append(("majority class", majority, None, None, None, None, study.runs, majority, None))
    return StudyResult(
        name="baselines",
        title="Classical models and an RNN",
        tables=(
            Table(
                "accuracy",
                "Accuracy of the models that J22 Fig. 8 compares with, mean of runs, per cent",
                (
                    Column("model"),
                    Column("accuracy", PERCENT),
                    Column("sd", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("macro F1", NUMBER),
                    Column("runs", NUMBER),
                    Column("majority", PERCENT),
                    Column("J22 Fig. 8", PERCENT, published=True),
                ),
                tuple(rows),
            ),
        ),
        plots=(
            Plot(
                "accuracy",
                "Accuracy of classical models and an RNN",
                lambda axes: accuracy_bars(axes, bars, majority),
                (6.4, 1.6 + 0.36 * len(bars)),
            ),
        ),
        notes=tuple(notes),
        sources=(j22.SOURCE,),
    )


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
        "logistic regression (mel)": _classifier(
            lambda seed: LogisticRegression(C=0.1, max_iter=500)
        ),
    }
    if quadrants is not None:
        models[REGRESSION] = _regression(quadrants)
    return models


def _classifier(make: Callable[[int], Any]) -> Predictor:
    def predict(train: Floats, classes: Ints, test: Floats, seed: int) -> Ints:
        if len(np.unique(classes)) == 1:
            # Most models refuse to learn from one class; there is nothing to learn.
            return np.full(len(test), classes[0], dtype=np.int64)
        model = make(seed)
        if getattr(model, "n_neighbors", 0) > len(train):
            model.set_params(n_neighbors=len(train))
        model.fit(train, classes)
        said: Ints = np.asarray(model.predict(test), dtype=np.int64)
        return said

    return predict


def _regression(quadrants: Ints) -> Predictor:
    """Linear regression to the signs of valence and arousal, then the class of that quadrant.

    The ridge that descriptors with many columns need is chosen inside the training clips.
    """
    from sklearn.linear_model import RidgeCV

    def predict(train: Floats, classes: Ints, test: Floats, seed: int) -> Ints:
        del seed  # nothing here is random
        model = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(train, quadrants[classes])
        signs = np.where(np.asarray(model.predict(test)) >= 0, 1, -1)
        # (rows, classes): whether both signs are the class's
        same = (signs[:, None, :] == quadrants[None]).all(axis=2)
        said: Ints = same.argmax(axis=1).astype(np.int64)
        return said

    return predict


def quadrants_of(classes: Sequence[str]) -> Ints | None:
    """int64 (classes, 2): signs of valence and arousal; None unless classes are J22's four."""
    named = [SCHEMES["j22"].class_of(name) for name in classes]
    if sorted(str(name) for name in named) != sorted(QUADRANTS):
        return None
    return np.array([QUADRANTS[str(name)] for name in named], dtype=np.int64)


def out_of_fold(
    predictor: Predictor, rows: Floats, labels: Ints, folds: Ints, seed: int, n_classes: int
) -> Floats:
    """One-hot predictions of every clip by a model fitted without its fold.

    Parameters
    ----------
    predictor
        Of `classical_models`.
    rows
        float64 (clips, dim); clips with NaN are left out.
    labels, folds
        int64 (clips,).

    Returns
    -------
    float64 (clips, classes), NaN rows for clips left out.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    there = np.isfinite(rows).all(axis=1)
    out = np.full((len(rows), n_classes), np.nan)
    for fold in np.unique(folds):
        train = np.flatnonzero(there & (folds != fold))
        test = np.flatnonzero(there & (folds == fold))
        if not len(train) or not len(test):
            continue
        present = np.unique(labels[train])
        if len(present) == 1:
            said = np.full(len(test), present[0])
        else:
            scaler = StandardScaler().fit(rows[train])
            with warnings.catch_warnings():
                # So many iterations are the setting, not a fault.
                warnings.simplefilter("ignore", ConvergenceWarning)
                said = predictor(
                    scaler.transform(rows[train]), labels[train], scaler.transform(rows[test]), seed
                )
        out[test] = np.eye(n_classes)[said]
    return out
