"""Predictions of new clips, which are read in batches.

Modules that import PyTorch are imported only when a clip is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.cache.schema import code_version
from mvemo.extract.media.request import IN_WORDS, in_words
from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction
from mvemo.fuse.final.model import FinalModel, Predictor, Vectors, standardise_folders
from mvemo.fuse.numeric import complete
from mvemo.fuse.scaling import MIN_CLIPS, groups_within
from mvemo.pipeline.prediction import new_clips
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import EmbeddedClip, PredictSettings
from mvemo.pipeline.prediction.predictions import complete_features, predict_vectors

if TYPE_CHECKING:
    from mvemo.pipeline.prediction.embedding import BatchReader
    from mvemo.pipeline.prediction.spread import SpreadReader
    from mvemo.pipeline.prediction.windows import ClipWindows


def predict_files(
    folder: Path,
    clips: Sequence[new_clips.NewClip],
    settings: PredictSettings,
    catalogue: Path | None = None,
    on_clip: Callable[[FinalModel, ClipPrediction], object] | None = None,
    spread: tuple[int, str] | None = None,
) -> tuple[FinalModel, list[ClipPrediction]]:
    """Predict clips, also from a `catalogue`; call `on_clip` with each finished prediction.

    `spread` is (number of processes, address of a Dask scheduler or ''), to read new clips.
    """
    maker = FeatureMaker(folder, settings)
    predictions = {}

    def note(row: int, prediction: ClipPrediction) -> None:
        predictions[row] = prediction
        if on_clip is not None:
            on_clip(maker.model, prediction)

    def reader_of(maker: FeatureMaker) -> BatchReader | SpreadReader:
        if spread is not None:
            from mvemo.pipeline.prediction.spread import SpreadReader

            return SpreadReader(maker, *spread)
        if catalogue is not None:
            new_clips.warm_up(folder, settings)
        from mvemo.pipeline.prediction.embedding import BatchReader

        return BatchReader(maker, one_by_one=on_clip is not None)

    for row, clip in enumerate(clips):
        if clip.problem:
            note(row, ClipPrediction(clip.file, error=clip.problem))
    readable = {row: clip for row, clip in enumerate(clips) if not clip.problem}
    if readable:
        waiting: dict[int, EmbeddedClip] = {}
        source = Catalogue(catalogue, maker, reader_of=reader_of) if catalogue else reader_of(maker)
        # Matrix products of single clips are too small for several threads.
        with threadpool_limits(1, "blas"), closing(source.read(readable)) as found:
            for batch in found:
                if maker.model.within_groups:
                    # A clip can only be standardised together with all clips of its folder.
                    waiting.update(batch)
                    continue
                for row, embedded in batch:
                    note(row, predict_clip(maker, embedded))
            for row, prediction in _within_folders(maker, waiting).items():
                note(row, prediction)
    return maker.model, [predictions[row] for row in range(len(clips))]


def _within_folders(
    maker: FeatureMaker, clips: Mapping[int, EmbeddedClip]
) -> dict[int, ClipPrediction]:
    """Predict clips by vectors that are standardised within each folder."""
    folders = [str(c.clip.path.parent) for c in clips.values()]
    vectors = {
        key: np.stack([c.vectors.get(key, np.full_like(r.mean, np.nan)) for c in clips.values()])
        for key, r in maker.model.reference.items()
        if clips
    }
    scaled = standardise_folders(maker.model, vectors, folders)
    large = np.all([groups_within(complete(x), folders) for x in vectors.values()], axis=0)
    predictions = {}
    for n, (row, clip) in enumerate(clips.items()):
        prediction = predict_clip(maker, clip, {key: x[n] for key, x in scaled.items()})
        if prediction.predictor is not None and not large[n]:
            note = (
                "the model compares the clips of a folder, but this folder has fewer than "
                f"{MIN_CLIPS}: predictions are worse than the model's scores suggest"
            )
            prediction = replace(prediction, notes=(*prediction.notes, note))
        predictions[row] = prediction
    return predictions


def predict_clip(
    maker: FeatureMaker, embedded: EmbeddedClip, scaled: Vectors | None = None
) -> ClipPrediction:
    """Predict a clip or a window; `scaled` has its vectors standardised within its group."""
    model, clip = maker.model, embedded.clip
    facts = {
        "content": embedded.content or None,
        "duration": round(embedded.windows.length, 3) or None,
        "version": code_version(),
        "date": embedded.date.isoformat(timespec="seconds"),
        "seconds": round(embedded.seconds, 3),
    }
    problem = embedded.problem
    predictor = model.best_of(() if problem else complete_features(model, embedded.vectors))
    if predictor is None:
        problem = problem or _unpredicted_reason(model, embedded)
        return ClipPrediction(clip.file, error=problem, facts=facts)
    is_learned = model.trained_on(embedded.content, clip.start, clip.duration)
    notes = (*embedded.windows.notes, *_fallback_notes(maker, embedded, predictor))
    cautions = (Caution.TRAINED_ON,) * is_learned
    prediction = ClipPrediction(clip.file, cautions=cautions, notes=notes, facts=facts)
    return predict_vectors(model, predictor, prediction, embedded.vectors, scaled)


def predict_window(
    maker: FeatureMaker, read: ClipWindows, file: str, vectors: Vectors
) -> ClipPrediction:
    """Predict a window of a clip from its vectors; `file` is the name to show."""
    length = read.plan.seconds
    windows = new_clips.Windows(notes=new_clips.short_notes(length), length=length)
    reasons = {m: str(read.problems.get(m, "")) for m in maker.options.modalities}
    clip = replace(read.clip, file=file)
    embedded = EmbeddedClip(clip, windows, read.content, vectors, reasons)
    return predict_clip(maker, embedded)


def _fallback_notes(maker: FeatureMaker, embedded: EmbeddedClip, predictor: Predictor) -> list[str]:
    """Return notes that say why the model's best predictor was not used for a clip."""
    best = maker.model.best(maker.options.modalities)
    if best is None or best.name == predictor.name:
        return []
    lost = [name for name in best.features if name in maker.unavailable]
    notes = [f"predicted without {name}: {maker.unavailable[name]}" for name in lost]
    reasons = [
        f"{IN_WORDS[m]}: {reason}"
        for m in best.modalities
        if m not in predictor.modalities and (reason := embedded.reasons.get(m, "not read"))
    ]
    if reasons:
        used = in_words(predictor.modalities)
        notes.append(f"predicted only from {used} ({'; '.join(reasons)})")
    return notes


def _unpredicted_reason(model: FinalModel, embedded: EmbeddedClip) -> str:
    """Return the reason why no predictor of the model can predict a clip."""
    reasons = [f"{IN_WORDS[m]}: {reason}" for m, reason in embedded.reasons.items() if reason]
    if len(reasons) < len(embedded.reasons):
        smallest = min(model.predictors, key=lambda p: len(p.modalities))
        reasons.insert(0, f"the model needs {in_words(smallest.modalities)}")
    return "; ".join(reasons) or "the clip has nothing that the model can read"
