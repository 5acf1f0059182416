"""Scores of class probabilities: accuracy, macro F1, macro one-vs-rest ROC-AUC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(true: Ints, predicted: Ints, n_classes: int) -> Ints:
    """int64 (classes, classes): rows are true, columns predicted classes."""
    flat = np.bincount(true * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes).astype(np.int64)


def accuracy(true: Ints, predicted: Ints) -> float:
    """Share of right predictions in [0, 1]; NaN of none."""
    return float(np.mean(true == predicted)) if len(true) else float("nan")


def class_scores(confusion: Ints) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each class; NaN where 0 / 0.

    F1 is NaN for a class that is neither true nor predicted anywhere, and 0 for one
    that is never right.
    """
    right = np.diag(confusion).astype(np.float64)
    said, there = confusion.sum(axis=0), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / said, right / there, 2.0 * right / (said + there)


def f1_macro(confusion: Ints) -> float:
    """Mean F1 over the classes that are true or predicted somewhere."""
    f1 = class_scores(confusion)[2]
    return float(np.nanmean(f1)) if np.isfinite(f1).any() else float("nan")


def roc_auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Area under the ROC curve, ties counted half; NaN with one class alone.

    The Mann-Whitney form: the share of (positive, negative) pairs in the right order.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(score)
    above = float(ranks[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def roc_auc_macro_ovr(true: Ints, probabilities: Floats) -> float:
    """Mean over classes of the one-vs-rest ROC-AUC.

    Classes that all or none of the clips have are left out; NaN where none remains. It
    is the convention that reproduces the AUC that PL20's authors publish.
    """
    areas = [
        roc_auc(true == c, np.ascontiguousarray(probabilities[:, c]))
        for c in range(probabilities.shape[1])
    ]
    held = [area for area in areas if not np.isnan(area)]
    return float(np.mean(held)) if held else float("nan")


def roc_curve(positive: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates, both from 0 to 1, one point for each distinct score."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    misses = 1 + ends - hits
    n_positive, n_negative = max(int(positive.sum()), 1), max(int((~positive).sum()), 1)
    return (
        np.concatenate([[0.0], misses / n_negative]),
        np.concatenate([[0.0], hits / n_positive]),
    )
