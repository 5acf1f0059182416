"""Predictions from vectors and of feature files, and their table in the terminal.

This module does not need media packages, and imports h5py only to read a feature file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.fuse import numeric, tasks
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction, Record
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import (
    FeatureKey,
    FinalModel,
    Predictor,
    Vectors,
    predict_clips,
    standardise_folders,
)
from mvemo.fuse.final.model_files import load_model
from mvemo.fuse.final.reference import unlikeness
from mvemo.manifests.array_types import F64
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.models import boxed

if TYPE_CHECKING:
    from mvemo.cache import Cache
    from mvemo.fuse.conformal import Asked


def complete_features(model: FinalModel, vectors: Collection[FeatureKey]) -> set[str]:
    """Return the features of a model that a clip has, from the nets of all folds."""
    names = {spec.name for spec in model.specs}
    return names - {spec.name for spec in model.specs if (spec.name, spec.fold) not in vectors}


def predict_vectors(
    model: FinalModel,
    predictor: Predictor,
    clip: ClipPrediction,  # path, notes, cautions and facts of the clip
    vectors: Vectors,
    scaled: Vectors | None = None,
) -> ClipPrediction:
    """Predict a clip from vectors (dim,); `scaled` has them standardised within its group."""
    rows = {key: x[None] for key, x in vectors.items() if key[0] in predictor.features}
    if scaled is None:
        inputs = standardise_folders(model, rows, [clip.path])
    else:
        inputs = {key: scaled[key][None] for key in rows}
    outputs = predict_clips(model, predictor, inputs)[0]
    clip = replace(clip, plane=_plane(model, vectors))
    if Caution.TRAINED_ON in clip.cautions:
        clip = replace(clip, notes=(Caution.TRAINED_ON.text, *clip.notes))
    else:
        ratios, is_copy = unlikeness(model, predictor, rows)
        if np.isfinite(ratios[0]):
            clip = replace(clip, unlikeness=float(ratios[0]))
        clip = clip.warned(Caution.UNLIKE) if ratios[0] > 1 else clip
        clip = clip.warned(Caution.COPY) if is_copy[0] else clip
        clip = _ask_a_person(model, predictor, clip, outputs)
    return format_of(model).predicted(clip, predictor, outputs)


def _plane(model: FinalModel, vectors: Vectors) -> dict[str, float]:
    """Return valence and arousal by the model's companion, or {}."""
    companion = boxed.companion_of(model)
    if companion is None:
        return {}
    predictor = companion.best_of(complete_features(companion, vectors))
    if predictor is None:
        return {}
    rows = {key: x[None] for key, x in vectors.items() if key[0] in predictor.features}
    values = predict_clips(companion, predictor, rows)[0]
    return {
        name: float(np.clip(value, *companion.ends(name)))
        for name, value in zip(companion.classes, values, strict=True)
    }


def _ask_a_person(
    model: FinalModel, predictor: Predictor, clip: ClipPrediction, outputs: F64
) -> ClipPrediction:
    """If a coverage was asked for, add a note to clips that a person should label."""
    if model.coverage is None:
        return clip
    reasons = []
    if model.limit(predictor) is None:
        reasons.append(f"{predictor.name} was not evaluated, so it has no thresholds")
    elif model.task != "regression":
        n, n_all = len(format_of(model).members(predictor, outputs) or ()), len(outputs)
        nouns = tasks.task_of(model.task).output_nouns[1]
        reasons += [f"the set has {n} of {n_all} {nouns}"] * (2 * n > n_all)
    if Caution.UNLIKE in clip.cautions:
        reasons.append("the clip is unlike the training clips, so the coverage is not known")
    clip = clip.warned(Caution.ASK, "; ".join(reasons)) if reasons else clip
    few = model.few_groups(predictor)
    return replace(clip, notes=(*clip.notes, few)) if few else clip


def predict_features(
    name: str | None, features: Path, modalities: Collection[str], coverage: Asked | None = None
) -> tuple[FinalModel, list[ClipPrediction]]:
    """Predict the clips of a feature file, in its order, from features of these modalities.

    `name` is the name of a model or its folder; None for the default model.
    """
    from mvemo.cache import open_cache
    from mvemo.fuse.features import statistics_vectors
    from mvemo.pipeline.clips.clip_tables import paths_of_cache

    with open_cache(features) as cache:
        read = {spec.modality for spec in cache.specs}.intersection(modalities)
        model = load_model(boxed.pick_model(name, ["video" in read]), coverage)
        specs = [spec for spec in model.specs if spec.modality in modalities]
        stored = {spec.digest for spec in cache.specs}
        # float64 (clips, dim), NaN if missing.
        vectors: dict[FeatureKey, F64] = {}
        for spec in specs:
            sequences = spec.params.get("descriptors", {})
            if spec.digest in stored:
                values = cache.vectors(spec.name, spec.fold)[0]
            elif sequences and stored.issuperset(sequences.values()):
                values = statistics_vectors(cache, spec)
            else:
                continue
            vectors[spec.name, spec.fold] = values.astype(np.float64)
        if model.best_of(complete_features(model, vectors)) is None:
            needed = dict.fromkeys(spec.name for spec in specs)
            raise BadFeatures(
                f"{features}: expected the features {', '.join(needed)} with the settings of the "
                f"model {model.name}, got {', '.join(cache.names()) or 'none'} with other "
                "settings: extract with the model's settings, or predict from the media files"
            )
        paths = paths_of_cache(cache)
        if not paths:
            tell_note(f"{features}: the paths of its clips are not known: 'path' has their ids")
        with threadpool_limits(1, "blas"):
            found = _predict(model, cache, vectors)
        return model, [replace(p, path=paths.get(p.path, p.path)) for p in found]


def _predict(model: FinalModel, cache: Cache, vectors: Vectors) -> list[ClipPrediction]:
    finite = {key: numeric.complete(values) for key, values in vectors.items()}
    scaled = standardise_folders(model, vectors, cache.table.groups)
    seen, reasons = _training_clips(model, cache), defaultdict[str, list[str]](list)
    for failure in cache.failures:
        reasons[failure.clip_id].append(failure.reason)
    predictions = []
    for row, clip_id in enumerate(cache.table.clip_ids):
        names = complete_features(model, {key for key in finite if finite[key][row]})
        predictor = model.best_of(names)
        if predictor is None:
            problem = "; ".join(reasons[clip_id]) or "it has no features that the model reads"
            predictions.append(ClipPrediction(clip_id, error=problem))
            continue
        missing = ", ".join(name for name in model.predictors[0].features if name not in names)
        note = f"predicted without {missing}, which the feature file lacks"
        learned = (Caution.TRAINED_ON,) * (clip_id in seen)
        clip = ClipPrediction(clip_id, cautions=learned, notes=(note,) * bool(missing))
        unscaled, within = ({key: x[row] for key, x in of.items()} for of in (vectors, scaled))
        predictions.append(predict_vectors(model, predictor, clip, unscaled, within))
    return predictions


def _training_clips(model: FinalModel, cache: Cache) -> set[str]:
    """Return the ids of the clips that the model's heads were fitted on."""
    ids = cache.table.clip_ids
    return {
        clip_id
        for spec in cache.specs
        if spec.digest in model.digests
        for clip_id, key in zip(ids, cache.keys(spec.name, spec.fold).tolist(), strict=True)
        if model.knows(key)
    }


def unpredicted(file: str, problem: str) -> tuple[str, list[Record]]:
    """Return the message and the single record of a file without a timeline."""
    return f"not predicted: {file}: {problem}", [ClipPrediction(file, error=problem).record()]
