"""The result of one evaluation of tags (F8) or of dimensions such as valence (F9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.heads.head import Head

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class OutputResult:
    """One model's out-of-fold predictions and their scores.

    Scores are named ``precision``, ``recall``, ``f1``, ``roc_auc``, ``average_precision``
    for tags and ``r2``, ``rmse``, ``ccc`` for dimensions; see `mvemo.fuse.metrics.multilabel` and
    `mvemo.fuse.metrics.regression`. NaN stands for a score that is not defined.

    Parameters
    ----------
    name, modalities, features
        As in `ModelResult`.
    predictions
        float64 (clips, outputs): probabilities of tags, or values in the labels' unit; NaN
        rows where a feature is missing and no prediction was made.
    thresholds
        float64 (folds, tags): what a probability had to reach for a decision in each fold,
        fitted inside its training folds; None for dimensions.
    decisions
        bool (clips, tags): the decisions; None for dimensions.
    headline_per_fold
        float64 (folds,): the task's `headline` score.
    per_fold
        Score name to float64 (folds, outputs): of each fold's clips alone.
    pooled
        Score name to float64 (outputs,): of the pooled out-of-fold predictions.
    macro
        Score name to its mean over outputs, pooled.
    micro
        Score name to its value over all (clip, tag) pairs, pooled; empty for dimensions.
    intervals
        Name to the ends of its 95 % group-bootstrap interval: ``headline`` (see
        `mvemo.fuse.tasks.primary_metric`), and of the pooled predictions ``NAME_macro``; of tags
        ``NAME_micro``, ``NAME:t`` of the t-th tag and calibration; of dimensions
        ``NAME_DIMENSION`` and ``quadrant_accuracy``.
    without
        ``audio`` or ``video`` to the mean headline over folds when that modality is missing
        (F6), and ``none``: as in `ModelResult`.
    stood_in
        Clips with one of the modalities missing, which the head of the other predicted,
        and for tags decided by its thresholds.
    calibration
        Of tags, over all pairs of clip and tag: ``ece``, ``brier`` and ``log_loss``; empty
        for dimensions.
    quadrant_accuracy
        Share of clips in the right quadrant of the valence-arousal plane, pooled; None
        where the dimensions are others.
    quadrant_per_fold
        float64 (folds,), or None.
    quadrant_confusion
        int64 (4, 4), rows true, columns predicted, in the order of `QUADRANTS`; or None.
    """

    name: str
    modalities: tuple[str, ...]
    features: tuple[str, ...]
    predictions: F64
    thresholds: F64 | None
    decisions: NDArray[np.bool_] | None
    headline_per_fold: F64
    per_fold: Mapping[str, F64]
    pooled: Mapping[str, F64]
    macro: Mapping[str, float]
    micro: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    without: Mapping[str, float] = field(default_factory=dict)
    stood_in: int = 0
    calibration: Mapping[str, float] = field(default_factory=dict)
    quadrant_accuracy: float | None = None
    quadrant_per_fold: F64 | None = None
    quadrant_confusion: NDArray[np.int64] | None = None

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """bool (clips,): where there is a prediction."""
        return np.asarray(np.isfinite(self.predictions).all(axis=1), dtype=np.bool_)


@dataclass(frozen=True)
class OutputResults:
    """One evaluation: all models on the same folds.

    Parameters
    ----------
    name, task, clip_ids, groups, folds, k, seed, protocol, leaky, synthetic, permuted
        As in `Results`; the task is ``multilabel`` or ``regression``.
    classes
        Tags or dimensions, the order of every output.
    labels
        int64 (clips, tags) of 0 and 1, or float64 (clips, dimensions), as scored: after
        permutation.
    headline
        The score that models are ranked and compared by: ``roc_auc`` or ``r2``, the mean
        over outputs.
    models
        In the order of report.
    baseline
        What knows no features: each tag's frequency, or each dimension's mean, in the
        training folds; a result like the others, of no feature.
    quadrant_centre
        Valence and arousal of the neutral point; None where there are no quadrants.
    missing, failures, curves, provenance, comparisons, repeats, learning_curve, heads
        As in `Results`; differences and learning curves are of the headline.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64] | F64
    folds: NDArray[np.int64]
    k: int
    seed: int
    protocol: str
    leaky: bool
    synthetic: bool
    permuted: bool
    headline: str
    models: tuple[OutputResult, ...]
    baseline: OutputResult
    quadrant_centre: tuple[float, float] | None = None
    missing: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    curves: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    comparisons: tuple[Any, ...] = ()
    repeats: tuple[OutputResults, ...] = field(default=(), repr=False)
    learning_curve: Mapping[str, tuple[tuple[float, float, float], ...]] = field(
        default_factory=dict
    )
    heads: tuple[Head, ...] = field(default=(), repr=False)
