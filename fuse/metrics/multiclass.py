"""Scores of class probabilities: scikit-learn's, with NaN where there is nothing to score."""

from __future__ import annotations

import numpy as np
from sklearn import metrics

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.metrics.ranking import roc_auc


def confusion_matrix(y_true: Ints, y_pred: Ints, n_classes: int) -> Ints:
    """int64 (classes, classes): rows are true, columns predicted classes."""
    if not len(y_true):
        return np.zeros((n_classes, n_classes), dtype=np.int64)
    counts = metrics.confusion_matrix(y_true, y_pred, labels=range(n_classes))
    return np.asarray(counts, dtype=np.int64)


def accuracy(y_true: Ints, y_pred: Ints) -> float:
    """Share of right predictions in [0, 1]; NaN of none."""
    return float(metrics.accuracy_score(y_true, y_pred)) if len(y_true) else float("nan")


def class_scores(y_true: Ints, y_pred: Ints, n_classes: int) -> tuple[F64, F64, F64]:
    """Precision, recall and F1 of each class, float64 (classes,); NaN where 0 / 0.

    F1 is NaN for a class that is neither true nor predicted anywhere, and 0 for one that is
    never right.

    Examples
    --------
    >>> precision, recall, f1 = class_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    >>> precision, recall
    (array([1. , 0.5, nan]), array([0.5, 1. , nan]))
    """
    if not len(y_true):
        nothing = np.full(n_classes, np.nan)
        return nothing, nothing.copy(), nothing.copy()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=range(n_classes), zero_division=np.nan
    )
    return precision, recall, f1


def f1_macro(y_true: Ints, y_pred: Ints, n_classes: int) -> float:
    """Mean F1 over the classes that are true or predicted somewhere; NaN of no clips."""
    return mean_of_finite(class_scores(y_true, y_pred, n_classes)[2])


def roc_auc_macro_ovr(y_true: Ints, proba: F64) -> float:
    """Mean over classes of the one-vs-rest ROC-AUC.

    Classes that all or none of the clips have are left out; NaN where none remains. It
    is the convention that reproduces the AUC that PL20's authors publish.
    """
    return mean_of_finite(roc_auc(y_true[:, None] == np.arange(proba.shape[1]), proba))
