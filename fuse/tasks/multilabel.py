"""Task of any number of tags per clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.bootstrap import Resamples, areas, bootstrap_multilabel
from mvemo.fuse.metrics.averages import Measures, complete, mean_finite, mean_of_finite
from mvemo.fuse.metrics.calibration import log_losses
from mvemo.fuse.metrics.scores import (
    DEFAULT_THRESHOLD,
    best_thresholds,
    multilabel_scores,
    roc_auc,
)
from mvemo.fuse.numeric import F64, Bools, Ints
from mvemo.fuse.tasks.base import Column, LabelColumns, Outcome, ProbabilityTask


@dataclass(frozen=True)
class Multilabel(ProbabilityTask):
    """Any number of tags for each clip; `y_pred` marks probabilities that reach a threshold.

    The threshold of each tag is fitted inside the training folds.

    Notes
    -----
    `per_output` has ``precision``, ``recall``, ``f1``, ``roc_auc`` and ``average_precision`` of
    each tag. `ModelResult.scores` (pooled predictions) and `per_fold` have them with the suffix
    ``_macro`` (mean over tags) and ``_micro`` (all pairs of clip and tag together). The primary
    metric is the mean over folds of ``roc_auc_macro``.
    """

    name = "multilabel"
    output_nouns = ("tag", "tags")
    link = "sigmoid"
    primary_metric = "roc_auc_macro"
    primary_title = "macro ROC-AUC"
    baseline_name = "training frequency"
    needs_inner = True
    findings = ("weakest_tag", "confidence")
    figures = ("folds", "per_output", "class_roc", "reliability")
    averaged_over = ", mean over tags"
    primary_interval = ("primary", "the mean over folds")
    primary_output = "roc_auc"
    axis_from = 0.4
    baseline_words = "each tag's share of the training clips for every clip"
    error_title = "log loss"
    error_note = "By log loss over the tags."
    probability_of = "the tag"
    probable_words = "pairs of clip and tag"
    right_words = "has the tag"
    output_columns = (
        Column("AUC", "roc_auc"),
        Column("AP", "average_precision"),
        Column("F1", "f1"),
        Column("precision", "precision"),
        Column("recall", "recall"),
    )
    columns_note = (
        "F1, AUC and AP (average precision) of the pooled predictions: mean over tags, or "
        "micro, over all pairs of clip and tag. Heads' decisions are by thresholds fitted "
        "inside the training folds; those of nets' own outputs and of others at 0.5."
    )
    csv_kinds = ("true", "predicted", "decided")

    def losses(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return the log loss of each clip, mean over tags."""
        losses, valid = np.full(len(y_true), np.nan), complete(outputs)
        losses[valid] = log_losses(y_true[valid], outputs[valid])
        return losses

    def _primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        return mean_of_finite(roc_auc(y_true.astype(np.bool_), outputs))

    def fit_thresholds(self, y_true: NDArray[Any], outputs: F64) -> F64:
        return best_thresholds(outputs, y_true)

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Bools:
        # NaN never reaches a threshold.
        reached = outputs >= (DEFAULT_THRESHOLD if thresholds is None else thresholds)
        return np.asarray(reached, dtype=np.bool_)

    def measure(self, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any]) -> Measures:
        return multilabel_scores(y_true, outputs, y_pred)

    def baseline(
        self, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Predict each tag's frequency in training, with the threshold that maximises F1 there."""
        outputs, _ = super().baseline(y_true, folds, k, n_outputs)
        thresholds = np.full((k, n_outputs), np.nan)
        for fold in range(k):
            test = folds == fold
            if test.any() and not test.all():
                train = y_true[~test]
                constant = np.broadcast_to(train.mean(axis=0), train.shape)
                thresholds[fold] = best_thresholds(constant, train)
        return outputs, thresholds

    def _resample_scores(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        return bootstrap_multilabel(models.y_true, models.outputs, models.y_pred, resamples)

    def _resample_primary(
        self, y_true: NDArray[Any], outputs: F64, valid: Bools, resamples: Resamples
    ) -> F64:
        return mean_finite(areas(y_true.astype(np.bool_), outputs, valid, resamples), axis=1)

    def columns(self, names: Sequence[str]) -> tuple[Column, ...]:
        titles = {"f1": "F1", "roc_auc": "AUC", "average_precision": "AP"}
        return tuple(
            # The terminal has room for only one micro average, F1.
            Column(f"{prefix}{title}", f"{name}_{kind}", terminal=kind == "macro" or name == "f1")
            for prefix, kind in (("", "macro"), ("micro ", "micro"))
            for name, title in titles.items()
        )

    def prediction(self, names: Sequence[str]) -> str:
        return f"the probability of {len(names)} tags ({', '.join(names)})"

    def label_columns(self, y_true: NDArray[Any], n_outputs: int) -> LabelColumns:
        return ["clips"], [[str(int(n))] for n in y_true.sum(axis=0)]

    def label_texts(self, names: Sequence[str], y: NDArray[Any]) -> list[str]:
        return [
            ", ".join(n for n, tag in zip(names, tags, strict=True) if tag) or "none" for tags in y
        ]

    def clip_errors(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return the log loss of each clip, mean over tags."""
        likelihood = np.where(y_true == 1, outputs, 1.0 - outputs)
        tiny = np.finfo(np.float64).tiny
        return np.asarray(-np.log(np.maximum(likelihood, tiny)).mean(axis=1), dtype=np.float64)

    def indicators(self, y_true: NDArray[Any], n_outputs: int) -> Bools:
        return np.asarray(y_true == 1, dtype=np.bool_)

    def share_masks(
        self, y_true: NDArray[Any], y_pred: NDArray[Any], valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        true, predicted = (y_true == 1) & valid[:, None], y_pred & valid[:, None]
        masks: dict[str, Bools] = {}
        for name, mask in (
            ("recall", true),
            ("precision", predicted),
            ("f1", true | predicted),
        ):
            masks[f"{name}_micro"] = np.asarray(mask.any(axis=1), dtype=np.bool_)
            masks.update({f"{name}:{t}": mask[:, t] for t in range(n_outputs)})
        return masks
