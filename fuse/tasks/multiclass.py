"""Task of one class per clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.bootstrap import Resamples, bootstrap_multiclass
from mvemo.fuse.metrics.averages import Measures, complete, mean_of_finite
from mvemo.fuse.metrics.calibration import (
    apply_temperature,
    fit_temperature,
    log_losses,
    log_probabilities,
)
from mvemo.fuse.metrics.scores import confusion_matrix, multiclass_scores
from mvemo.fuse.numeric import F64, Bools, Ints
from mvemo.fuse.tasks.base import Column, LabelColumns, Outcome, ProbabilityTask


@dataclass(frozen=True)
class Multiclass(ProbabilityTask):
    """One of several classes for each clip; `y_pred` is the most probable class.

    Notes
    -----
    `ModelResult.scores` has ``accuracy``, ``balanced_accuracy`` (mean recall over classes),
    ``cohen_kappa`` and ``f1_macro`` (mean F1 over classes) of the pooled predictions,
    ``roc_auc_macro_ovr`` (macro one-vs-rest ROC-AUC, mean over folds) and
    ``roc_auc_macro_ovr_pooled`` (the same for the pooled predictions). `per_fold` has all except
    the last. `per_output` has ``precision``, ``recall`` and ``f1``.
    """

    name = "multiclass"
    output_nouns = ("class", "classes")
    link = "softmax"
    primary_metric = "accuracy"
    primary_title = "accuracy"
    in_percent = True
    baseline_name = "majority class"
    fits_temperature = True
    decides_songs = True
    too_few = "of two classes"
    findings = ("weakest_class", "confusion", "confidence")
    figures = ("folds", "roc", "class_roc", "confusion", "reliability")
    primary_interval = ("accuracy", "the pooled accuracy")
    baseline_words = "always predicting the commonest class of the training clips"
    # It does not rank clips, and is never right for all other classes.
    baseline_scored = False
    hard_clips = "most_often_wrong"
    probability_of = "the predicted class"
    probable_words = "clips"
    right_words = "is right"
    brier_max = 2
    published = "PL20"
    output_columns = (
        Column("recall", "recall"),
        Column("precision", "precision"),
        Column("F1", "f1"),
    )
    columns_note = (
        "Balanced accuracy, Cohen's kappa and macro F1: of the pooled predictions. AUC: macro "
        "one-vs-rest, mean over folds."
    )

    def target(self, y_true: NDArray[Any], n_outputs: int) -> NDArray[np.float32]:
        one_hot = np.zeros((n_outputs, len(y_true)), np.float32)
        one_hot[y_true, np.arange(len(y_true))] = 1.0
        return one_hot

    def losses(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return log losses at the temperature that minimises their mean.

        With few clips, plain log loss would prefer a penalty so strong that only the commonest
        class is predicted.
        """
        losses, valid = np.full(len(y_true), np.nan), complete(outputs)
        if valid.any():
            y_true, scores = y_true[valid], log_probabilities(outputs[valid])
            proba = apply_temperature(outputs[valid], fit_temperature(scores, y_true))
            losses[valid] = log_losses(y_true, proba)
        return losses

    def _primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        return float(np.mean(outputs.argmax(axis=1) == y_true))

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Ints:
        return np.where(complete(outputs), np.nan_to_num(outputs).argmax(axis=-1), -1).astype(
            np.int64
        )

    def measure(self, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any]) -> Measures:
        return multiclass_scores(y_true, outputs, y_pred)

    def summarise(
        self, pooled: Mapping[str, float], per_fold: Mapping[str, F64]
    ) -> dict[str, float]:
        auc = "roc_auc_macro_ovr"
        return {**pooled, auc: mean_of_finite(per_fold[auc]), f"{auc}_pooled": pooled[auc]}

    def confusion(self, y_true: NDArray[Any], y_pred: NDArray[Any], n_outputs: int) -> Ints:
        return confusion_matrix(y_true, y_pred, n_outputs)

    def scaled_calibration(
        self, y_true: NDArray[Any], outputs: F64, folds: Ints, inner: Sequence[F64]
    ) -> dict[str, float]:
        scores = [log_probabilities(proba) for proba in inner]
        temperatures = np.array([fit_temperature(of_fold, y_true) for of_fold in scores])
        scaled = apply_temperature(outputs, temperatures[folds][:, None])
        scaled_scores = {
            f"{name}_scaled": v for name, v in self.calibration(y_true, scaled).items()
        }
        return {**scaled_scores, "temperature": float(np.mean(temperatures))}

    def baseline(
        self, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Predict the commonest class of the training folds (of all clips if one fold has them)."""
        outputs = np.full((len(y_true), n_outputs), np.nan)
        for fold in range(k):
            test = folds == fold
            train = y_true if test.all() else y_true[~test]
            if test.any():
                outputs[test] = np.eye(n_outputs)[np.bincount(train).argmax()]
        return outputs, None

    def _resample_scores(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        # With one fold the mean over folds is the pooled score.
        folds = models.folds if models.k > 1 else None
        return bootstrap_multiclass(models.y_true, models.outputs, resamples, folds)

    def _resample_primary(
        self, y_true: NDArray[Any], outputs: F64, valid: Bools, resamples: Resamples
    ) -> F64:
        return resamples.shares(np.nan_to_num(outputs).argmax(axis=2) == y_true, valid)

    def columns(self, names: Sequence[str]) -> tuple[Column, ...]:
        return (
            Column("balanced", "balanced_accuracy", terminal=False),
            Column("kappa", "cohen_kappa", terminal=False),
            Column("F1", "f1_macro"),
            Column("AUC", "roc_auc_macro_ovr"),
        )

    def prediction(self, names: Sequence[str]) -> str:
        listed = f"{', '.join(names[:-1])} or {names[-1]}"
        return f"one of {len(names)} classes ({listed})"

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        return (
            f"Guessing among {len(names)} equally likely classes is right for "
            f"{100 / len(names):.1f} % of the clips."
        )

    def label_columns(self, y_true: NDArray[Any], n_outputs: int) -> LabelColumns:
        n_clips = np.bincount(y_true, minlength=n_outputs)
        return ["clips"], [[str(n)] for n in n_clips]

    def label_facts(self, names: Sequence[str], y_true: NDArray[Any]) -> list[tuple[str, str]]:
        n_clips = np.bincount(y_true, minlength=len(names))
        listed = ", ".join(f"{name} {n}" for name, n in zip(names, n_clips, strict=True))
        return [("clips of each class", listed)]

    def indicators(self, y_true: NDArray[Any], n_outputs: int) -> Bools:
        return np.asarray(y_true[:, None] == np.arange(n_outputs), dtype=np.bool_)

    def share_masks(
        self, y_true: NDArray[Any], y_pred: NDArray[Any], valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        masks = {"accuracy": valid, "primary": valid}
        for c in range(n_outputs):
            true, predicted = valid & (y_true == c), valid & (y_pred == c)
            masks[f"recall:{c}"], masks[f"precision:{c}"] = true, predicted
            masks[f"f1:{c}"] = true | predicted
        return masks

    def csv_columns(self, names: Sequence[str]) -> list[str]:
        return ["label", "model", "predicted", *(f"p_{name}" for name in names)]

    def csv_cells(self, names: Sequence[str], model: str, one: Outcome) -> list[list[object]]:
        rows = zip(one.y_true.tolist(), one.y_pred.tolist(), one.outputs.tolist(), strict=True)
        empty = [""] * (1 + len(names))
        return [
            [names[true], model, *([names[c], *proba] if c >= 0 else empty)]
            for true, c, proba in rows
        ]
