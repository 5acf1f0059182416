"""Predictions of clips, and of feature files; this module needs no media packages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache import Cache, FeatureSpec, open_cache
from mvemo.fuse.arrays import F64
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor, stored_as
from mvemo.fuse.final.predicting import Vectors, distances, predict_clips, standardise_folders
from mvemo.fuse.matrices.descriptor_statistics import DescriptorStatistics, statistics_of
from mvemo.fuse.metrics.averages import complete


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


def predict_features(
    folder: Path, features: Path, modalities: Collection[str]
) -> tuple[FinalModel, list[Prediction]]:
    """Predict the clips of a feature file, in its order, with a model folder.

    Features of other modalities are ignored. Raises `BadFeatures` if the file lacks the features
    of every predictor, or has them with other settings than the model.
    """
    model = load_model(folder)
    with open_cache(features) as cache:
        specs = [spec for spec in model.specs if spec.modality in modalities]
        vectors = {(s.name, s.fold): v for s in specs for v in _vectors(cache, s)}
        names = {n for n, _ in vectors if all((n, s.fold) in vectors for s in model.variants(n))}
        if model.best_of(names) is None:
            needed = dict.fromkeys(spec.name for spec in specs)
            raise BadFeatures(
                f"{features}: expected the features {', '.join(needed)} with the settings of the "
                f"model {model.name}, got {', '.join(cache.names()) or 'none'} with others: "
                "extract with those settings, or predict the media themselves"
            )
        return model, _predict(model, cache, vectors)


def _vectors(cache: Cache, spec: FeatureSpec) -> Iterator[F64]:
    """Yield a feature if the cache has it: float64 (clips, dim), missing rows are NaN."""
    stored = {s.digest: s for s in cache.specs}
    if spec.digest in stored:
        yield cache.vectors(spec.name, spec.fold)[0].astype(np.float64)
    elif set(spec.params.get("descriptors", {"": ""}).values()) <= set(stored):
        statistics = DescriptorStatistics(cache, spec.params["order"], statistics_of(spec))
        yield statistics.vectors()[0].astype(np.float64)


def _predict(model: FinalModel, cache: Cache, vectors: Vectors) -> list[Prediction]:
    table, none = cache.table, np.zeros(len(cache.table), dtype=np.bool_)
    finite = {key: complete(values) for key, values in vectors.items()}
    scaled = standardise_folders(model, vectors, table.groups)
    seen, reasons = _training_clips(model, cache), dict[str, list[str]]()
    for failure in cache.failures:
        reasons.setdefault(failure.clip_id, []).append(failure.reason)
    predictions = []
    for row, clip_id in enumerate(table.clip_ids):
        lacking = {s.name for s in model.specs if not finite.get((s.name, s.fold), none)[row]}
        predictor = model.best_of({spec.name for spec in model.specs} - lacking)
        if predictor is None:
            problem = "; ".join(reasons.get(clip_id, ["no features that the model reads"]))
            predictions.append(Prediction(clip_id, problem=problem))
            continue
        keys = [key for key in vectors if key[0] in predictor.features]
        outputs = predict_clips(model, predictor, {key: scaled[key][row][None] for key in keys})[0]
        trained_on, of_clip = clip_id in seen, {key: vectors[key][row][None] for key in keys}
        notes = [] if trained_on else unlikeness(model, predictor, of_clip)
        missing = [name for name in model.predictors[0].features if name in lacking]
        if missing:
            notes.insert(0, f"without {', '.join(missing)}, which the feature file lacks")
        predictions.append(
            Prediction(clip_id, predictor, outputs, tuple(notes), trained_on=trained_on)
        )
    return predictions


def _training_clips(model: FinalModel, cache: Cache) -> set[str]:
    """Return the ids of the clips that the model's heads were fitted on."""
    seen: set[str] = set()
    digests = {stored_as(spec)[1] for spec in model.specs}
    for spec in (spec for spec in cache.specs if spec.digest in digests):
        keys = cache.keys(spec.name, spec.fold).tolist()
        known = set(model.training_keys.tolist())
        ids = zip(cache.table.clip_ids, keys, strict=True)
        seen.update(clip for clip, key in ids if key and int(key[:16], 16) in known)
    return seen
