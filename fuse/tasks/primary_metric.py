"""The one score a task's models are ranked and compared by, and its bootstrap.

Accuracy of classes, macro ROC-AUC of tags, R2 (mean over dimensions) of values: each is
taken in every fold and averaged over folds, because predictions of different folds come
from different heads and need not be on one scale.

The bootstrap of R2 is of the pooled predictions: they are in the labels' unit, and in a
draw of few clips the R2 of a fold is too low, by about one over their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.multiclass import mean_held, mean_of_held
from mvemo.fuse.metrics.multilabel import roc_auc
from mvemo.fuse.metrics.regression import regression_scores
from mvemo.fuse.statistics.bootstrap import bootstrap_regression
from mvemo.fuse.statistics.ranked import areas
from mvemo.fuse.statistics.resamples import Resamples

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

HEADLINES = {"multiclass": "accuracy", "multilabel": "roc_auc", "regression": "r2"}
# As a reader knows them.
TITLES = {"accuracy": "accuracy", "roc_auc": "macro ROC-AUC", "r2": "R2"}


def headline_score(task: str, labels: NDArray[Any], predictions: F64) -> float:
    """The task's headline of some clips; NaN where it is not defined.

    Parameters
    ----------
    task
        ``multiclass``, ``multilabel`` or ``regression``.
    labels
        int64 (clips,), int64 (clips, tags) or float64 (clips, dimensions).
    predictions
        float64 (clips, outputs), without NaN.
    """
    if not len(labels):
        return float("nan")
    if task == "multiclass":
        return float(np.mean(predictions.argmax(axis=1) == labels))
    if task == "multilabel":
        return mean_of_held(roc_auc(labels.astype(np.bool_), predictions))
    # A dimension without variance in a fold has no R2; the others still have.
    return mean_of_held(regression_scores(labels, predictions).r2)


def headline_per_fold(
    task: str, labels: NDArray[Any], predictions: F64, folds: Ints, k: int
) -> F64:
    """float64 (k,): `headline_score` of the predicted clips of each fold."""
    there = np.isfinite(predictions).all(axis=1)
    return np.array(
        [
            headline_score(task, labels[rows], predictions[rows])
            for rows in (there & (folds == fold) for fold in range(k))
        ]
    )


def headline_resamples(
    task: str, labels: NDArray[Any], predictions: F64, folds: Ints, k: int, resamples: Resamples
) -> F64:
    """float64 (models, resamples): the headline in each resample of groups.

    It is the mean over folds of accuracy and of macro ROC-AUC, and pooled R2.

    Parameters
    ----------
    predictions
        float64 (models, clips, outputs); NaN rows were not predicted.
    folds, k
        int64 (clips,), and their number.
    resamples
        Of the clips' groups: models that share them are paired.
    """
    if task == "regression":
        return mean_held(bootstrap_regression(labels, predictions, resamples)["r2"], axis=1)
    there = np.asarray(np.isfinite(predictions).all(axis=2), dtype=np.bool_)
    by_fold = []
    for fold in range(k):
        rows = folds == fold
        if not rows.any():
            continue
        some = resamples.select(rows)
        y, p, held = labels[rows], predictions[:, rows], there[:, rows]
        if task == "multiclass":
            by_fold.append(some.shares(np.nan_to_num(p).argmax(axis=2) == y, held))
        else:
            by_fold.append(mean_held(areas(y.astype(np.bool_), p, held, some), axis=1))
    return mean_held(np.stack(by_fold), axis=0)
