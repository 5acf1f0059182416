"""Predictions of new clips: decoded, embedded and predicted a few at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mvemo.extract.nets import input_of
from mvemo.fuse.arrays import F64
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.final.predicting import predict_clips, standardise_folders
from mvemo.fuse.matrices.within_groups import MIN_CLIPS, groups_within
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.predictions import IN_WORDS, Prediction, unlikeness
from mvemo.pipeline.prediction.windows import Windows, input_seconds, windows_of

MODALITIES = ("audio", "video")
# Decoded media of more windows than these are never on the disk at a time.
BATCH = 24
# Worker processes take seconds to start, which few clips do not repay.
FEW = 8


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
    folder: Path, clips: Sequence[NewClip], settings: PredictSettings
) -> tuple[FinalModel, list[Prediction]]:
    """Predict clips by a model folder.

    Parameters
    ----------
    folder
        Of the model.
    clips
        Of `mvemo.pipeline.prediction.inputs.find_clips`.
    settings
        What is read, and by which weights.

    Returns
    -------
    The model, and one prediction for each clip; a file that cannot be read costs its own.

    Raises
    ------
    FuseError
        The folder has no model that can be read.
    BadOption
        The model has no way to predict from these modalities, or its nets are not here.
    """
    model = load_model(folder)
    maker = FeatureMaker(model, folder, settings.weights, settings.device)
    if all(clip.problem for clip in clips):
        return model, [Prediction(clip.file, problem=clip.problem) for clip in clips]
    ways = find_ways(maker, settings.modalities)
    features = tuple(dict.fromkeys(name for way in ways for name in way.features))
    seconds = input_seconds(input_of(plan) for plan in maker.plans(features))
    windows = [windows_of(clip, seconds) for clip in clips]
    predictions: dict[int, Prediction] = {
        row: Prediction(clips[row].file, problem=w.problem)
        for row, w in enumerate(windows)
        if w.problem
    }
    embedded: list[tuple[list[int], _Batch]] = []
    for rows in _batches(windows):
        with tempfile.TemporaryDirectory(prefix="mvemo-") as work:
            batch = _Batch(maker, features, settings.modalities, Path(work))
            batch.read([clips[row] for row in rows], [windows[row] for row in rows])
            batch.embed()
        if model.within_groups:
            # A folder's clips are needed together.
            embedded.append((rows, batch))
        else:
            predictions.update(zip(rows, batch.predict(), strict=True))
    folders = [str(clip.path.parent) for clip in clips]
    _standardise_folders(model, folders, embedded)
    for rows, batch in embedded:
        predictions.update(zip(rows, batch.predict(), strict=True))
    return model, [predictions[row] for row in range(len(clips))]


def _standardise_folders(
    model: FinalModel, folders: Sequence[str], embedded: Sequence[tuple[list[int], _Batch]]
) -> None:
    """Standardise what the heads read within the clips of each folder, over all batches."""
    places = [(batch, i, row) for rows, batch in embedded for i, row in enumerate(rows)]
    groups = [folders[row] for _, _, row in places]
    for key, reference in model.reference.items():
        x = np.full((len(places), len(reference.mean)), np.nan)
        for n, (batch, i, _) in enumerate(places):
            if i in batch.vectors.get(key, {}):
                x[n] = batch.vectors[key][i]
        scaled = standardise_folders(model, {key: x}, groups)[key]
        large = groups_within(np.isfinite(x).all(axis=1), groups)
        for n, (batch, i, _) in enumerate(places):
            batch.scaled.setdefault(key, {})[i] = scaled[n]
            if not large[n]:
                batch.lonely.add(i)


def find_ways(maker: FeatureMaker, modalities: tuple[str, ...]) -> list[Predictor]:
    """The predictors that clips with some of these modalities may need, their nets loaded.

    Raises
    ------
    BadOption
        The model has none, or their nets are not here.
    """
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
    """The prediction of a clip by what there is of its features.

    Parameters
    ----------
    maker
        Of the model.
    file
        As it is shown.
    vectors
        By feature and net: float64 (dim,).
    problems
        Modality to why the clip does not have it.
    """
    model = maker.model
    has = {
        spec.name
        for spec in model.specs
        if all((spec.name, other.fold) in vectors for other in model.variants(spec.name))
    }
    predictor = model.best_of(has)
    if predictor is None:
        reasons = [f"{IN_WORDS[m]}: {reason}" for m, reason in problems.items()]
        return Prediction(file, problem="; ".join(reasons) or "nothing that the model could read")
    rows = {key: vector[None] for key, vector in vectors.items() if key[0] in predictor.features}
    notes = unlikeness(model, predictor, rows)
    scaled = standardise_folders(model, rows, [file])
    return Prediction(file, predictor, predict_clips(model, predictor, scaled)[0], tuple(notes))


def _batches(windows: Sequence[Windows]) -> Iterator[list[int]]:
    """Rows of clips that are read together, in order."""
    rows: list[int] = []
    n = 0
    for row, of_clip in enumerate(windows):
        if of_clip.problem:
            continue
        if rows and n + len(of_clip.stretches) > BATCH:
            yield rows
            rows, n = [], 0
        rows.append(row)
        n += len(of_clip.stretches)
    if rows:
        yield rows


class _Batch:
    """Clips that are decoded, embedded and predicted together."""

    def __init__(
        self,
        maker: FeatureMaker,
        features: tuple[str, ...],
        modalities: tuple[str, ...],
        work: Path,
    ) -> None:
        self._maker, self._features = maker, features
        self._model, self._modalities, self._work = maker.model, modalities, work
        # By feature and net, clip to float64 (dim,): as made, and within folders.
        self.vectors: dict[FeatureKey, dict[int, F64]] = {}
        self.scaled: dict[FeatureKey, dict[int, F64]] = {}
        self.lonely: set[int] = set()

    def read(self, clips: Sequence[NewClip], windows: Sequence[Windows]) -> None:
        """Decode all windows of the clips."""
        self._clips, self._windows = clips, windows
        self._rows: list[list[int]] = []
        stretches: list[Clip] = []
        for clip, of_clip in zip(clips, windows, strict=True):
            first = len(stretches)
            for start, duration in of_clip.stretches:
                path = str(clip.path.absolute())
                name = str(len(stretches))
                stretches.append(Clip(name, path, (), name, start, duration))
            self._rows.append(list(range(first, len(stretches))))
        maker = self._maker
        extract = replace(maker.settings.extract, workers=1 if len(stretches) < FEW else 0)
        self._media = ClipMedia(
            Manifest("predict", "multilabel", (), tuple(stretches), Path()),
            replace(maker.settings, extract=extract),
            self._work,
            plans=maker.plans(self._features),
            descriptors=maker.descriptors(self._features),
            require_any=False,
        )
        self._contents = [self._media.digests[str(rows[0])] for rows in self._rows]

    def embed(self) -> None:
        """Choose what predicts each clip, and make its vectors: no media are needed then."""
        usable = {name: set(self._maker.has(name, self._media)) for name in self._features}
        self._chosen = [self._choose(rows, usable) for rows in self._rows]
        self.vectors = self._embed(self._chosen, usable)

    def predict(self) -> list[Prediction]:
        """One prediction for each clip."""
        return [self._of_clip(i, predictor) for i, predictor in enumerate(self._chosen)]

    def _of_clip(self, i: int, predictor: Predictor | None) -> Prediction:
        if predictor is None:
            return self._unpredicted(i)
        keys = self._keys(predictor)
        absent = [name for name, fold in keys if i not in self.vectors[name, fold]]
        if absent:
            problem = f"its {absent[0]} features are not finite numbers"
            return Prediction(self._clips[i].file, problem=problem)
        return self._prediction(i, predictor, {key: self.vectors[key][i][None] for key in keys})

    def _keys(self, predictor: Predictor) -> list[FeatureKey]:
        """The features that it needs, of every net."""
        return [(n, spec.fold) for n in predictor.features for spec in self._model.variants(n)]

    def _choose(self, rows: Sequence[int], usable: Mapping[str, set[int]]) -> Predictor | None:
        """The best predictor of a clip: of features that one of its windows each has."""
        has = {name for name in self._features if usable[name].intersection(rows)}
        return self._model.best_of(has)

    def _embed(
        self, chosen: Sequence[Predictor | None], usable: Mapping[str, set[int]]
    ) -> dict[FeatureKey, dict[int, F64]]:
        """By feature and net: clip to the mean over its windows, float64 (dim,)."""
        vectors: dict[FeatureKey, dict[int, F64]] = {}
        for name in self._features:
            needed = [i for i, p in enumerate(chosen) if p is not None and name in p.features]
            rows = [row for i in needed for row in self._rows[i] if row in usable[name]]
            for spec in self._model.variants(name):
                of_rows = self._maker.embed(spec, self._media, rows)
                of_clips = {i: [of_rows[r] for r in self._rows[i] if r in of_rows] for i in needed}
                vectors[name, spec.fold] = {
                    i: np.mean(values, axis=0) for i, values in of_clips.items() if values
                }
        return vectors

    def _prediction(
        self, i: int, predictor: Predictor, vectors: Mapping[FeatureKey, F64]
    ) -> Prediction:
        scaled = {
            key: self.scaled[key][i][None] if self.scaled else vectors[key] for key in vectors
        }
        outputs = predict_clips(self._model, predictor, scaled)[0]
        notes = [*self._windows[i].notes, *self._fallback_notes(i, predictor)]
        notes += unlikeness(self._model, predictor, vectors)
        if i in self.lonely:
            notes.append(
                f"the model compares clips within a group, and this folder has fewer than "
                f"{MIN_CLIPS}: expect less of it than its scores say"
            )
        clip, content = self._clips[i], self._contents[i]
        trained_on = self._model.trained_on(content, clip.start, clip.duration)
        return Prediction(clip.file, predictor, outputs, tuple(notes), trained_on=trained_on)

    def _fallback_notes(self, i: int, predictor: Predictor) -> list[str]:
        """Where the clip lacks what the best predictor would have read."""
        best = self._model.best(self._modalities)
        if best is None or best.name == predictor.name:
            return []
        notes = [
            f"without {name}: {self._maker.unavailable[name]}"
            for name in best.features
            if name in self._maker.unavailable
        ]
        used = " and ".join(IN_WORDS[m] for m in predictor.modalities)
        reasons = [
            f"{IN_WORDS[m]}: {self._reason(i, m)}"
            for m in best.modalities
            if m not in predictor.modalities and self._reason(i, m)
        ]
        if reasons:
            notes.append(f"from {used} alone ({'; '.join(reasons)})")
        return notes

    def _unpredicted(self, i: int) -> Prediction:
        reasons = [f"{IN_WORDS[m]}: {self._reason(i, m)}" for m in self._media.modalities]
        readable = [m for m in self._media.modalities if not self._reason(i, m)]
        if readable:
            smallest = min(self._model.predictors, key=lambda p: len(p.modalities))
            needed = " and ".join(IN_WORDS[m] for m in smallest.modalities)
            reasons = [r for r in reasons if not r.endswith(": ")]
            reasons.insert(0, f"the model needs {needed}")
        return Prediction(self._clips[i].file, problem="; ".join(reasons))

    def _reason(self, i: int, modality: str) -> str:
        """Why the clip's first window has no such modality; empty where it has."""
        if modality not in self._media.modalities:
            return "not read"
        clip_id = self._media.manifest.clip_ids[self._rows[i][0]]
        reason = self._media.reason(clip_id, modality)
        return reason.removeprefix(f"{self._clips[i].path.absolute()}: ")
