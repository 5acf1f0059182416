"""Prediction of a clip, and notes on it; this module needs no media packages."""

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
    """Prediction of one clip by a model."""

    file: str  # name as given by the user
    predictor: Predictor | None = None  # None if the clip was not predicted
    # float64 (outputs,) of `mvemo.fuse.final.predicting.predict_clips`; empty if not predicted.
    outputs: F64 = field(default_factory=lambda: np.zeros(0))
    notes: tuple[str, ...] = ()  # notes for the user
    problem: str = ""  # reason why the clip was not predicted
    trained_on: bool = False  # True for a clip of the model's training data
    # JSON values: ``content`` (digest of the file's bytes), ``duration`` in seconds, mvemo's
    # ``version``, the ``date`` of reading and the ``seconds`` that reading took.
    facts: Mapping[str, Any] = field(default_factory=dict)


def predictor_of(model: FinalModel, vectors: Collection[FeatureKey]) -> Predictor | None:
    """Return the best predictor for a clip with these features, or None."""
    lacking = {spec.name for spec in model.specs if (spec.name, spec.fold) not in vectors}
    return model.best_of({spec.name for spec in model.specs} - lacking)


def unlikeness(
    model: FinalModel, predictor: Predictor, vectors: Mapping[FeatureKey, F64]
) -> list[str]:
    """Return a note if a clip, with vectors (1, dim), is unlike the training clips."""
    ratios = distances(model, predictor, vectors)
    far = {name: float(ratio[0]) for name, ratio in ratios.items() if ratio[0] > 1}
    if not far:
        return []
    listed = ", ".join(f"{name} {ratio:.1f}" for name, ratio in far.items())
    return [
        f"unlike the clips that the model was made of (distance over the largest usual one: "
        f"{listed}): do not rely on it"
    ]
