"""Predictions from vectors and of feature files, and their table in the terminal.

This module does not need media packages, and imports h5py only to read a feature file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.fuse import numeric, tasks
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction, Record
from mvemo.fuse.final.formats import format_of, relative_cell
from mvemo.fuse.final.model import (
    FeatureKey,
    FinalModel,
    Predictor,
    Vectors,
    predict_clips,
    standardise_folders,
)
from mvemo.fuse.final.model_files import load_model
from mvemo.fuse.final.prediction_records import records
from mvemo.fuse.final.reference import unlikeness
from mvemo.manifests.array_types import F64
from mvemo.manifests.text_table import align_columns, shown_name
from mvemo.pipeline.console.messages import tell_note, verbosity
from mvemo.pipeline.models import boxed

if TYPE_CHECKING:
    from mvemo.cache import Cache
    from mvemo.fuse.conformal import Asked

# Maximum number of columns between path and predictor in the terminal's table.
MOST_COLUMNS = 4


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


def predictions_table(
    model: FinalModel, predictions: Sequence[ClipPrediction], measured: str = ""
) -> str:
    """Return the text for the terminal: clips, notes without repeats, problems and a legend."""
    written, level = format_of(model), verbosity()
    n = sum(bool(prediction.relative) for prediction in predictions)
    header = [*written.header, *["relative"] * (n > 0)]
    rows = []
    # Files that a note applies to, by kind and text of the note.
    files = defaultdict[tuple[str, str], list[str]](list)
    for record in records(model, predictions):
        file = shown_name(record["path"])
        if "error" in record:
            files["not predicted", record["error"]].append(file)
            continue
        cells = [*written.cells(record), *[relative_cell(record)] * (n > 0)]
        rows.append([file, *cells, (record["model"] or "").partition("/")[2]])
        for note in record["notes"] if level != "quiet" else ():
            if level == "verbose" and note == Caution.UNLIKE.text:
                note += f" ({record['unlikeness']:.1f} times as far as nearly all of them)"
            files["note", note].append(file)
    notes = [
        f"{kind}: {of[0] if len(of) == 1 else f'{len(of)} clips, the first {of[0]}'}: {text}"
        for (kind, text), of in files.items()
    ]
    if not rows:
        return "\n".join(notes)
    lines = []
    if len(header) > MOST_COLUMNS:
        for file, *cells, predictor in rows:
            pairs = [(f"  {name}", cell) for name, cell in zip(header, cells, strict=True)]
            lines += [f"{file}  by {predictor}", *align_columns(pairs, left=(0, 1)), ""]
    else:
        left = {0, *range(1 + len(written.header), len(rows[0]))}
        left |= {1 + column for column in written.text_columns}
        lines += [*align_columns([["path", *header, "by"], *rows], left=left), ""]
    lines += [*notes, ""] if notes else []
    if level != "quiet":
        lines += legend(model, predictions, level == "normal", measured)
        lines += [f"relative: quadrant and ranks (0 to 1) among {n} clips of this call"] * (n > 0)
    return "\n".join(lines).rstrip("\n")


def legend(
    model: FinalModel,
    predictions: Sequence[ClipPrediction],
    brief: bool = False,
    measured: str = "",
) -> list[str]:
    """Return lines on the model, its scores and values; if `brief`, in plain words.

    `measured` is its score on judged clips, which replaces the expected score.
    """
    facts, lines = model.facts, []
    used = {p.predictor.name for p in predictions if p.predictor is not None}
    for predictor in (p for p in model.predictors if p.name in used):
        score, ends = boxed.score_cells(model.expected_of(predictor))
        if brief or predictor.expected.get("per_group"):
            lines.append(
                f"  by {predictor.name}: {boxed.expected_words(model, predictor, ends=not brief)}"
            )
        elif not score:
            lines.append(f"{predictor.name}: not evaluated separately; not calibrated")
        else:
            title, ends = tasks.task_of(model.task).primary_title, f" ({ends})" if ends else ""
            lines.append(
                f"{predictor.name}: {title} {score}{ends} on clips that it was not trained on, in "
                "cross-validation"
            )
    clips, groups = facts["n_clips"], facts["n_groups"]
    # If a coverage was asked for, the notes of the clips include this warning.
    promised = model.task == "regression" and model.coverage is None
    warnings = [model.few_groups(p.predictor) for p in predictions if promised and p.predictor]
    return [
        f"{model.name} was trained on {clips} clips. On "
        + ("your clips:" if measured else "new clips, expect:")
        if brief
        else f"model {model.name}: trained on {clips} clips of {groups} groups",
        *([f"  {measured}"] if measured else lines),
        *([] if brief else boxed.elsewhere_words(model)),
        *format_of(model).legend(brief),
        *dict.fromkeys(f"note: {few}" for few in warnings if few),
        *(f"note: {note}" for note in facts["notes"]),
    ]
