"""Scores of classes as in scikit-learn, with NaN where there is nothing to score.

scikit-learn itself is too slow here: every fold of every model is scored, and its checks of the
input took longer than fitting the heads. The tests compare the results with it.
"""

from __future__ import annotations

import numpy as np

from mvemo.fuse.metrics.averages import mean_of_finite, ratio
from mvemo.fuse.metrics.ranking import roc_auc
from mvemo.fuse.numeric import F64, Ints


def confusion_matrix(y_true: Ints, y_pred: Ints, n_classes: int) -> Ints:
    """Count clips by true class (rows) and predicted class (columns), int64."""
    cells = np.bincount(y_true * n_classes + y_pred, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def accuracy(y_true: Ints, y_pred: Ints) -> float:
    """Return the share of right predictions in [0, 1]; NaN without clips."""
    return float(np.mean(y_true == y_pred)) if len(y_true) else float("nan")


def class_scores(y_true: Ints, y_pred: Ints, n_classes: int) -> tuple[F64, F64, F64]:
    """Return precision, recall and F1 of each class, float64 (classes,); NaN where 0 / 0.

    F1 is NaN for a class that is neither true nor predicted anywhere, and 0 for a class that is
    never right.

    Examples
    --------
    >>> precision, recall, f1 = class_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    >>> precision, recall
    (array([1. , 0.5, nan]), array([0.5, 1. , nan]))
    """
    confusion = confusion_matrix(y_true, y_pred, n_classes).astype(np.float64)
    n_true, n_predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return precision_recall_f1(n_true, n_predicted, confusion.diagonal())


def precision_recall_f1(n_true: F64, n_predicted: F64, n_right: F64) -> tuple[F64, F64, F64]:
    """Return precision, recall and F1 from counts of clips per class; NaN where 0 / 0."""
    f1 = ratio(2.0 * n_right, n_true + n_predicted)
    return ratio(n_right, n_predicted), ratio(n_right, n_true), f1


def f1_macro(y_true: Ints, y_pred: Ints, n_classes: int) -> float:
    """Return the mean F1 over the classes that are true or predicted; NaN without clips."""
    return mean_of_finite(class_scores(y_true, y_pred, n_classes)[2])


def balanced_accuracy(y_true: Ints, y_pred: Ints, n_classes: int) -> float:
    """Return the mean recall over the classes that some clip has; NaN without clips.

    Always predicting one class gives one divided by the number of classes.

    Examples
    --------
    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), 2)
    0.5
    """
    return mean_of_finite(class_scores(y_true, y_pred, n_classes)[1])


def cohen_kappa(y_true: Ints, y_pred: Ints, n_classes: int) -> float:
    """Return the agreement beyond chance (Cohen 1960, eq. 1): 1 is perfect, 0 is chance.

    NaN without clips, and if all clips have the same class and are predicted as that class.

    Examples
    --------
    >>> cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), 2)
    0.5
    """
    confusion = confusion_matrix(y_true, y_pred, n_classes).astype(np.float64)
    return float(kappa_of_counts(confusion.sum(1), confusion.sum(0), confusion.diagonal()))


def kappa_of_counts(n_true: F64, n_predicted: F64, n_right: F64) -> F64:
    """Return Cohen's kappa from counts (..., classes) as in `precision_recall_f1`."""
    n = n_true.sum(axis=-1)
    by_chance = ratio((n_true * n_predicted).sum(axis=-1), n * n)
    return ratio(ratio(n_right.sum(axis=-1), n) - by_chance, 1.0 - by_chance)


def roc_auc_macro_ovr(y_true: Ints, proba: F64) -> float:
    """Return the mean over classes of the one-vs-rest ROC-AUC.

    Classes that all clips or no clips have are left out; NaN if none remains. This convention
    reproduces the AUC published by PL20's authors.
    """
    return mean_of_finite(roc_auc(y_true[:, None] == np.arange(proba.shape[1]), proba))
