"""Out-of-fold predictions of all models, their heads and their fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.averages import complete, mean_of_finite
from mvemo.fuse.models import Key, Missing, Model, missing_of, modality_order

# Outputs by key, of any precision.
Values = Mapping[Key, NDArray[np.floating]]


@dataclass(frozen=True)
class Fallback:
    """Model that predicts for another one when modalities are missing (PL20 3.6)."""

    missing: Missing  # modalities, in the order of reports
    key: Key
    thresholds: Key  # key of the model whose thresholds decide


@dataclass
class OutOfFold:
    """Out-of-fold predictions of all models, as `predict_all` returns them."""

    clips: Clips
    # Models in the order of reports; the stack and the product last.
    models: tuple[Model, ...]
    # `Model.key` to float64 (clips, outputs), by the head that left the clip's fold out; NaN rows
    # where a feature is missing. Fallbacks are included.
    outputs: dict[Key, F64]
    # (key, fold) to float (clips, outputs): predictions of the fold's training clips, each by a
    # head that never saw the clip.
    inner: dict[tuple[Key, int], NDArray[np.floating]] = field(default_factory=dict)
    # Model name to its fallbacks, in the order of `missing_of`: the first one that can predict a
    # clip does.
    fallbacks: dict[str, tuple[Fallback, ...]] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    # Feature name to bool (clips,): True for clips that have it; under ``crossfit``, from the net
    # of each clip's fold.
    present: dict[str, Bools] = field(default_factory=dict)
    # Feature name to bool (clips,): True for outliers (`mvemo.fuse.matrices.scaling.fit_scaling`).
    outliers: dict[str, Bools] = field(default_factory=dict)

    def add_model(
        self, model: Model, blank: F64, decided_by: Callable[[Missing], Key] | None
    ) -> None:
        """Add a model over others' outputs, with fallbacks unless `decided_by` is None.

        `decided_by` maps missing modalities to the key of the model whose thresholds decide.
        """
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
        """Return a model's outputs, filled up by its fallbacks, and their source, int64 (clips,).

        The source is 0 for the model itself and n for its n-th fallback.
        """
        return self._fill(model, self.outputs)

    def predict_inside(self, model: Model, fold: int) -> F64:
        """Return outputs as `predict`, for a fold's training clips, from inner folds."""
        inner = {key: values for (key, of_fold), values in self.inner.items() if of_fold == fold}
        return self._fill(model, inner)[0]

    def predict_everywhere(self, model: Model) -> F64:
        """Return outputs as `predict`; clips that only train have inner predictions."""
        return self._with_training(self.predict(model)[0], lambda: self.predict_inside(model, 0))

    def predict_everywhere_alone(self, key: Key) -> F64:
        """Return outputs as `predict_everywhere`, without fallbacks."""
        return self._with_training(self.outputs[key], lambda: self.inner[key, 0].astype(np.float64))

    def score_without_modality(self, model: Model) -> dict[str, float]:
        """Return the primary metric, mean over folds, by missing modalities (PL20 3.6).

        The clips are those that the model itself predicts; ``none`` is the model's own score.
        """
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
        """Return bool (clips,): True for tested clips that have every feature of a model."""
        present = [self.present[name] for name in model.features]
        return np.asarray(np.logical_and.reduce([self.clips.folds >= 0, *present]), np.bool_)

    def _mean_score(self, outputs: F64, rows: Bools) -> float:
        """Return the primary metric of `rows`, mean over folds."""
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
