"""The result of one evaluation, of any task: what every table, figure and file is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.models import Model
from mvemo.fuse.tasks.base import Task
from mvemo.fuse.tasks.wording import Column
from mvemo.manifests.text_table import html_table

# A point of a learning curve: the share of the training groups, the mean number of training
# clips, and mean and standard deviation over folds of the primary metric.
CurvePoint = tuple[float, float, float, float]


@dataclass(frozen=True)
class ModelResult:
    """One model's out-of-fold predictions and their scores.

    Which scores there are, and what each is, its task says (`Task.score`): the names are
    those of `mvemo.fuse.tasks.multiclass.Multiclass`, `...multilabel.Multilabel` and
    `...regression.Regression`. NaN stands for a score that is not defined.

    Parameters
    ----------
    name
        ``music1d`` … ``integrated``.
    modalities
        Those it needs.
    features
        The cached features that it concatenates.
    outputs
        float64 (clips, outputs): probabilities of classes, whose rows sum to 1, or of tags;
        or values in the targets' unit. NaN rows where a clip was not predicted.
    y_pred
        The decisions made of them: int64 (clips,) of classes, -1 where not predicted; bool
        (clips, tags); or the values themselves.
    scores
        Name to one number for all clips.
    per_fold
        Name to float64 (folds,): of each fold's clips alone; NaN where not defined.
    per_output
        Name to float64 (outputs,): of each class, tag or target, over all clips.
    per_output_fold
        Name to float64 (folds, outputs): of each fold's clips alone.
    confusion
        int64 (classes, classes), rows true, columns predicted; of values the quadrants of
        valence and arousal; None where there is nothing to confuse.
    thresholds
        float64 (folds, tags): what a probability had to reach for a decision in each fold,
        fitted inside its training folds; None but for tags.
    calibration
        Of probabilities ``ece``, ``brier`` and ``log_loss``; where temperatures were fitted
        also ``ece_scaled``, ``brier_scaled``, ``log_loss_scaled`` and their mean,
        ``temperature``.
    intervals
        Name to the ends of its 95 % group-bootstrap interval: of `scores`, of `calibration`,
        ``NAME:i`` of the i-th entry of `per_output`, and ``primary`` of the primary metric's
        mean over folds. Empty where none was asked for.
    without_modality
        Missing modalities, joined by ``+`` (``video``, ``audio+lyrics``), to the primary
        metric (mean over folds) of a head that needs only the others; ``none`` to that of the
        model itself. All of the clips that have everything. Empty for a model of one
        modality.
    n_fallback
        Clips with some of the modalities missing, which a head of the others predicted.
    n_untrained
        Tested clips that have all features and yet no prediction, because no head could be
        trained without them: their training folds hold one class, or fewer than two clips.
    by_net
        The outputs are those of a net's own last layer, without a head.
    """

    name: str
    modalities: tuple[str, ...]
    features: tuple[str, ...]
    outputs: F64
    y_pred: NDArray[Any]
    scores: Mapping[str, float]
    per_fold: Mapping[str, F64]
    per_output: Mapping[str, F64] = field(default_factory=dict)
    per_output_fold: Mapping[str, F64] = field(default_factory=dict)
    confusion: Ints | None = None
    thresholds: F64 | None = None
    calibration: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    without_modality: Mapping[str, float] = field(default_factory=dict)
    n_fallback: int = 0
    n_untrained: int = 0
    by_net: bool = False

    def value_of(self, column: Column) -> float:
        """The score that a column of a table shows."""
        if column.output is None:
            return float(self.scores[column.score])
        return float(self.per_output[column.score][column.output])

    @property
    def valid(self) -> Bools:
        """bool (clips,): where there is a prediction."""
        return np.asarray(np.isfinite(self.outputs).all(axis=1), dtype=np.bool_)

    def __repr__(self) -> str:
        """One line: its scores."""
        scores = ", ".join(f"{name} {value:.3f}" for name, value in list(self.scores.items())[:3])
        n_predicted = int(self.valid.sum())
        return f"<ModelResult {self.name!r}: {scores}; {n_predicted} of {len(self.valid)} clips>"


@dataclass(frozen=True)
class Choice:
    """The model to use, and what choosing it is worth."""

    model: str  # its name: that of least loss (`Task.choice_loss`) in the cross-validation
    # (folds,): name of the model that was chosen so by inner predictions of each fold's
    # training clips.
    inside: tuple[str, ...]
    # Each fold's clips as predicted by that fold's choice, scored: what to expect.
    nested: ModelResult


@dataclass(frozen=True)
class Results:
    """All models of one evaluation on the same clips and folds.

    Parameters
    ----------
    name
        Of the data set.
    task
        What the labels are, and how predictions of them are scored.
    classes
        Names of the outputs: classes, tags, or targets such as valence.
    clip_ids, groups
        As in the cache's clip table.
    y_true
        The labels that were evaluated (permuted where `permuted`): int64 (clips,) of
        classes, int64 (clips, tags) of 0 and 1, or float64 (clips, targets).
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
    baseline
        What knows no features, scored like a model: the commonest class, each tag's
        frequency or each target's mean in the training folds.
    present
        Feature name to bool (clips,): which clips have it.
    outliers
        Feature name to ids of clips far outside the rest, which no other was scaled by.
    failures
        (clip id, stage, reason) of each failure that stage one kept.
    curves
        ``net@fold`` to the loss and accuracy per epoch: keys ``epoch``, ``train_loss``,
        ``val_loss``, ``val_accuracy``, each a list.
    provenance
        JSON values: command, versions, digests, settings, feature specs.
    comparisons
        Each fusion against its best single modality (`mvemo.fuse.crossval.comparisons`).
    repeats
        Where there are several, all evaluations, this one first and each by itself; scores
        in `models` are then of all of them, predictions of the first.
    choice
        Which model to use; None where there was nothing to choose, or it was not asked for.
    learning_curve
        Model to its points, the full set last.
    heads
        Every fitted head, in the order of fitting.
    predicted_by
        The model whose predictions the labels are; empty for labels by people.
    media
        Clip id to a link from the report to its file; of clips whose files are not known there
        is none.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    y_true: NDArray[Any]
    folds: Ints
    k: int
    seed: int
    protocol: str
    leaky: bool
    synthetic: bool
    permuted: bool
    models: tuple[ModelResult, ...]
    baseline: ModelResult
    present: Mapping[str, Bools] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    curves: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    comparisons: tuple[Any, ...] = ()
    repeats: tuple[Results, ...] = field(default=(), repr=False)
    learning_curve: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    heads: tuple[Head, ...] = field(default=(), repr=False)
    choice: Choice | None = None
    outliers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)
    predicted_by: str = ""

    def __repr__(self) -> str:
        """One line, whatever the number of clips and models."""
        ranked = sorted(self.models, key=lambda m: np.nan_to_num(self.primary_mean(m), nan=-np.inf))
        best = f"; best {self._in_words(ranked[-1])}" if ranked else ""
        return f"<Results {self._caption()}{best}>"

    def _repr_html_(self) -> str:
        """For notebooks: each model's primary metric over folds."""
        rows = []
        for model in (*self.models, self.baseline):
            scores = self.primary_per_fold(model)
            scores = scores[np.isfinite(scores)]
            values = (scores.min(), scores.mean(), scores.max()) if len(scores) else ()
            cells = [f"{value:.3f}" for value in values] or [""] * 3
            rows.append([model.name, ", ".join(model.modalities), *cells])
        head = ("model", "needs", "min", f"mean {self.task.primary_metric}", "max")
        return html_table(self._caption(), head, rows)

    def _caption(self) -> str:
        """Of the clips and how they were evaluated."""
        folds = f"{self.k} folds" if self.k > 1 else "one split"
        return (
            f"{self.name!r}: {len(self.clip_ids)} clips in {len(set(self.groups))} groups, "
            f"{self.task.name}, {folds}, {len(self.models)} model{'s' * (len(self.models) != 1)}"
        )

    def _in_words(self, model: ModelResult) -> str:
        return f"{model.name}: {self.task.primary_metric} {self.primary_mean(model):.3f}"

    @property
    def tested(self) -> Bools:
        """bool (clips,): clips of some fold; the others only train."""
        return np.asarray(self.folds >= 0, dtype=np.bool_)

    @property
    def missing(self) -> dict[str, int]:
        """Feature name to number of clips without it."""
        return {name: int((~present).sum()) for name, present in self.present.items()}

    def primary_per_fold(self, model: ModelResult) -> F64:
        """float64 (folds,): the score that models are ranked and compared by."""
        return np.asarray(model.per_fold[self.task.primary_metric], dtype=np.float64)

    def primary_mean(self, model: ModelResult) -> float:
        """Its mean over the folds where it is defined; NaN where there is none."""
        return mean_of_finite(self.primary_per_fold(model))


