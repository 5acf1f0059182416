"""Predictions of new clips: read a few at a time, then predicted by a model's heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mvemo.cache.storage.files import code_version
from mvemo.extract.media.checks import IN_WORDS, reasons_text
from mvemo.fuse.arrays import F64
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.final.predicting import predict_clips, standardise_folders
from mvemo.fuse.matrices.within_groups import MIN_CLIPS, groups_within
from mvemo.fuse.metrics.averages import complete
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction.batches import BatchReader, EmbeddedClip
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.predictions import (
    Prediction,
    predictor_of,
    unlikeness,
)

MODALITIES = ("audio", "video")


@dataclass(frozen=True)
class PredictSettings:
    """How clips are predicted.

    Parameters
    ----------
    modalities
        What is read of the files, where they have it.
    weights
        Files of pretrained weights by net, where they are not fetched ones.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    modalities: tuple[str, ...] = MODALITIES
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"


def predict_files(
    folder: Path,
    clips: Sequence[NewClip],
    settings: PredictSettings,
    catalogue: Path | None = None,
    on_clip: Callable[[FinalModel, Prediction], object] = lambda model, prediction: None,
) -> tuple[FinalModel, list[Prediction]]:
    """Predict clips by a model folder."""
    model = load_model(folder)
    maker = FeatureMaker(model, folder, settings.weights, settings.device)
    predictions: dict[int, Prediction] = {}

    def note(row: int, prediction: Prediction) -> None:
        predictions[row] = prediction
        on_clip(model, prediction)

    for row, clip in enumerate(clips):
        if clip.problem:
            note(row, Prediction(clip.file, problem=clip.problem))
    readable = {row: clip for row, clip in enumerate(clips) if not clip.problem}
    if readable:
        ways = find_ways(maker, settings.modalities)
        reader = BatchReader(maker, tuple(dict.fromkeys(n for way in ways for n in way.features)))
        waiting: dict[int, EmbeddedClip] = {}
        with nullcontext(reader) if catalogue is None else Catalogue(catalogue, reader) as source:
            for batch in source.read(readable):
                if model.within_groups:
                    # A folder's clips are needed together.
                    waiting.update(batch)
                    continue
                for row, embedded in batch:
                    note(row, _predict(maker, settings.modalities, embedded, embedded.vectors))
        for row, scaled, notes in _within_folders(model, waiting) if waiting else ():
            note(row, _predict(maker, settings.modalities, waiting[row], scaled, notes))
    return model, [predictions[row] for row in range(len(clips))]


def _within_folders(
    model: FinalModel, clips: Mapping[int, EmbeddedClip]
) -> Iterator[tuple[int, dict[FeatureKey, F64], list[str]]]:
    """Yield vectors that are standardised within the clips of each folder, and notes."""
    rows, folders = list(clips), [str(c.clip.path.parent) for c in clips.values()]
    scaled: dict[FeatureKey, F64] = {}
    large = np.ones(len(rows), dtype=np.bool_)
    for key, reference in model.reference.items():
        nothing = np.full(len(reference.mean), np.nan)
        x = np.array([clips[row].vectors.get(key, nothing) for row in rows]).reshape(len(rows), -1)
        scaled |= standardise_folders(model, {key: x}, folders)
        large &= groups_within(complete(x), folders)
    for n, row in enumerate(rows):
        note = (
            f"the model compares clips within a group, and this folder has fewer than "
            f"{MIN_CLIPS}: expect less of it than its scores say"
        )
        yield row, {key: x[n] for key, x in scaled.items()}, [] if large[n] else [note]


def _predict(
    maker: FeatureMaker,
    modalities: tuple[str, ...],
    embedded: EmbeddedClip,
    scaled: Mapping[FeatureKey, F64],
    more: Sequence[str] = (),
) -> Prediction:
    """Predict a clip by its vectors, `scaled` as the heads read them."""
    model, clip = maker.model, embedded.clip
    facts = {
        "content": embedded.content or None,
        "duration": round(embedded.windows.length, 3) or None,
        "version": code_version(),
        "date": embedded.date.isoformat(timespec="seconds"),
        "seconds": round(embedded.seconds, 3),
    }
    predictor = None if embedded.problem else predictor_of(model, embedded.vectors)
    if predictor is None:
        problem = embedded.problem or _unpredicted(model, embedded)
        return Prediction(clip.file, problem=problem, facts=facts)
    keys = [key for key in embedded.vectors if key[0] in predictor.features]
    outputs = predict_clips(model, predictor, {key: scaled[key][None] for key in keys})[0]
    notes = [*embedded.windows.notes, *_fallback_notes(maker, modalities, embedded, predictor)]
    trained_on = model.trained_on(embedded.content, clip.start, clip.duration)
    if not trained_on:
        notes += unlikeness(model, predictor, {key: embedded.vectors[key][None] for key in keys})
    return Prediction(
        clip.file, predictor, outputs, (*notes, *more), trained_on=trained_on, facts=facts
    )


def _fallback_notes(
    maker: FeatureMaker,
    modalities: tuple[str, ...],
    embedded: EmbeddedClip,
    predictor: Predictor,
) -> list[str]:
    """Return why the best predictor of the model does not predict a clip."""
    best = maker.model.best(modalities)
    if best is None or best.name == predictor.name:
        return []
    notes = [
        f"without {name}: {maker.unavailable[name]}"
        for name in best.features
        if name in maker.unavailable
    ]
    used = " and ".join(IN_WORDS[m] for m in predictor.modalities)
    lacking = {m: embedded.reasons.get(m, "not read") for m in best.modalities}
    reasons = [
        f"{IN_WORDS[m]}: {reason}"
        for m, reason in lacking.items()
        if m not in predictor.modalities and reason
    ]
    if reasons:
        notes.append(f"from {used} alone ({'; '.join(reasons)})")
    return notes


def _unpredicted(model: FinalModel, embedded: EmbeddedClip) -> str:
    """Return why no predictor of the model can predict a clip."""
    reasons = [f"{IN_WORDS[m]}: {reason}" for m, reason in embedded.reasons.items() if reason]
    if len(reasons) < len(embedded.reasons):
        smallest = min(model.predictors, key=lambda p: len(p.modalities))
        needed = " and ".join(IN_WORDS[m] for m in smallest.modalities)
        reasons.insert(0, f"the model needs {needed}")
    return "; ".join(reasons)


def find_ways(maker: FeatureMaker, modalities: tuple[str, ...]) -> list[Predictor]:
    """The predictors that clips with some of these modalities may need, their nets loaded."""
    ways = maker.predictors(modalities)
    if not ways:
        wanted = " and ".join(IN_WORDS[m] for m in modalities)
        needed = dict.fromkeys(IN_WORDS[m] for p in maker.model.predictors for m in p.modalities)
        raise BadOption(
            f"{maker.folder}: cannot predict from {wanted} alone: it needs {' and '.join(needed)}"
        )
    return ways


def predict_vectors(
    maker: FeatureMaker,
    file: str,
    vectors: Mapping[FeatureKey, F64],
    problems: Mapping[str, object],
) -> Prediction:
    """The prediction of a clip by what there is of its features."""
    model = maker.model
    predictor = predictor_of(model, vectors)
    if predictor is None:
        reasons = reasons_text(problems) or "nothing that the model could read"
        return Prediction(file, problem=reasons)
    rows = {key: vector[None] for key, vector in vectors.items() if key[0] in predictor.features}
    notes = unlikeness(model, predictor, rows)
    scaled = standardise_folders(model, rows, [file])
    return Prediction(file, predictor, predict_clips(model, predictor, scaled)[0], tuple(notes))
