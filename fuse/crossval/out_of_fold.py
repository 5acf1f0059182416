"""Out-of-fold predictions of all models, their scores, and the choice of the recommended model.

The best score in a table is optimistically biased (selection). So the choice is part of what is
cross-validated (Varma & Simon 2006, "Bias in error estimation when using cross-validation for
model selection"): in each fold a model is chosen by inner predictions of the training clips, and
this model predicts the fold's clips.

With few clips, chance decides which model has the lowest loss. So the simplest model is chosen
whose loss is within one standard error of the lowest (Breiman et al. 1984, "Classification and
Regression Trees", section 3.4.3): the model with the fewest features. If there are several, it is
`integrated-late`, in which only the calibration is fitted, or else the one with the lowest loss.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.features import Clips
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.calibration import apply_temperature, fit_temperature, log_probabilities
from mvemo.fuse.models import LATE, Key, Missing, Model, is_named, missing_of, modality_order
from mvemo.fuse.numeric import best_index, codes_of, complete, mean_of_finite
from mvemo.fuse.results import Choice, LayerChoice, ModelResult, score_model
from mvemo.fuse.tasks.base import Task
from mvemo.manifests.array_types import F64, Bools, Ints

# A model can be chosen if it predicts at least this share of the clips that another predicts.
ENOUGH = 0.9


@dataclass(frozen=True)
class Fallback:
    """Model that replaces another one when modalities are missing (PL20 3.6)."""

    missing: Missing  # missing modalities, in the order of reports
    key: Key
    thresholds: Key  # key of the model whose thresholds decide


@dataclass
class OutOfFold:
    """Out-of-fold predictions of all models, as `predict_all` returns them."""

    clips: Clips
    k: int  # number of folds
    # Models in the order of reports; the stack and the product come last.
    models: tuple[Model, ...]
    # Key of a model or fallback to float64 (clips, outputs); NaN rows if a feature is missing.
    outputs: dict[Key, F64]
    # Fold to a dict like `outputs`, but for the fold's training clips: each is predicted by a
    # head that never saw it. NaN for other clips.
    inner: dict[int, dict[Key, NDArray[np.floating]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    # Fold to its inner folds, int64 (clips,); -1 for the fold's own clips.
    inner_folds: dict[int, Ints] = field(default_factory=dict)
    # Model name to its fallbacks; the first one whose features a clip has predicts it.
    fallbacks: dict[str, tuple[Fallback, ...]] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    # Feature name to bool (clips,): True for clips that have it (from their fold's net).
    present: dict[str, Bools] = field(default_factory=dict)
    # Feature name to bool (clips,): True for outliers (`mvemo.fuse.scaling.fit_scaling`).
    outliers: dict[str, Bools] = field(default_factory=dict)
    # Feature of several layers to the layer weights and best layers that its models learned.
    layers: dict[str, LayerChoice] = field(default_factory=dict)

    def blank(self) -> F64:
        """Return an array of outputs for all clips, filled with NaN."""
        return np.full((len(self.clips.y_true), self.clips.n_outputs), np.nan)

    def add_model(self, model: Model, decided_by: Callable[[Missing], Key] | None) -> None:
        """Add a model over other models' outputs, with fallbacks unless `decided_by` is None."""
        self.models = (*self.models, model)
        self.outputs[model.key] = self.blank()
        if decided_by is None or len(model.modalities) < 2:
            return
        self.fallbacks[model.name] = tuple(
            Fallback(missing, (model.name, *missing), decided_by(missing))
            for missing in missing_of(model.modalities)
        )
        self.outputs |= {one.key: self.blank() for one in self.fallbacks[model.name]}

    def predict(self, model: Model) -> tuple[F64, Ints]:
        """Return outputs with gaps filled by fallbacks, and which fallback was used (0: none)."""
        return self._fill(model, self.outputs)

    def predict_inside(self, model: Model, fold: int) -> F64:
        """Return filled outputs for a fold's training clips, predicted on inner folds."""
        return self._fill(model, self.inner[fold])[0]

    def predict_everywhere(self, model: Model) -> F64:
        """Return filled outputs, with inner predictions for clips that no fold tests."""
        return self._with_training(self.predict(model)[0], lambda: self.predict_inside(model, 0))

    @cached_property
    def thresholds(self) -> dict[Key, F64]:
        """Return thresholds by model, float64 (folds, tags); empty if the task has none."""
        task, y_true = self.clips.task, self.clips.y_true
        if not task.needs_inner:
            return {}
        return {
            key: np.array(
                [task.fit_thresholds(y_true, self._inner(key, fold)) for fold in range(self.k)]
            )
            for key in self.inner[0]
        }

    def heads_with_thresholds(self) -> list[Head]:
        """Return all heads with their thresholds, fitted on predictions of clips they left out."""
        if not self.thresholds:
            return self.heads
        task, y_true, heads = self.clips.task, self.clips.y_true, []
        for head in self.heads:
            key = (head.model,) if is_named(head.model) else head.features
            if head.fold is not None:
                fitted: F64 | None = self.thresholds[key][head.fold]
            else:
                outputs = self._with_training(self.outputs[key], partial(self._inner, key))
                fitted = task.fit_thresholds(y_true, outputs)
            heads.append(replace(head, thresholds=fitted))
        return heads

    def score(self, model: Model, *, temperature: bool) -> ModelResult:
        """Score one model's predictions, with gaps filled by its fallbacks."""
        clips, task = self.clips, self.clips.task
        outputs, source = self.predict(model)
        by_clip = None
        if self.thresholds:
            fallbacks = self.fallbacks.get(model.name, ())
            keys = [model.key, *(fallback.thresholds for fallback in fallbacks)]
            by_clip = np.stack([self.thresholds[key] for key in keys])[source, clips.folds]
        result = score_model(task, model, outputs, clips.y_true, clips.folds, self.k, by_clip)
        scaled: dict[str, float] = {}
        if temperature and task.exclusive:
            inner = (self.predict_inside(model, fold) for fold in range(self.k))
            found = [fit_temperature(log_probabilities(x), clips.y_true) for x in inner]
            at = apply_temperature(outputs, np.array(found)[clips.folds][:, None])
            calibration = task.calibration(clips.y_true, at).items()
            scaled = {f"{name}_scaled": value for name, value in calibration}
            scaled["temperature"] = float(np.mean(found))
        present = [clips.folds >= 0, *(self.present[name] for name in model.features)]
        untrained = np.logical_and.reduce(present) & ~complete(outputs)
        return replace(
            result,
            thresholds=self.thresholds.get(model.key),
            without_modality=self._score_without_modality(model),
            n_fallback=int((source > 0).sum()),
            n_untrained=int(untrained.sum()),
            calibration={**result.calibration, **scaled},
        )

    def choose(self) -> Choice | None:
        """Choose a model on all clips and in each fold; None if there are no inner predictions."""
        clips, models = self.clips, self.models
        if len(models) < 2:
            return None

        def choose(outputs: Sequence[F64]) -> tuple[Model, Model] | None:
            return simplest_model(clips.task, clips.y_true, clips.groups, models, outputs)

        chosen = choose([self.predict_everywhere(model) for model in models])
        if chosen is None:
            return None
        inside, outputs = [], self.blank()
        by_clip = self.blank() if self.thresholds else None
        for fold in range(self.k):
            of_fold = choose([self.predict_inside(model, fold) for model in models])
            if of_fold is None:
                return None
            model, _ = of_fold
            inside.append(model.name)
            tested = clips.folds == fold
            outputs[tested] = self.predict(model)[0][tested]
            if by_clip is not None:
                by_clip[tested] = self.thresholds[model.key][fold]
        kinds = tuple(dict.fromkeys(kind for model in models for kind in model.modalities))
        nested = Model("nested choice", (), kinds)
        scored = score_model(
            clips.task, nested, outputs, clips.y_true, clips.folds, self.k, by_clip
        )
        model, best = chosen
        return Choice(model.name, tuple(inside), scored, best.name)

    def _score_without_modality(self, model: Model) -> dict[str, float]:
        """Map missing modalities to the mean score on the model's clips (PL20 3.6)."""
        fallbacks = self.fallbacks.get(model.name, ())
        if not fallbacks:
            return {}
        order = modality_order(model.modalities).index
        by_missing = sorted(fallbacks, key=lambda f: (len(f.missing), [*map(order, f.missing)]))
        keys = {"none": model.key, **{"+".join(f.missing): f.key for f in by_missing}}
        rows, clips = complete(self.outputs[model.key]), self.clips
        labels, folds = clips.y_true[rows], clips.folds[rows]
        return {
            missing: mean_of_finite(
                clips.task.primary_per_fold(labels, self.outputs[key][rows], folds, self.k)
            )
            for missing, key in keys.items()
        }

    def _inner(self, key: Key, fold: int = 0) -> F64:
        return self.inner[fold][key].astype(float)

    def _with_training(self, outputs: F64, inner: Callable[[], F64]) -> F64:
        train_only = self.clips.folds < 0
        return np.where(train_only[:, None], inner(), outputs) if train_only.any() else outputs

    def _fill(self, model: Model, values: Mapping[Key, NDArray[np.floating]]) -> tuple[F64, Ints]:
        outputs = np.asarray(values[model.key], float)
        source = np.zeros(len(outputs), np.int64)
        for n, fallback in enumerate(self.fallbacks.get(model.name, ()), start=1):
            if fallback.key not in values:
                continue
            others = values[fallback.key]
            rows = ~complete(outputs) & complete(others)
            outputs = np.where(rows[:, None], others, outputs)
            source[rows] = n
        return outputs, source


