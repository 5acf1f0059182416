"""The result of one evaluation: what every table, figure and file is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.heads.head import Head


@dataclass(frozen=True)
class ModelResult:
    """One model's out-of-fold predictions and their scores (multiclass).

    Parameters
    ----------
    name
        ``music1d`` … ``integrated``.
    modalities
        Those it needs, of ``audio`` and ``video``.
    features
        The cached features that it concatenates.
    probabilities
        float64 (clips, classes), rows summing to 1; NaN rows where a feature is missing
        and no prediction was made.
    accuracy_per_fold, f1_macro_per_fold, roc_auc_per_fold
        float64 (folds,), fractions; a fold without a score is NaN.
    f1_macro
        Macro F1 of the pooled out-of-fold predictions (of `confusion`).
    roc_auc_macro_ovr
        Mean over folds of the macro one-vs-rest ROC-AUC.
    roc_auc_macro_ovr_pooled
        The same over the pooled predictions.
    confusion
        int64 (classes, classes): rows are true, columns predicted classes.
    intervals
        Score to its 95 % interval, from resampled groups: ``accuracy``, ``f1_macro``,
        ``roc_auc_macro_ovr``, ``roc_auc_macro_ovr_pooled``, ``ece``, ``brier``,
        ``log_loss``, and of the c-th class ``precision:c``, ``recall:c`` and ``f1:c``. All
        but the mean over folds are of the pooled predictions. Empty where none was asked for.
    without
        ``audio`` or ``video`` to the mean accuracy when that modality is missing (F6): of a
        head that needs only the other; ``none`` to that of the model itself. All of the
        clips that have both. Empty for a model of one modality.
    stood_in
        Clips with one of the modalities missing, which the head of the other predicted.
    calibration
        ``ece``, ``brier`` and ``log_loss`` of the probabilities as they are, and where
        temperatures were fitted ``ece_scaled``, ``brier_scaled``, ``log_loss_scaled`` and
        their mean, ``temperature``.
    """

    name: str
    modalities: tuple[str, ...]
    features: tuple[str, ...]
    probabilities: NDArray[np.float64]
    accuracy_per_fold: NDArray[np.float64]
    f1_macro_per_fold: NDArray[np.float64]
    roc_auc_per_fold: NDArray[np.float64]
    f1_macro: float
    roc_auc_macro_ovr: float
    roc_auc_macro_ovr_pooled: float
    confusion: NDArray[np.int64]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    without: Mapping[str, float] = field(default_factory=dict)
    stood_in: int = 0
    calibration: Mapping[str, float] = field(default_factory=dict)

    @property
    def predictions(self) -> NDArray[np.float64]:
        """`probabilities`, by the name that they have whatever the task."""
        return self.probabilities

    @property
    def headline_per_fold(self) -> NDArray[np.float64]:
        """`accuracy_per_fold`, by the name that it has whatever the task."""
        return self.accuracy_per_fold


@dataclass(frozen=True)
class Results:
    """All models of one evaluation on the same clips and folds.

    Parameters
    ----------
    name
        Of the data set.
    task, classes, clip_ids, groups, labels
        As in the cache's clip table; `labels` are those evaluated (permuted where
        `permuted`).
    folds
        int64 (clips,): the fold that each clip was tested in; -1 for clips that were not,
        under ``holdout``, whose one fold is the test split: their predictions are NaN.
    k, seed
        Number of folds and the evaluation's seed.
    protocol
        ``crossfit``, ``frozen``, ``shared`` or ``holdout``; the most optimistic of the
        features used.
    leaky
        True where a clip was scored by a net that saw it or its group.
    synthetic, permuted
        Generated data; labels shuffled as a check.
    models
        In the order of report.
    majority_per_fold
        float64 (folds,): accuracy of always saying the training folds' commonest class.
    majority_interval
        95 % interval of its pooled accuracy; None where none was asked for.
    missing
        Feature name to number of clips without it.
    failures
        (clip id, stage, reason) of each failure that stage one kept.
    curves
        ``net@fold`` to the loss and accuracy per epoch: keys ``epoch``, ``train_loss``,
        ``val_loss``, ``val_accuracy``, each a list.
    provenance
        JSON values: command, versions, digests, seeds, feature specs.
    comparisons
        Each fusion against its best single modality (`mvemo.fuse.statistics.model_tests`).
    repeats
        Where there are several, all evaluations, this one first and each by itself; scores
        in `models` are then of all of them (`with_repeats`).
    learning_curve
        Model to (share of the training groups, mean number of training clips, mean
        accuracy), the full set last.
    heads
        Every fitted head, in the order of fitting.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    k: int
    seed: int
    protocol: str
    leaky: bool
    synthetic: bool
    permuted: bool
    models: tuple[ModelResult, ...]
    majority_per_fold: NDArray[np.float64]
    majority_interval: tuple[float, float] | None = None
    missing: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    curves: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    comparisons: tuple[Any, ...] = ()
    repeats: tuple[Results, ...] = field(default=(), repr=False)
    learning_curve: Mapping[str, tuple[tuple[float, float, float], ...]] = field(
        default_factory=dict
    )
    heads: tuple[Head, ...] = field(default=(), repr=False)

    @property
    def headline(self) -> str:
        """The score that models are compared by (`mvemo.fuse.tasks.primary_metric`)."""
        return "accuracy"

    @property
    def majority_accuracy(self) -> float:
        """Mean over folds of the majority baseline's accuracy."""
        return float(np.nanmean(self.majority_per_fold))
