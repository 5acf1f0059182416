"""Any number of tags for each clip (F8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.metrics.averages import mean_finite, mean_of_finite
from mvemo.fuse.metrics.calibration import brier_score, expected_calibration_error, log_loss
from mvemo.fuse.metrics.multilabel import (
    NAMES,
    best_thresholds,
    decide,
    multilabel_scores,
    roc_auc,
)
from mvemo.fuse.statistics.bootstrap import bootstrap_multilabel
from mvemo.fuse.statistics.ranked import areas
from mvemo.fuse.statistics.resamples import Resamples
from mvemo.fuse.tasks.base import Column, Measures, Task
from mvemo.fuse.tasks.resampling import resample_calibration


@dataclass(frozen=True)
class Multilabel(Task):
    """Any number of tags for each clip; `y_pred` are those whose probability reaches a threshold.

    The threshold of each tag is fitted inside the training folds.

    Notes
    -----
    `per_output` has ``precision``, ``recall``, ``f1``, ``roc_auc`` and
    ``average_precision`` of each tag; `ModelResult.scores` the same with ``_macro``, their
    mean over tags, and ``_micro``, of all pairs of clip and tag as one, of the pooled
    predictions; `per_fold` all of these of each fold. The primary metric is the mean over
    folds of ``roc_auc_macro``.
    """

    name = "multilabel"
    output_nouns = ("tag", "tags")
    link = "sigmoid"
    primary_metric = "roc_auc_macro"
    primary_title = "macro ROC-AUC"
    baseline_name = "training frequency"
    needs_inner = True
    figures = ("folds", "per_output", "class_roc", "reliability")

    def read_labels(self, labels: NDArray[Any]) -> Ints:
        return np.asarray(labels, dtype=np.int64)

    def target(self, y_true: NDArray[Any], n_outputs: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(y_true.T, np.float32)

    def loss(self, y_true: NDArray[Any], outputs: F64) -> float:
        """Log loss over pairs of clip and tag."""
        return log_loss(y_true, outputs)

    def _primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        return mean_of_finite(roc_auc(y_true.astype(np.bool_), outputs))

    def fit_thresholds(self, y_true: NDArray[Any], outputs: F64) -> F64:
        return best_thresholds(outputs, y_true)

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Bools:
        return decide(outputs) if thresholds is None else decide(outputs, thresholds)

    def measure(self, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any]) -> Measures:
        found = multilabel_scores(y_true, outputs, y_pred)
        return Measures(
            {
                **{f"{name}_macro": value for name, value in found.macro.items()},
                **{f"{name}_micro": value for name, value in found.micro.items()},
            },
            {name: getattr(found, name) for name in NAMES},
        )

    def calibration(self, y_true: NDArray[Any], outputs: F64) -> dict[str, float]:
        """Over all pairs of clip and tag."""
        return {
            "ece": expected_calibration_error(y_true, outputs),
            "brier": brier_score(y_true, outputs),
            "log_loss": log_loss(y_true, outputs),
        }

    def baseline(
        self, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Each tag's frequency, decided by the threshold that makes F1 largest in training.

        A tag is so decided always, unless no training clip has it.
        """
        outputs = np.full(y_true.shape, np.nan)
        thresholds = np.full((k, n_outputs), np.nan)
        for fold in range(k):
            test = folds == fold
            if test.all() or not test.any():
                continue
            outputs[test] = y_true[~test].mean(axis=0)
            constant = np.broadcast_to(y_true[~test].mean(axis=0), y_true[~test].shape)
            thresholds[fold] = best_thresholds(constant, y_true[~test])
        return outputs, thresholds

    def resample(
        self,
        y_true: NDArray[Any],
        outputs: F64,
        y_pred: NDArray[Any],
        folds: Ints,
        k: int,
        resamples: Resamples,
    ) -> dict[str, F64]:
        return {
            **bootstrap_multilabel(y_true, outputs, y_pred, resamples),
            "primary": self.resample_primary(y_true, outputs, folds, k, resamples),
            **resample_calibration(y_true, outputs, resamples),
        }

    def _resample_primary(
        self, y_true: NDArray[Any], outputs: F64, valid: Bools, resamples: Resamples
    ) -> F64:
        return mean_finite(areas(y_true.astype(np.bool_), outputs, valid, resamples), axis=1)

    def columns(self, names: Sequence[str]) -> tuple[Column, ...]:
        titles = {"f1": "F1", "roc_auc": "AUC", "average_precision": "AP"}
        return tuple(
            # Of the micro averages a terminal has room for F1 alone.
            Column(f"{kind} {title}", f"{name}_{kind}", terminal=kind == "macro" or name == "f1")
            for kind in ("macro", "micro")
            for name, title in titles.items()
        )

    def output_columns(self) -> tuple[Column, ...]:
        return (
            Column("AUC", "roc_auc"),
            Column("AP", "average_precision"),
            Column("F1", "f1"),
            Column("precision", "precision"),
            Column("recall", "recall"),
        )
