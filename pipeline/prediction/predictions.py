"""Predictions of feature files; predictions as records, CSV files and terminal tables.

This module does not need media packages.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache import Cache, FeatureSpec, open_cache
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import DescriptorStatistics, statistics_of
from mvemo.fuse.final.model import (
    FeatureKey,
    FinalModel,
    Predictor,
    Vectors,
    distances,
    load_model,
    predict_clips,
    standardise_folders,
    stored_as,
)
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.numeric import F64
from mvemo.manifests.tables import CsvWriter
from mvemo.manifests.text_table import align_columns, shown_name
from mvemo.pipeline.console.messages import verbosity
from mvemo.pipeline.prediction.formats import Record, format_of

# Plain words for the main score of each task, by metric.
_EXPECT = {
    "accuracy": "about {:.0%} of the labels are correct",
    "roc_auc_macro": "a clip with a tag ranks above a clip without it in about {:.0%} of pairs",
    "r2_macro": "about {:.0%} of the variance of clips' ratings is explained",
}
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
    # JSON values: ``content`` (digest of the file's bytes), ``duration`` in seconds, mvemo's
    # ``version``, the ``date`` of reading and the ``seconds`` that reading took.
    facts: Mapping[str, Any] = field(default_factory=dict)


def predictor_of(model: FinalModel, vectors: Collection[FeatureKey]) -> Predictor | None:
    """Return the best predictor for a clip with these features, or None."""
    absent = {spec.name for spec in model.specs if (spec.name, spec.fold) not in vectors}
    return model.best_of({spec.name for spec in model.specs} - absent)


def trust_notes(
    model: FinalModel, predictor: Predictor, vectors: Mapping[FeatureKey, F64], trained_on: bool
) -> list[str]:
    """Return a note if a clip, with vectors (1, dim), is a training clip or unlike them all."""
    if trained_on:
        return [TRAINED_ON]
    ratios = distances(model, predictor, vectors)
    far = {name: float(ratio[0]) for name, ratio in ratios.items() if ratio[0] > 1}
    if not far:
        return []
    listed = ", ".join(f"{name} {ratio:.1f}" for name, ratio in far.items())
    return [
        f"unlike the clips that the model was trained on (distance over the largest usual one: "
        f"{listed}): do not rely on this prediction"
    ]


def without_distance(note: str) -> str:
    """Return a note without its distance, so that the notes of many clips are equal."""
    return re.sub(r" \(distance [^)]*\)", "", note)


def predict_features(
    folder: Path, features: Path, modalities: Collection[str]
) -> tuple[FinalModel, list[Prediction]]:
    """Predict the clips of a feature file, in its order, from features of these modalities."""
    model = load_model(folder)
    with open_cache(features) as cache:
        specs = [spec for spec in model.specs if spec.modality in modalities]
        vectors = {(s.name, s.fold): v for s in specs for v in _vectors(cache, s)}
        names = {n for n, _ in vectors if all((n, s.fold) in vectors for s in model.variants(n))}
        if model.best_of(names) is None:
            needed = dict.fromkeys(spec.name for spec in specs)
            raise BadFeatures(
                f"{features}: expected the features {', '.join(needed)} with the settings of the "
                f"model {model.name}, got {', '.join(cache.names()) or 'none'} with other "
                "settings: extract with the model's settings, or predict from the media files"
            )
        return model, _predict(model, cache, vectors)


def _vectors(cache: Cache, spec: FeatureSpec) -> Iterator[F64]:
    """Yield the vectors of a feature if the cache has it: float64 (clips, dim), NaN if missing."""
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
        absent = {s.name for s in model.specs if not finite.get((s.name, s.fold), none)[row]}
        predictor = model.best_of({spec.name for spec in model.specs} - absent)
        if predictor is None:
            problem = "; ".join(reasons.get(clip_id, ["it has no features that the model reads"]))
            predictions.append(Prediction(clip_id, problem=problem))
            continue
        keys = [key for key in vectors if key[0] in predictor.features]
        outputs = predict_clips(model, predictor, {key: scaled[key][row][None] for key in keys})[0]
        trained_on, of_clip = clip_id in seen, {key: vectors[key][row][None] for key in keys}
        notes = trust_notes(model, predictor, of_clip, trained_on)
        missing = [name for name in model.predictors[0].features if name in absent]
        if missing:
            note = f"predicted without {', '.join(missing)}, which the feature file lacks"
            notes.insert(int(trained_on), note)
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


def records(
    model: FinalModel, predictions: Sequence[Prediction], facts: bool = False
) -> list[Record]:
    """Return the JSON object of each clip (docs/predicting.md); `facts` adds `Prediction.facts`."""
    result = []
    for prediction in predictions:
        predictor = prediction.predictor
        name = None if predictor is None else f"{model.name}/{predictor.name}"
        record: Record = {"path": prediction.file, "model": name}
        record |= prediction_fields(model, prediction)
        result.append(record | dict(prediction.facts if facts else {}))
    return result


def prediction_fields(model: FinalModel, prediction: Prediction) -> Record:
    """Return the JSON values of a prediction, its notes, and its error if there is one."""
    record = format_of(model).fields(prediction.predictor, prediction.outputs)
    if prediction.trained_on and "confidence" in record:
        record["confidence"] = None
    record["notes"] = list(prediction.notes)
    return record | ({"error": prediction.problem} if prediction.problem else {})


def predictions_csv(
    model: FinalModel, predictions: Sequence[Prediction], facts: bool = False
) -> str:
    """Return a CSV text: a row for each clip, a column for each class, tag or value."""
    names = list(dict.fromkeys(name for p in predictions for name in p.facts)) if facts else []
    return records_csv(model, ("path", "model"), records(model, predictions, facts), names)


def records_csv(
    model: FinalModel, first: Sequence[str], rows: Sequence[Record], last: Sequence[str] = ()
) -> str:
    """Return records as CSV, with the columns `first` and `last` around the prediction."""
    written, text = format_of(model), io.StringIO(newline="")
    writer = CsvWriter(text)
    writer.writerow([*first, *written.csv_columns(), "notes", "error", *last])
    for record in rows:
        cells = [*map(record.get, first), *written.csv_cells(defaultdict(lambda: None, record))]
        more = [record.get(name) for name in ("error", *last)]
        writer.writerow([*cells, "; ".join(record.get("notes", ())), *more])
    return text.getvalue()


def predictions_table(model: FinalModel, predictions: Sequence[Prediction]) -> str:
    """Return the text for the terminal: clips, notes without repeats, problems and a legend."""
    written, level = format_of(model), verbosity()
    rows: list[list[str]] = []
    # Files that a note applies to, by kind and text of the note.
    files: dict[tuple[str, str], list[str]] = {}
    for record in records(model, predictions):
        file = shown_name(record["path"])
        if "error" in record:
            files.setdefault(("not predicted", record["error"]), []).append(file)
            continue
        rows.append([file, *written.cells(record), record["model"].partition("/")[2]])
        for note in record["notes"] if level != "quiet" else ():
            text = note if level == "verbose" else without_distance(note)
            files.setdefault(("note", text), []).append(file)
    notes = [
        f"{kind}: {of[0] if len(of) == 1 else f'{len(of)} clips, the first {of[0]}'}: {text}"
        for (kind, text), of in files.items()
    ]
    if not rows:
        return "\n".join(notes)
    lines: list[str] = []
    if len(written.header) > MOST_COLUMNS:
        for file, *cells, predictor in rows:
            pairs = zip((f"  {name}" for name in written.header), cells, strict=True)
            lines += [f"{file}  by {predictor}", *align_columns(list(pairs), left=(0, 1)), ""]
    else:
        header = ["path", *written.header, "by"]
        left = {0, len(header) - 1, *(1 + column for column in written.text_columns)}
        lines += [*align_columns([header, *rows], left=left), ""]
    if notes:
        lines += [*notes, ""]
    if level != "quiet":
        lines += legend(model, predictions, brief=level == "normal")
    return "\n".join(lines).rstrip("\n")


def legend(model: FinalModel, predictions: Sequence[Prediction], brief: bool = False) -> list[str]:
    """Return lines on the model, its scores and values; if `brief`, in plain words."""
    facts = model.facts
    lines = [
        f"model {model.name}: trained on {facts['n_clips']} clips of {facts['n_groups']} groups"
    ]
    if brief:
        lines = [f"{model.name} was trained on {facts['n_clips']} clips. On new clips, expect:"]
    used = {p.predictor.name for p in predictions if p.predictor is not None}
    for predictor in (p for p in model.predictors if p.name in used):
        if not brief:
            lines.append(f"{predictor.name}: {expectation(model.expected_of(predictor))}")
            continue
        nested = facts.get("nested") or {}
        chosen = nested.get("model") == predictor.name and nested["mean"] is not None
        mean = nested["mean"] if chosen else predictor.expected.get("mean")
        text = "not known" if mean is None else _EXPECT[predictor.expected["metric"]].format(mean)
        lines.append(f"  by {predictor.name}: {text}")
    lines += format_of(model).legend(brief)
    return [*lines, *(f"note: {note}" for note in facts["notes"])]


def expectation(expected: Mapping[str, Any]) -> str:
    """Return the cross-validated score of a predictor as a phrase."""
    if expected.get("mean") is None:
        return "not evaluated separately; not calibrated"
    interval = expected.get("interval")
    ends = "" if not interval or None in interval else " ({:.3f} to {:.3f})".format(*interval)
    return (
        f"{expected['metric']} {expected['mean']:.3f}{ends} on clips that it was not trained "
        "on, in cross-validation"
    )
