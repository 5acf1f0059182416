"""Predictions of new clips, which are read in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache.schema import code_version
from mvemo.extract.media.request import IN_WORDS
from mvemo.extract.workers import pool, process
from mvemo.fuse.final.model import (
    FeatureKey,
    FinalModel,
    Predictor,
    Vectors,
    predict_clips,
    standardise_folders,
)
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.scaling import MIN_CLIPS, groups_within
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.prediction import embedding, new_clips, passes
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.embedding import BatchReader, EmbeddedClip
from mvemo.pipeline.prediction.feature_maker import FeatureMaker, PredictSettings
from mvemo.pipeline.prediction.predictions import Prediction, predictor_of, trust_notes
from mvemo.pipeline.work_folder import size_text


def predict_files(
    folder: Path,
    clips: Sequence[new_clips.NewClip],
    settings: PredictSettings,
    catalogue: Path | None = None,
    on_clip: Callable[[FinalModel, Prediction], object] = lambda model, prediction: None,
) -> tuple[FinalModel, list[Prediction]]:
    """Predict clips, also from a `catalogue`; call `on_clip` with each finished prediction."""
    maker = FeatureMaker(folder, settings)
    predictions: dict[int, Prediction] = {}

    def note(row: int, prediction: Prediction) -> None:
        predictions[row] = prediction
        on_clip(maker.model, prediction)

    for row, clip in enumerate(clips):
        if clip.problem:
            note(row, Prediction(clip.file, problem=clip.problem))
    readable = {row: clip for row, clip in enumerate(clips) if not clip.problem}
    if readable:
        reader = BatchReader(maker)
        waiting: dict[int, EmbeddedClip] = {}
        source = reader if catalogue is None else Catalogue(catalogue, reader)
        with closing(source.read(readable)) as found:
            for batch in found:
                if maker.model.within_groups:
                    # Standardising a clip needs all clips of its folder.
                    waiting.update(batch)
                    continue
                for row, embedded in batch:
                    note(row, predict_clip(maker, embedded))
        for row, scaled, notes in _within_folders(maker.model, waiting) if waiting else ():
            note(row, predict_clip(maker, waiting[row], scaled, notes))
    return maker.model, [predictions[row] for row in range(len(clips))]


def _within_folders(
    model: FinalModel, clips: Mapping[int, EmbeddedClip]
) -> Iterator[tuple[int, Vectors, list[str]]]:
    """Yield row, standardised vectors and notes of each clip; each folder is a group."""
    rows, folders = list(clips), [str(c.clip.path.parent) for c in clips.values()]
    scaled: dict[FeatureKey, Any] = {}
    large = np.ones(len(rows), dtype=np.bool_)
    for key, reference in model.reference.items():
        nothing = np.full(len(reference.mean), np.nan)
        x = np.array([clips[row].vectors.get(key, nothing) for row in rows]).reshape(len(rows), -1)
        scaled |= standardise_folders(model, {key: x}, folders)
        large &= groups_within(complete(x), folders)
    for n, row in enumerate(rows):
        note = (
            f"the model compares the clips of a folder, but this folder has fewer than "
            f"{MIN_CLIPS}: predictions are worse than the model's scores suggest"
        )
        yield row, {key: x[n] for key, x in scaled.items()}, [] if large[n] else [note]


def predict_clip(
    maker: FeatureMaker,
    embedded: EmbeddedClip,
    scaled: Vectors | None = None,
    more: Sequence[str] = (),
) -> Prediction:
    """Predict a clip or a window; `scaled` has its vectors standardised within its group."""
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
    vectors = {key: embedded.vectors[key][None] for key in keys}
    if scaled is None:
        rows = standardise_folders(model, vectors, [clip.file])
    else:
        rows = {key: scaled[key][None] for key in keys}
    outputs = predict_clips(model, predictor, rows)[0]
    trained_on = model.trained_on(embedded.content, clip.start, clip.duration)
    notes = [*embedded.windows.notes, *_fallback_notes(maker, embedded, predictor)]
    trust = trust_notes(model, predictor, vectors, trained_on)
    notes = [*trust, *notes, *more] if trained_on else [*notes, *trust, *more]
    return Prediction(
        clip.file, predictor, outputs, tuple(notes), trained_on=trained_on, facts=facts
    )


def predict_window(
    maker: FeatureMaker, clip_pass: passes.ClipPass, file: str, vectors: Vectors
) -> Prediction:
    """Predict a window of a clip during a pass over it; `file` is the name to show."""
    length = clip_pass.plan.seconds
    windows = new_clips.Windows(notes=new_clips.short_notes(length), length=length)
    reasons = {m: str(clip_pass.problems.get(m, "")) for m in maker.options.modalities}
    clip = replace(clip_pass.clip, file=file)
    embedded = EmbeddedClip(clip, windows, clip_pass.content, vectors, reasons)
    return predict_clip(maker, embedded)


def _fallback_notes(maker: FeatureMaker, embedded: EmbeddedClip, predictor: Predictor) -> list[str]:
    """Return notes that say why the model's best predictor was not used for a clip."""
    best = maker.model.best(maker.options.modalities)
    if best is None or best.name == predictor.name:
        return []
    notes = [
        f"predicted without {name}: {maker.unavailable[name]}"
        for name in best.features
        if name in maker.unavailable
    ]
    reasons = [
        f"{IN_WORDS[m]}: {reason}"
        for m in best.modalities
        if m not in predictor.modalities and (reason := embedded.reasons.get(m, "not read"))
    ]
    if reasons:
        used = " and ".join(IN_WORDS[m] for m in predictor.modalities)
        notes.append(f"predicted only from {used} ({'; '.join(reasons)})")
    return notes


def _unpredicted_reason(model: FinalModel, embedded: EmbeddedClip) -> str:
    """Return the reason why no predictor of the model can predict a clip."""
    reasons = [f"{IN_WORDS[m]}: {reason}" for m, reason in embedded.reasons.items() if reason]
    if len(reasons) < len(embedded.reasons):
        smallest = min(model.predictors, key=lambda p: len(p.modalities))
        needed = " and ".join(IN_WORDS[m] for m in smallest.modalities)
        reasons.insert(0, f"the model needs {needed}")
    return "; ".join(reasons) or "the clip has nothing that the model can read"


def plan_text(folder: Path, clips: Sequence[new_clips.NewClip], settings: PredictSettings) -> str:
    """Return an estimate of the time and the memory that predicting these clips needs."""
    reader = BatchReader(FeatureMaker(folder, settings))
    # Seconds of media to read from each clip.
    lengths: dict[int, float] = {}
    for i, clip in enumerate(clips):
        if clip.problem:
            continue
        windows = new_clips.windows_of(clip, reader.window)
        if not windows.problem:
            stretches = (min(d or windows.length, reader.window) for _, d in windows.stretches)
            lengths[i] = sum(stretches)
    lines = [f"clips: {len(clips)}, {len(clips) - len(lengths)} of them cannot be read"]
    if lengths:
        from mvemo.pipeline.stage_one.estimate import time_sample

        count, seconds, _ = time_sample(
            lengths,
            lambda rows: list(reader.read({row: clips[row] for row in rows})),
            embedding.BATCH,
        )
        lines += [
            f"media to read: {duration_text(sum(lengths.values()))}",
            f"time: about {duration_text(seconds)} (measured on {count} clips)",
            f"memory: about {size_text(process.peak_memory(os.getpid()))}, and "
            f"{size_text(pool.worker_memory())} in each of "
            f"{min(pool.cores(), embedding.MOST_WORKERS)} workers, for any number of clips",
        ]
    return "\n".join(lines)
