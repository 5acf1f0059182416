"""Predictions of new clips: read in batches, then predicted by a model's heads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mvemo.cache.schema import code_version
from mvemo.extract.media.checks import IN_WORDS, reasons_text
from mvemo.extract.workers.handle import peak_memory
from mvemo.extract.workers.pool import cores, worker_memory
from mvemo.fuse.arrays import F64
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.final.predicting import predict_clips, standardise_folders
from mvemo.fuse.matrices.scaling import MIN_CLIPS, groups_within
from mvemo.fuse.metrics.averages import complete
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction.batches import (
    BATCH,
    MOST_WORKERS,
    BatchReader,
    EmbeddedClip,
    windows_of,
)
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.predictions import Prediction, predictor_of, unlikeness
from mvemo.pipeline.work_folder import size_text


@dataclass(frozen=True)
class PredictSettings:
    """Settings of predictions.

    Parameters
    ----------
    modalities
        Modalities to read from files that have them.
    weights
        Files of pretrained weights by net; other nets use fetched ones.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    modalities: tuple[str, ...] = ("audio", "video")
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"


def predict_files(
    folder: Path,
    clips: Sequence[NewClip],
    settings: PredictSettings,
    catalogue: Path | None = None,
    on_clip: Callable[[FinalModel, Prediction], object] = lambda model, prediction: None,
) -> tuple[FinalModel, list[Prediction]]:
    """Predict clips with a model folder; return the model and one prediction for each clip.

    Clips in the `catalogue` are not read again. `on_clip` is called with the model and each
    prediction when it is known, in any order. An unreadable file costs only its own prediction.
    """
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
        reader = _reader(maker, settings.modalities)
        waiting: dict[int, EmbeddedClip] = {}
        with nullcontext(reader) if catalogue is None else Catalogue(catalogue, reader) as source:
            for batch in source.read(readable):
                if model.within_groups:
                    # Standardising needs all clips of a folder.
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
    """Yield row, standardised vectors and notes of each clip; groups are folders."""
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
    """Predict a clip from its vectors, standardised in `scaled`."""
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
        problem = embedded.problem or _unpredicted_reason(model, embedded)
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
    """Return notes on why the model's best predictor was not used for a clip."""
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


def _unpredicted_reason(model: FinalModel, embedded: EmbeddedClip) -> str:
    """Return the reason why no predictor of the model can predict a clip."""
    reasons = [f"{IN_WORDS[m]}: {reason}" for m, reason in embedded.reasons.items() if reason]
    if len(reasons) < len(embedded.reasons):
        smallest = min(model.predictors, key=lambda p: len(p.modalities))
        needed = " and ".join(IN_WORDS[m] for m in smallest.modalities)
        reasons.insert(0, f"the model needs {needed}")
    return "; ".join(reasons)


def find_ways(maker: FeatureMaker, modalities: tuple[str, ...]) -> list[Predictor]:
    """Return the predictors for clips with these modalities, with loaded nets; raise if none."""
    ways = maker.predictors(modalities)
    if not ways:
        wanted = " and ".join(IN_WORDS[m] for m in modalities)
        needed = dict.fromkeys(IN_WORDS[m] for p in maker.model.predictors for m in p.modalities)
        raise BadOption(
            f"{maker.folder}: cannot predict from {wanted} alone: it needs {' and '.join(needed)}"
        )
    return ways


def _reader(maker: FeatureMaker, modalities: tuple[str, ...]) -> BatchReader:
    """Return a reader of the features that the predictors for these modalities need."""
    names = (name for way in find_ways(maker, modalities) for name in way.features)
    return BatchReader(maker, tuple(dict.fromkeys(names)))


def predict_vectors(
    maker: FeatureMaker,
    file: str,
    vectors: Mapping[FeatureKey, F64],
    problems: Mapping[str, object],
) -> Prediction:
    """Predict a clip from its available features; `problems` explain missing modalities."""
    model = maker.model
    predictor = predictor_of(model, vectors)
    if predictor is None:
        reasons = reasons_text(problems) or "nothing that the model could read"
        return Prediction(file, problem=reasons)
    rows = {key: vector[None] for key, vector in vectors.items() if key[0] in predictor.features}
    notes = unlikeness(model, predictor, rows)
    scaled = standardise_folders(model, rows, [file])
    return Prediction(file, predictor, predict_clips(model, predictor, scaled)[0], tuple(notes))


def plan_text(folder: Path, clips: Sequence[NewClip], settings: PredictSettings) -> str:
    """Return a text with the time and the memory that predicting clips needs."""
    maker = FeatureMaker(load_model(folder), folder, settings.weights, settings.device)
    reader = _reader(maker, settings.modalities)
    found = {i: windows_of(clip, reader.window) for i, clip in enumerate(clips) if not clip.problem}
    # Seconds to read of each clip.
    lengths = {
        i: sum(min(duration or w.length, reader.window) for _, duration in w.stretches)
        for i, w in found.items()
        if not w.problem
    }
    lines = [f"clips: {len(clips)}, {len(clips) - len(lengths)} of them cannot be read"]
    if lengths:
        by_length = sorted(lengths, key=lambda i: lengths[i])
        places = np.linspace(0, len(by_length) - 1, min(BATCH, len(by_length)))
        chosen = [by_length[round(place)] for place in places]
        with silenced():
            # The start-up cost is not measured.
            list(reader.read({i: clips[i] for i in chosen[-1:]}))
            start = time.perf_counter()
            list(reader.read({i: clips[i] for i in chosen}))
        seconds = time.perf_counter() - start
        total, sampled = sum(lengths.values()), sum(lengths[i] for i in chosen)
        lines += [
            f"length: {duration_text(total)} are read",
            f"time: about {duration_text(seconds * total / sampled)} (measured on {len(chosen)})",
            f"memory: about {size_text(peak_memory(os.getpid()))}, and "
            f"{size_text(worker_memory())} in each of {min(cores(), MOST_WORKERS)} workers, "
            "however many clips there are",
        ]
    return "\n".join(lines)
