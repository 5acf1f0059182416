"""Predictions of feature files; predictions as records, CSV files and terminal tables.

This module does not need media packages, and imports h5py only to read a feature file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.model import (
    FeatureKey,
    FinalModel,
    Predictor,
    Vectors,
    load_model,
    predict_clips,
    standardise_folders,
    stored_as,
    unlikeness,
    with_coverage,
)
from mvemo.fuse.numeric import F64, complete
from mvemo.fuse.tasks import task_of
from mvemo.manifests.text_table import Tabular, align_columns, shown_name
from mvemo.pipeline.console.messages import tell_note, verbosity
from mvemo.pipeline.models.boxed import companion_of, elsewhere_words, expected_words, pick_model
from mvemo.pipeline.prediction.formats import Record, format_of, relative_cell, relative_columns

if TYPE_CHECKING:
    from mvemo.cache import Cache
    from mvemo.fuse.conformal import Asked

# Start of the note on a clip whose set is large, or that is unlike the training clips.
ASK = "ask a person"
UNLIKE = "unlike the clips that the model was trained on"
COPY = "sounds or looks like a training clip, perhaps re-encoded: this does not test the model"
TRAINED_ON = "the clip is part of the model's training data: this does not test the model"
# Maximum number of columns between path and predictor in the terminal's table.
MOST_COLUMNS = 4


@dataclass(frozen=True)
class Prediction:
    """Prediction of one clip by a model."""

    file: str  # name as given by the user
    predictor: Predictor | None = None  # None if the clip was not predicted
    # float64 (outputs,) of `mvemo.fuse.final.model.predict_clips`; empty if not predicted.
    outputs: F64 = field(default_factory=lambda: np.zeros(0))
    notes: tuple[str, ...] = ()  # notes for the user
    problem: str = ""  # reason why the clip was not predicted
    # True for a clip of the training data: the heads know its label, so confidence is not valid.
    trained_on: bool = False
    # Distance from the training clips, divided by the largest usual one; NaN if not known.
    unlikeness: float = np.nan
    # JSON values: ``content`` (digest of its sound and pictures), ``duration`` in seconds, mvemo's
    # ``version``, the ``date`` of reading and the ``seconds`` that reading took.
    facts: Mapping[str, Any] = field(default_factory=dict)
    # Valence and arousal by the model's companion (`companion_of`), by target; {} without one.
    plane: Mapping[str, float] = field(default_factory=dict)
    relative: Record | None = None  # of `prediction.relative.compare`; None if not asked for


def complete_features(model: FinalModel, vectors: Collection[FeatureKey]) -> set[str]:
    """Return the features of a model that a clip has, from the nets of all folds."""
    names = {spec.name for spec in model.specs}
    return names - {spec.name for spec in model.specs if (spec.name, spec.fold) not in vectors}


def predict_vectors(
    model: FinalModel,
    predictor: Predictor,
    prediction: Prediction,  # file, notes, facts, and `trained_on` of the clip
    vectors: Vectors,
    scaled: Vectors | None = None,
) -> Prediction:
    """Predict a clip from vectors (dim,); `scaled` has them standardised within its group."""
    rows = {key: x[None] for key, x in vectors.items() if key[0] in predictor.features}
    if scaled is None:
        inputs = standardise_folders(model, rows, [prediction.file])
    else:
        inputs = {key: scaled[key][None] for key in rows}
    outputs = predict_clips(model, predictor, inputs)[0]
    prediction = replace(prediction, plane=_plane(model, vectors))
    notes, ratio = prediction.notes, np.nan
    if prediction.trained_on:
        notes = (TRAINED_ON, *notes)
    else:
        ratios, is_copy = unlikeness(model, predictor, rows)
        ratio = float(ratios[0])
        if ratio > 1:
            notes += (
                f"{UNLIKE} ({ratio:.1f} times as far from the nearest ones as nearly all of them "
                "are): do not rely on this prediction",
            )
        notes += (COPY,) * bool(is_copy[0])
        notes += _ask_a_person(model, predictor, outputs, unusual=ratio > 1)
    return replace(prediction, predictor=predictor, outputs=outputs, notes=notes, unlikeness=ratio)


def _plane(model: FinalModel, vectors: Vectors) -> dict[str, float]:
    """Return valence and arousal by the model's companion, or {}."""
    companion = companion_of(model)
    names = set() if companion is None else complete_features(companion, vectors)
    predictor = companion.best_of(names) if companion else None
    if companion is None or predictor is None:
        return {}
    rows = {key: x[None] for key, x in vectors.items() if key[0] in predictor.features}
    values = predict_clips(companion, predictor, rows)[0]
    return {
        name: float(np.clip(value, *companion.ends(name)))
        for name, value in zip(companion.classes, values, strict=True)
    }


