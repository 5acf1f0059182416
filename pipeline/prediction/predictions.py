"""What a model says of a clip, and what a user should know of it; needs no media packages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.final.predicting import distances


@dataclass(frozen=True)
class Prediction:
    """What a model says of one clip."""

    file: str  # as it was given
    predictor: Predictor | None = None  # what predicted it; None where nothing did
    # Float64 (outputs,): as `mvemo.fuse.final.predicting.predict_clips`; empty where nothing
    # was predicted.
    outputs: F64 = field(default_factory=lambda: np.zeros(0))
    notes: tuple[str, ...] = ()  # what a user should know of this prediction
    problem: str = ""  # why there is none; empty where there is
    trained_on: bool = False  # true for a clip of the model's training data
    # JSON values: ``content`` (digest of the file's bytes), ``duration`` in seconds, mvemo's
    # ``version``, the ``date`` when it was read and the ``seconds`` that took.
    facts: Mapping[str, Any] = field(default_factory=dict)


def predictor_of(model: FinalModel, vectors: Collection[FeatureKey]) -> Predictor | None:
    """Return the best predictor of a clip with these features; None if there is none."""
    lacking = {spec.name for spec in model.specs if (spec.name, spec.fold) not in vectors}
    return model.best_of({spec.name for spec in model.specs} - lacking)


def unlikeness(
    model: FinalModel, predictor: Predictor, vectors: Mapping[FeatureKey, F64]
) -> list[str]:
    """A note where a clip, of vectors (1, dim), is unlike the training clips; else nothing."""
    ratios = distances(model, predictor, vectors)
    far = {name: float(ratio[0]) for name, ratio in ratios.items() if ratio[0] > 1}
    if not far:
        return []
    listed = ", ".join(f"{name} {ratio:.1f}" for name, ratio in far.items())
    return [
        f"unlike the clips that the model was made of (distance over the largest usual one: "
        f"{listed}): do not rely on it"
    ]
