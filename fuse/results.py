"""The result of one evaluation of any task, from which tables and files are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.heads.head import Head
from mvemo.fuse.models import INTEGRATED, Model
from mvemo.fuse.numeric import best_index, complete, mean_of_finite, spread
from mvemo.fuse.tasks.base import ScoreColumn, Task
from mvemo.manifests.annotators import Ceiling, ceilings_of
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.text_table import Tabular

# Protocol of predictions that another program made.
OTHERS = "others"
# A point of a learning curve: the share of the training groups, the mean number of training
# clips, and the mean and standard deviation over folds of the primary metric.
CurvePoint = tuple[float, float, float, float]


@dataclass(frozen=True)
class ModelResult:
    """One model's out-of-fold predictions and their scores.

    The task determines the scores, whose names docs/outputs.md explains. NaN stands for an
    undefined score.

    Parameters
    ----------
    name, modalities, features
        Name of the model (``music1d`` … ``integrated``), modalities that it needs, and cached
        features that it concatenates.
    outputs
        float64 (clips, outputs): probabilities of classes (rows sum to 1) or of tags, or values
        in the targets' unit; NaN rows for clips without a prediction.
    y_pred
        Decisions: int64 (clips,) of classes, -1 without a prediction; bool (clips, tags); or the
        predicted values.
    scores, per_fold
        Score name to its value over all clips, and to float64 (folds,), its values in the folds.
    per_output, per_output_fold
        Score name to float64 (outputs,), its value for each class, tag or target over all clips,
        and to float64 (folds, outputs), its values in the folds.
    confusion
        int64 (classes, classes), rows true, columns predicted; for regression the quadrants of
        valence and arousal; None if the task has no confusion matrix.
    thresholds
        float64 (folds, tags): smallest probability that counts as a decision, fitted inside the
        training folds; None for other tasks.
    calibration
        ``ece``, ``brier`` and ``log_loss`` of probabilities; with fitted temperatures also
        ``ece_scaled``, ``brier_scaled``, ``log_loss_scaled`` and the mean ``temperature``.
    intervals
        Score name to the ends of its 95 % group-bootstrap interval, for `scores` and
        `calibration`; ``NAME:i`` for entry i of `per_output`, ``primary`` for the primary
        metric's mean over folds. Empty without resampling.
    without_modality
        Missing modalities, joined by ``+`` (``video``, ``audio+lyrics``), to the primary metric
        (mean over folds) of a head that needs only the others; ``none`` to the score of the model.
        All are measured on clips that have every feature. Empty for a model of one modality.
    n_fallback, n_untrained
        Number of clips that lack some modalities and were predicted by a head of the others;
        number of tested clips with all features whose training folds have too few clips for
        a head.
    by_net
        True if the outputs are those of a net's own last layer, without a head.
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

    def value_of(self, column: ScoreColumn) -> float:
        """Return the score that a column of a table shows."""
        if column.output is None:
            return float(self.scores[column.score])
        return float(self.per_output[column.score][column.output])

    @property
    def valid(self) -> Bools:
        """Return bool (clips,): True where there is a prediction."""
        return complete(self.outputs)

    def __repr__(self) -> str:
        """Describe the model in one line, with its first scores."""
        scores = ", ".join(f"{name} {value:.3f}" for name, value in list(self.scores.items())[:3])
        n_predicted = int(self.valid.sum())
        return f"<ModelResult {self.name!r}: {scores}; {n_predicted} of {len(self.valid)} clips>"


@dataclass(frozen=True)
class Choice:
    """The recommended model, and the score to expect, which includes the cost of the choice."""

    model: str  # name of the chosen model (`Task.choice_loss`)
    # (folds,): name of the model chosen by inner predictions of each fold's training clips.
    inside: tuple[str, ...]
    # Scores on each fold's clips, predicted by the model chosen for this fold.
    nested: ModelResult
    best: str = ""  # name of the model of lowest loss; `model` may be a simpler one


@dataclass(frozen=True)
class LayerChoice:
    """Layers of an encoder that heads found useful, from the training clips of each fold."""

    layers: tuple[int, ...]  # number of each layer
    weights: F64  # float64 (folds, layers): weights that sum to 1; NaN if none were learned
    best: tuple[int | None, ...]  # (folds,): number of the best layer; None if there is none