def _ask_a_person(
    model: FinalModel, predictor: Predictor, outputs: F64, *, unusual: bool
) -> tuple[str, ...]:
    """Return a note for a clip that a person should label, if a coverage was asked for."""
    if model.coverage is None:
        return ()
    reasons = []
    if model.limit(predictor) is None:
        reasons.append(f"{predictor.name} was not evaluated, so it has no thresholds")
    elif model.task != "regression":
        n, n_all = len(format_of(model).members(predictor, outputs) or ()), len(outputs)
        nouns = task_of(model.task).output_nouns[1]
        reasons += [f"the set has {n} of {n_all} {nouns}"] * (2 * n > n_all)
    if unusual:
        reasons.append("the clip is unlike the training clips, so the coverage is not known")
    few = model.few_groups(predictor)
    return ((f"{ASK}: {'; '.join(reasons)}",) if reasons else ()) + ((few,) if few else ())


def without_distance(note: str) -> str:
    """Return a note without its distance, so that the notes of many clips are equal."""
    return re.sub(r" \([^)]* times as far from [^)]*\)", "", note)


def predict_features(
    name: str | None, features: Path, modalities: Collection[str], coverage: Asked | None = None
) -> tuple[FinalModel, list[Prediction]]:
    """Predict the clips of a feature file, in its order, from features of these modalities.

    `name` is that of a model or its folder; None for the default model.
    """
    from mvemo.cache import open_cache
    from mvemo.fuse.features import DescriptorStatistics, statistics_of
    from mvemo.pipeline.clips.clip_tables import paths_of_cache

    with open_cache(features) as cache:
        read = {spec.modality for spec in cache.specs}.intersection(modalities)
        model = with_coverage(load_model(pick_model(name, ["video" in read])), coverage)
        specs = [spec for spec in model.specs if spec.modality in modalities]
        stored = {spec.digest for spec in cache.specs}
        # float64 (clips, dim), NaN if missing.
        vectors: dict[FeatureKey, F64] = {}
        for spec in specs:
            sequences = spec.params.get("descriptors", {})
            if spec.digest in stored:
                values = cache.vectors(spec.name, spec.fold)[0]
            elif sequences and stored.issuperset(sequences.values()):
                order, statistics = spec.params["order"], statistics_of(spec)
                values = DescriptorStatistics(cache, order, statistics).vectors()[0]
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
        found = _predict(model, cache, vectors)
        return model, [replace(p, file=paths.get(p.file, p.file)) for p in found]


def _predict(model: FinalModel, cache: Cache, vectors: Vectors) -> list[Prediction]:
    finite = {key: complete(values) for key, values in vectors.items()}
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
            predictions.append(Prediction(clip_id, problem=problem))
            continue
        missing = ", ".join(name for name in model.predictors[0].features if name not in names)
        note = f"predicted without {missing}, which the feature file lacks"
        clip = Prediction(clip_id, notes=(note,) * bool(missing), trained_on=clip_id in seen)
        unscaled, within = ({key: x[row] for key, x in of.items()} for of in (vectors, scaled))
        predictions.append(predict_vectors(model, predictor, clip, unscaled, within))
    return predictions


def _training_clips(model: FinalModel, cache: Cache) -> set[str]:
    """Return the ids of the clips that the model's heads were fitted on."""
    digests = {stored_as(spec)[1] for spec in model.specs}
    known, ids = set(model.training_keys.tolist()), cache.table.clip_ids
    return {
        clip_id
        for spec in cache.specs
        if spec.digest in digests
        for clip_id, key in zip(ids, cache.keys(spec.name, spec.fold).tolist(), strict=True)
        if key and int(key[:16], 16) in known
    }


class Records(Tabular, list[Record]):
    """JSON objects of predictions, shown as a table in notebooks."""

    def caption(self) -> str:
        """Return the number of clips in words."""
        return f"{len(self)} clips"

    def records(self) -> list[Record]:
        """Return the objects as a plain list."""
        return list(self)


def records(model: FinalModel, predictions: Sequence[Prediction], facts: bool = False) -> Records:
    """Return the JSON object of each clip (docs/predicting.md); `facts` adds `Prediction.facts`."""
    return Records(
        {
            "path": prediction.file,
            "model": prediction.predictor and f"{model.name}/{prediction.predictor.name}",
            **origin(model),
            **prediction_fields(model, prediction),
            **(prediction.facts if facts else {}),
        }
        for prediction in predictions
    )


