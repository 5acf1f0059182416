"""How well clips were predicted out of fold, over one repeat or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.metrics.multiclass import accuracy, f1_macro, roc_auc_macro_ovr
from mvemo.fuse.statistics.resamples import percentile_interval, resample_groups


@dataclass(frozen=True)
class Scores:
    """How well clips were predicted out of fold.

    Parameters
    ----------
    accuracy
        Share of all predicted clips that are right; with repeats, the mean over them.
    low, high
        Its 95 % interval by bootstrapping groups.
    sd
        Standard deviation of the accuracy: over repeats where there are any, else over
        folds.
    f1, auc
        Macro F1, and macro one-vs-rest area under the ROC curve of the pooled predictions.
    majority
        Accuracy of always predicting the commonest class of the training folds.
    n_clips
        How many were predicted.
    """

    accuracy: float
    low: float
    high: float
    sd: float
    f1: float
    auc: float
    majority: float
    n_clips: int


# Of predictions that there are not.
NO_SCORES = Scores(
    accuracy=math.nan,
    low=math.nan,
    high=math.nan,
    sd=math.nan,
    f1=math.nan,
    auc=math.nan,
    majority=math.nan,
    n_clips=0,
)


def score(
    y_true: Ints, probas: Sequence[F64], folds: Sequence[Ints], groups: Sequence[str]
) -> Scores:
    """Scores of out-of-fold probabilities.

    Parameters
    ----------
    y_true
        int64 (clips,).
    probas
        One float64 (clips, classes) for each repeat; NaN rows were not predicted.
    folds
        int64 (clips,) for each repeat.
    groups
        One a clip.
    """
    n_classes = probas[0].shape[1]
    mask = np.isfinite(np.stack(probas)).all(axis=(0, 2))
    y_true = y_true[mask]
    probas = [proba[mask] for proba in probas]
    folds = [assignment[mask] for assignment in folds]
    y_preds = [proba.argmax(axis=1).astype(np.int64) for proba in probas]
    accuracies = [accuracy(y_true, y_pred) for y_pred in y_preds]
    spread = accuracies
    if len(probas) == 1:
        spread = [accuracy(y_true[test], y_preds[0][test]) for test in _test_masks(folds[0])]
    resamples = resample_groups([groups[row] for row in np.flatnonzero(mask).tolist()])
    correct = np.stack(y_preds) == y_true
    shares = resamples.shares(correct, np.ones_like(correct))
    low, high = percentile_interval(shares.mean(axis=0))
    return Scores(
        accuracy=float(np.mean(accuracies)),
        low=float(low),
        high=float(high),
        sd=float(np.std(spread, ddof=1)) if len(spread) > 1 else float("nan"),
        f1=float(np.mean([f1_macro(y_true, p, n_classes) for p in y_preds])),
        auc=float(np.mean([roc_auc_macro_ovr(y_true, proba) for proba in probas])),
        majority=float(np.mean([majority_accuracy(y_true, f) for f in folds])),
        n_clips=int(mask.sum()),
    )


def majority_accuracy(y_true: Ints, folds: Ints) -> float:
    """Accuracy of predicting, for each fold, the commonest class of the others."""
    n_right = 0
    for test in _test_masks(folds):
        train = y_true[~test]
        if len(train):
            n_right += int((y_true[test] == np.bincount(train).argmax()).sum())
    return n_right / max(len(y_true), 1)


def _test_masks(folds: Ints) -> list[Bools]:
    """bool (clips,) for each fold: its clips."""
    return [folds == fold for fold in np.unique(folds)]
