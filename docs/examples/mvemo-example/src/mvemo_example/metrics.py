"""Geometric mean of the recalls of all classes, which is 0 if one class is never found."""

import numpy as np
from sklearn.metrics import recall_score

from mvemo.fuse import Metric


def geometric_mean(y_true, y_pred, proba):
    """Return the geometric mean of the recalls of the classes that occur."""
    recalls = recall_score(y_true, y_pred, labels=np.unique(y_true), average=None)
    return float(np.prod(recalls) ** (1 / len(recalls)))


GEOMETRIC_MEAN = Metric(geometric_mean, tasks=("multiclass",), title="G-mean")