def origin(model: FinalModel) -> Record:
    """Return what tells two models of one name apart."""
    return {"model_digest": model.digest or None, "model_date": model.date or None}


def prediction_fields(model: FinalModel, prediction: Prediction) -> Record:
    """Return the JSON values of a prediction, its notes, and its error if there is one."""
    record = format_of(model).fields(prediction.predictor, prediction.outputs)
    if prediction.trained_on and "confidence" in record:
        record["confidence"] = None
        if "set" in record:
            record["set"] = None
    if prediction.plane:
        record["plane"] = dict(prediction.plane)
    if prediction.relative is not None:
        record["relative"] = prediction.relative or None
    record["notes"] = list(prediction.notes)
    return record | ({"error": prediction.problem} if prediction.problem else {})


def prediction_rows(
    model: FinalModel, predictions: Sequence[Prediction], facts: bool = False
) -> list[list[object]]:
    """Return a table: a header, a row for each clip, a column for each class, tag or value."""
    names = [name for p in predictions for name in p.facts if facts]
    rows = records(model, predictions, facts)
    return record_rows(model, ("path", "model"), rows, list(dict.fromkeys(names)))


def record_rows(
    model: FinalModel, first: Sequence[str], rows: Sequence[Record], last: Sequence[str] = ()
) -> list[list[object]]:
    """Return records as a table; outputs end at the notes, as readers of the table expect."""
    written, last = format_of(model), ("error", *origin(model), *last)
    relative = dict.fromkeys(column for record in rows for column in relative_columns(record))
    table: list[list[object]] = [[*first, *written.csv_columns(), "notes", *relative, *last]]
    for record in rows:
        cells = written.csv_cells(defaultdict(lambda: None, record))
        cells += ["; ".join(record.get("notes", ())), *map(relative_columns(record).get, relative)]
        table.append([*map(record.get, first), *cells, *map(record.get, last)])
    return table


def window_rows(model: FinalModel, windows: Sequence[Record]) -> list[list[object]]:
    """Return a table with a row for each window; a file that failed has one row."""
    return record_rows(model, ("path", "start", "stop", "loudness", "model"), windows)


def unpredicted(file: str, problem: str) -> tuple[str, list[Record]]:
    """Return the message and the only record of the timeline of a file that was not predicted."""
    return f"not predicted: {file}: {problem}", [{"path": file, "error": problem}]


def predictions_table(
    model: FinalModel, predictions: Sequence[Prediction], measured: str = ""
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
        rows.append([file, *cells, record["model"].partition("/")[2]])
        for note in record["notes"] if level != "quiet" else ():
            files["note", note if level == "verbose" else without_distance(note)].append(file)
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
    predictions: Sequence[Prediction],
    brief: bool = False,
    measured: str = "",
) -> list[str]:
    """Return lines on the model, its scores and values; if `brief`, in plain words.

    `measured` is its score on judged clips, which replaces the one to expect.
    """
    facts, lines = model.facts, []
    used = {p.predictor.name for p in predictions if p.predictor is not None}
    for predictor in (p for p in model.predictors if p.name in used):
        expected = model.expected_of(predictor)
        mean, interval = expected.get("mean"), expected.get("interval")
        if brief or predictor.expected.get("per_group"):
            lines.append(
                f"  by {predictor.name}: {expected_words(model, predictor, ends=not brief)}"
            )
        elif mean is None:
            lines.append(f"{predictor.name}: not evaluated separately; not calibrated")
        else:
            ends = ""
            if interval and None not in interval:
                ends = " ({:.3f} to {:.3f})".format(*interval)
            lines.append(
                f"{predictor.name}: {task_of(model.task).primary_title} {mean:.3f}{ends} on clips "
                "that it was not trained on, in cross-validation"
            )
    clips, groups = facts["n_clips"], facts["n_groups"]
    # With a coverage, the clips' notes say so.
    promised = model.task == "regression" and model.coverage is None
    warnings = [model.few_groups(p.predictor) for p in predictions if promised and p.predictor]
    return [
        f"{model.name} was trained on {clips} clips. On "
        + ("your clips:" if measured else "new clips, expect:")
        if brief
        else f"model {model.name}: trained on {clips} clips of {groups} groups",
        *([f"  {measured}"] if measured else lines),
        *([] if brief else elsewhere_words(model)),
        *format_of(model).legend(brief),
        *dict.fromkeys(f"note: {few}" for few in warnings if few),
        *(f"note: {note}" for note in facts["notes"]),
    ]