def score_model(
    task: Task,
    model: Model,
    outputs: F64,
    y_true: NDArray[Any],
    folds: Ints,
    k: int,
    thresholds: F64 | None = None,
) -> ModelResult:
    """Score one model's out-of-fold outputs.

    Parameters
    ----------
    task
        Of the labels.
    model
        Name, features and modalities.
    outputs
        float64 (clips, outputs); NaN rows are not predicted.
    y_true, folds, k
        As in `Results`.
    thresholds
        Of tags: float64 (clips, tags), what each clip's probabilities have to reach.
    """
    scores = task.score(y_true, outputs, folds, k, thresholds)
    return ModelResult(
        name=model.name,
        modalities=model.modalities,
        features=model.features,
        by_net=model.by_net,
        outputs=outputs,
        calibration=task.calibration(y_true, outputs),
        **vars(scores),
    )


def score_baseline(
    task: Task, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
) -> ModelResult:
    """Predictions from the training folds' labels alone, scored like a model's."""
    outputs, thresholds = task.baseline(y_true, folds, k, n_outputs)
    model = Model(task.baseline_name, (), ())
    by_clip = None if thresholds is None else thresholds[folds]
    result = score_model(task, model, outputs, y_true, folds, k, by_clip)
    return replace(result, thresholds=thresholds)