def simplest_model(
    task: Task, y_true: F64, groups: Sequence[str], models: Sequence[Model], outputs: Sequence[F64]
) -> tuple[Model, Model] | None:
    """Return the simplest model within one standard error of the best, and the best model.

    The best model has the lowest loss. The standard error is that of the difference of both
    models' losses, over groups. Of models whose losses are equal up to `TIE`, it is the simplest,
    or else the first. None if no clip was predicted.
    """
    valid = np.stack([complete(values) for values in outputs])
    n = valid.sum(axis=1)
    if not n.any():
        return None
    candidates = np.flatnonzero(n >= ENOUGH * n.max()).tolist()
    common = np.logical_and.reduce(valid[candidates])
    losses = {i: task.losses(y_true[common], outputs[i][common]) for i in candidates}
    means = {i: losses[i].mean() for i in candidates if np.isfinite(losses[i]).all()}
    if not means:
        return None

    def complexity(i: int) -> tuple[bool, int, bool]:
        # `LATE` is the simplest model of its features: only its calibration is fitted.
        return models[i].by_estimator, len(models[i].features), models[i].name != LATE

    ordered = sorted(means, key=complexity)
    best = ordered[best_index([-means[i] for i in ordered])]
    codes = codes_of(np.asarray(groups)[common])

    def near(i: int) -> bool:
        gains = losses[i] - losses[best]
        of_groups = np.bincount(codes, gains - gains.mean())
        variance = np.square(of_groups).sum() * len(of_groups) / max(len(of_groups) - 1, 1)
        return bool(gains.mean() <= np.sqrt(variance) / len(gains))

    found = list(filter(near, ordered))
    found = [i for i in found if complexity(i) == complexity(found[0])]
    return models[found[best_index([-means[i] for i in found])]], models[best]