@dataclass(frozen=True)
class Results(Tabular):
    """All models of one evaluation on the same clips and folds.

    Parameters
    ----------
    name, task
        Name of the data set; task that reads the labels and scores the predictions.
    classes
        Names of the outputs: classes, tags, or targets such as valence.
    clip_ids, groups
        Id and group of each clip, as in the cache's clip table.
    y_true
        Labels that were evaluated (drawn at random if `permuted`): int64 (clips,) of classes, int64
        (clips, tags) of 0 and 1, or float64 (clips, targets).
    folds, k, seed
        int64 (clips,): the fold that tested each clip, -1 for clips that were not tested
        (``holdout``: fold 0 is the test split), whose predictions are NaN; number of folds; seed.
    protocol
        ``crossfit``, ``frozen``, ``shared`` or ``holdout``: the most optimistic protocol of the
        features used.
    leaky
        True if a net scored a clip that it, or a clip of its group, was trained on.
    synthetic, permuted
        True for generated data; True for labels drawn at random as a check.
    chance
        Model name to its primary metric on each of several random draws of labels; ``''`` for the
        score to expect of the choice. Empty unless the settings ask for them.
    models, baseline
        Results of the models, in the order of reports, and of a predictor without features: the
        most common class, each tag's frequency or each target's mean in the training folds.
    present, outliers
        Feature name to bool (clips,), True for clips that have the feature; feature name to ids
        of clips that were not used for scaling.
    failures
        (clip id, stage, reason) of each failure that stage one kept.
    curves
        ``net@fold`` to the values per epoch, each a list: ``epoch``, ``train_loss``,
        ``val_loss``, ``val_accuracy``.
    provenance
        JSON values: command, versions, digests, settings, feature specs.
    comparisons
        Each fusion compared with its best single feature (`mvemo.fuse.crossval.comparisons`).
    repeats
        All evaluations, this one first; empty without repeats. Scores in `models` cover all of
        them, predictions only the first.
    choice
        Recommended model; None if there was no choice or the settings do not ask for one.
    learning_curve
        Model name to its points, the full training set last.
    heads
        All fitted heads, in the order of fitting.
    predicted_by
        Model whose predictions serve as labels; empty if people gave the labels.
    audit
        Records of the faults of the data (`mvemo.fuse.audit.Finding.record`).
    media
        Clip id to a link from the report to its file, for clips whose files are known.
    ceilings
        Best scores that the annotators' disagreement allows; empty if it is not known.
    layers
        Name of a feature of several layers to what its models learned about them.
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
    audit: tuple[Mapping[str, Any], ...] = ()
    chance: Mapping[str, F64] = field(default_factory=dict, repr=False)
    ceilings: tuple[Ceiling, ...] = ()
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Describe the results in one line."""
        ranked = sorted(self.models, key=lambda m: np.nan_to_num(self.primary_mean(m), nan=-np.inf))
        best = ""
        if ranked:
            score = f"{self.task.primary_title} {self.primary_mean(ranked[-1]):.3f}"
            best = f"; best {ranked[-1].name}: {score}"
        return f"<Results {self.caption()}{best}>"

    def records(self) -> list[dict[str, str | float | None]]:
        """Return each model's primary metric: mean, 95 % interval (low, high), and over folds."""
        records = []
        for model in (*self.models, self.baseline):
            least, mean, most = spread(self.primary_per_fold(model))
            low, high = model.intervals.get("primary", (None, None))
            scores = {self.task.primary_metric: mean, "low": low, "high": high}
            names = {"model": model.name, "needs": ", ".join(model.modalities)}
            records.append({**names, **scores, "min": least, "max": most})
        return records

    def caption(self) -> str:
        """Describe the clips and how they were evaluated."""
        folds = f"{self.k} folds" if self.k > 1 else "one split"
        return (
            f"{self.name!r}: {len(self.clip_ids)} clips in {len(set(self.groups))} groups, "
            f"{self.task.name}, {folds}, {len(self.models)} model{'s' * (len(self.models) != 1)}"
        )

    @property
    def evaluations(self) -> tuple[Results, ...]:
        """Return all repeats, or only this evaluation."""
        return self.repeats or (self,)

    @property
    def tested(self) -> Bools:
        """Return bool (clips,): True for clips that a fold tests; others are only for training."""
        return self.folds >= 0

    @property
    def has_intervals(self) -> bool:
        """Return True if any model has confidence intervals."""
        return any(model.intervals for model in self.models)

    @property
    def fused(self) -> bool:
        """Return True if the models read features, so that fusions are compared with features."""
        return any(model.features for model in self.models)

    @property
    def partly_predicted(self) -> bool:
        """Return True if a model did not predict every tested clip."""
        return any(not model.valid[self.tested].all() for model in self.models)

    @property
    def missing(self) -> dict[str, int]:
        """Return the number of clips without each feature."""
        return {name: int((~present).sum()) for name, present in self.present.items()}

    def ceiling_of(self, column: ScoreColumn | None = None) -> float:
        """Return the ceiling of a column, or of the primary metric; NaN if it is not known."""
        column = column or ScoreColumn("", self.task.primary_metric)
        by_target = {ceiling.target: ceiling.scores for ceiling in self.ceilings}
        targets = [""] if "" in by_target else self.classes
        targets = targets if column.output is None else (self.classes[column.output],)
        name = column.score.removesuffix("_macro")
        return float(np.mean([by_target.get(t, {}).get(name, np.nan) for t in targets]))

    def primary_per_fold(self, model: ModelResult) -> F64:
        """Return the primary metric in each fold, float64 (folds,)."""
        return model.per_fold[self.task.primary_metric]

    def primary_mean(self, model: ModelResult) -> float:
        """Return the primary metric's mean over the folds where it is defined; NaN without any."""
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
    task, model
        Task of the labels, and the model.
    outputs
        float64 (clips, outputs); NaN rows for clips without a prediction.
    y_true, folds, k
        Labels, folds and number of folds, as in `Results`.
    thresholds
        float64 (clips, tags): smallest probability that counts as a decision; only for tags.
    """
    y_pred = task.decide(outputs, thresholds)
    valid = complete(outputs)
    pooled = task.scores(y_true[valid], outputs[valid], y_pred[valid])
    per_fold = {name: np.full(k, np.nan) for name in pooled.overall}
    per_output_fold = {
        name: np.full((k, len(values)), np.nan) for name, values in pooled.per_output.items()
    }
    for fold in np.unique(folds[valid & (folds >= 0)]):
        rows = valid & (folds == fold)
        of_fold = task.scores(y_true[rows], outputs[rows], y_pred[rows], whole=False)
        for name, value in of_fold.overall.items():
            per_fold[name][fold] = value
        for name, values in of_fold.per_output.items():
            per_output_fold[name][fold] = values
    return ModelResult(
        name=model.name,
        modalities=model.modalities,
        features=model.features,
        by_net=model.by_net,
        outputs=outputs,
        y_pred=y_pred,
        scores=task.summarise(pooled.overall, per_fold),
        per_fold=per_fold,
        per_output=pooled.per_output,
        per_output_fold=per_output_fold,
        confusion=task.confusion(y_true[valid], y_pred[valid], outputs.shape[1]),
        calibration=task.calibration(y_true, outputs),
    )


def score_baseline(
    task: Task, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
) -> ModelResult:
    """Predict from only the training folds' labels, and score the result like a model."""
    outputs, thresholds = task.baseline(y_true, folds, k, n_outputs)
    model = Model(task.baseline_name, (), ())
    by_clip = None if thresholds is None else thresholds[folds]
    result = score_model(task, model, outputs, y_true, folds, k, by_clip)
    return replace(result, thresholds=thresholds)


