"""Out-of-fold predictions of all models, their heads, and what falls back on which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.models import (
    Key,
    Missing,
    Model,
    missing_of,
    modality_order,
)

# Outputs by key, whatever their precision.
Values = Mapping[Key, NDArray[np.floating]]


@dataclass(frozen=True)
class Fallback:
    """What predicts for a model when modalities are missing (PL20 3.6)."""

    missing: Missing  # Modalities, in the order of report
    key: Key
    thresholds: Key  # Key of the model whose thresholds decide them


@dataclass
class OutOfFold:
    """What `predict_all` gives."""

    clips: Clips  # Labels, groups and folds
    # Those asked for, in the order of report; the stack, if any, last
    models: tuple[Model, ...]
    # `Model.key` to float64 (clips, outputs), by the head that left the clip's fold out; NaN rows
    # where a feature is missing. Those of fallbacks are among them.
    outputs: dict[Key, F64]
    # (key, fold) to float (clips, outputs): predictions of its training clips, each by a head that
    # never saw it
    inner: dict[tuple[Key, int], NDArray[np.floating]] = field(default_factory=dict)
    # Name of a model of several modalities to its fallbacks, in the order of `missing_of`: a clip
    # is predicted by the first that can
    fallbacks: dict[str, tuple[Fallback, ...]] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)  # All that were fitted
    # Feature name to bool (clips,): which clips have it; under ``crossfit`` of each fold's net
    present: dict[str, Bools] = field(default_factory=dict)
    # Feature name to bool (clips,): which clips lie far outside the rest
    # (`mvemo.fuse.matrices.scaling.fit_scaling`)
    outliers: dict[str, Bools] = field(default_factory=dict)

    def add_model(
        self, model: Model, blank: F64, decided_by: Callable[[Missing], Key] | None
    ) -> None:
        """Make room for a model over others' outputs, and for it with modalities missing."""
        self.models = (*self.models, model)
        self.outputs[model.key] = blank.copy()
        if decided_by is None or len(model.modalities) < 2:
            return
        self.fallbacks[model.name] = tuple(
            Fallback(missing, (model.name, *missing), decided_by(missing))
            for missing in missing_of(model.modalities)
        )
        for fallback in self.fallbacks[model.name]:
            self.outputs[fallback.key] = blank.copy()

    def predict(self, model: Model) -> tuple[F64, Ints]:
        """A model's outputs, with those of its fallbacks where it has none itself."""
        return self._fill(model, self.outputs)

    def predict_inside(self, model: Model, fold: int) -> F64:
        """float64 (clips, outputs): as `predict`, of a fold's training clips, inside them."""
        inner = {key: values for (key, of_fold), values in self.inner.items() if of_fold == fold}
        return self._fill(model, inner)[0]

    def predict_everywhere(self, model: Model) -> F64:
        """As `predict`, and of clips that train only what is predicted inside training."""
        return self._with_training(self.predict(model)[0], lambda: self.predict_inside(model, 0))

    def predict_everywhere_alone(self, key: Key) -> F64:
        """As `predict_everywhere`, of the model of that key without its fallbacks."""
        return self._with_training(self.outputs[key], lambda: self.inner[key, 0].astype(np.float64))

    def score_without_modality(self, model: Model) -> dict[str, float]:
        """The primary metric, mean over folds, when a modality is missing (PL20 3.6)."""
        fallbacks = self.fallbacks.get(model.name, ())
        if not fallbacks:
            return {}
        rows = complete(self.outputs[model.key])
        order = modality_order(model.modalities)
        by_missing = sorted(
            fallbacks, key=lambda f: (len(f.missing), [order.index(kind) for kind in f.missing])
        )
        keys = {"none": model.key, **{"+".join(f.missing): f.key for f in by_missing}}
        return {missing: self._mean_score(self.outputs[key], rows) for missing, key in keys.items()}

    def has_features(self, model: Model) -> Bools:
        """bool (clips,): tested clips that have every feature of a model."""
        present = [self.present[name] for name in model.features]
        return np.asarray(np.logical_and.reduce([self.clips.folds >= 0, *present]), np.bool_)

    def _mean_score(self, outputs: F64, rows: Bools) -> float:
        """Mean over folds of the primary metric of `rows`."""
        folds = self.clips.folds
        scores = [
            self.clips.score(rows & (folds == fold), outputs)
            for fold in range(int(folds.max()) + 1)
        ]
        return mean_of_finite(np.array(scores))

    def _with_training(self, outputs: F64, inner: Callable[[], F64]) -> F64:
        train_only = self.clips.folds < 0
        return np.where(train_only[:, None], inner(), outputs) if train_only.any() else outputs

    def _fill(self, model: Model, values: Values) -> tuple[F64, Ints]:
        outputs = np.asarray(values[model.key], dtype=np.float64)
        source = np.zeros(len(outputs), dtype=np.int64)
        for n, fallback in enumerate(self.fallbacks.get(model.name, ()), start=1):
            if fallback.key not in values:
                continue
            others = values[fallback.key]
            rows = ~complete(outputs) & complete(others)
            outputs = np.where(rows[:, None], others, outputs)
            source[rows] = n
        return outputs, source