def with_ceilings(results: Results, disagreement: F64 | None) -> Results:
    """Return the results with the ceilings of the tested clips.

    `disagreement` has the rows of the results (`mvemo.cache.ClipTable`). Shuffled and predicted
    labels have no ceiling.
    """
    rows = results.tested
    if disagreement is None or results.permuted or results.predicted_by or not rows.any():
        return results
    facts = results.task.name, results.classes, results.y_true[rows], disagreement[rows]
    return replace(results, ceilings=ceilings_of(*facts))


# --- choice of models


def best_model(results: Results, models: Sequence[ModelResult] | None = None) -> ModelResult | None:
    """Return the model with the best mean primary metric; if equal, with fewer features."""
    models = results.models if models is None else models
    scored = [m for m in models if np.isfinite(results.primary_mean(m))]
    scored.sort(key=lambda m: len(m.features))
    return scored[best_index([results.primary_mean(m) for m in scored])] if scored else None


def recommended_model(results: Results) -> ModelResult | None:
    """Return the model of the nested choice, otherwise the best; None without any score."""
    name = results.choice.model if results.choice and not results.permuted else ""
    chosen = (model for model in results.models if model.name == name)
    return next(chosen, None) or best_model(results)


def twin_of_integrated(results: Results) -> str:
    """Return the name of the pair that has the same features as ``integrated``, or ''."""
    features = next((set(m.features) for m in results.models if m.name == INTEGRATED), None)
    pairs = (m for m in results.models if "+" in m.name and set(m.features) == features)
    return next((m.name for m in pairs), "")


def without_twin(results: Results) -> Results:
    """Return the results without ``integrated`` if a pair of features equals it."""
    twin = twin_of_integrated(results)
    if not twin:
        return results
    choice = results.choice
    if choice is not None:
        model, best, *inside = (
            twin if name == INTEGRATED else name
            for name in (choice.model, choice.best, *choice.inside)
        )
        choice = replace(choice, model=model, best=best, inside=tuple(inside))

    def models(one: Results) -> tuple[ModelResult, ...]:
        return tuple(m for m in one.models if m.name != INTEGRATED)

    return replace(
        results,
        models=models(results),
        comparisons=tuple(c for c in results.comparisons if c.model != INTEGRATED),
        repeats=tuple(replace(one, models=models(one)) for one in results.repeats),
        learning_curve={n: p for n, p in results.learning_curve.items() if n != INTEGRATED},
        choice=choice,
    )
