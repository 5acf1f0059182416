"""Predictions as records, as a CSV file and as a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mvemo.fuse.final.model import INTERVAL_SHARE, FinalModel, Predictor
from mvemo.fuse.final.predicting import tag_thresholds
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.prediction.run import Prediction


def records(model: FinalModel, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """One JSON object for each clip.

    Classes: ``proba``, ``label`` and ``confidence``, the calibrated probability of the label.
    Tags: ``proba``, and as ``label`` the list of those that apply. Values: ``values`` with
    ``value``, ``low`` and ``high``, and ``scale`` in words. A clip that was not predicted has
    ``error`` and null in their place.
    """
    return [_record(model, prediction) for prediction in predictions]


def _record(model: FinalModel, prediction: Prediction) -> dict[str, Any]:
    predictor = prediction.predictor
    name = None if predictor is None else f"{model.name}/{predictor.name}"
    record: dict[str, Any] = {"file": prediction.file, "model": name}
    if model.task == "regression":
        record["values"] = None if predictor is None else _values(model, predictor, prediction)
        record["scale"] = scale_in_words(model)
    else:
        record |= {"proba": None, "label": None, "confidence": None}
        if predictor is not None:
            record |= _decision(model, predictor, prediction)
    record["notes"] = list(prediction.notes)
    if prediction.problem:
        record["error"] = prediction.problem
    return record


def _decision(model: FinalModel, predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
    p = prediction.outputs
    proba = {name: float(value) for name, value in zip(model.classes, p, strict=True)}
    if model.task == "multiclass":
        best = int(np.argmax(p))
        return {"proba": proba, "label": model.classes[best], "confidence": float(p[best])}
    applies = p >= tag_thresholds(model, predictor)
    label = [name for name, tag in zip(model.classes, applies, strict=True) if tag]
    return {"proba": proba, "label": label, "confidence": None}


def _values(
    model: FinalModel, predictor: Predictor, prediction: Prediction
) -> dict[str, dict[str, float | None]]:
    residuals: Sequence[tuple[float | None, float | None]] = predictor.residuals
    residuals = residuals or [(None, None)] * len(model.classes)
    return {
        name: {
            "value": float(value),
            "low": None if low is None else float(value + low),
            "high": None if high is None else float(value + high),
        }
        for name, value, (low, high) in zip(
            model.classes, prediction.outputs, residuals, strict=True
        )
    }


def scale_in_words(model: FinalModel) -> dict[str, str]:
    """What the numbers of each target mean: the ratings that the model was made of."""
    return {
        name: f"as the {model.facts['n_clips']} training clips were rated: least "
        f"{s['minimum']:.3g}, most {s['maximum']:.3g}, mean {s['mean']:.3g}, standard deviation "
        f"{s['deviation']:.3g}"
        for name, s in model.scale.items()
    }


def predictions_csv(model: FinalModel, predictions: Sequence[Prediction]) -> str:
    """One row for each clip, with a column for each class, tag or value."""
    rating = model.task == "regression"
    names = model.classes
    columns = [c for n in names for c in (n, f"{n} low", f"{n} high")] if rating else list(names)
    head = ["file", "model"] if rating else ["file", "model", "label", "confidence"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *columns, "notes", "error"])
    for record in records(model, predictions):
        row = [record["file"], record["model"]]
        if rating:
            of_targets = record["values"] or {}
            row += [of_targets.get(n, {}).get(k) for n in names for k in ("value", "low", "high")]
        else:
            label = record["label"]
            row += [";".join(label) if isinstance(label, list) else label, record["confidence"]]
            row += [(record["proba"] or {}).get(name) for name in names]
        writer.writerow([*row, "; ".join(record["notes"]), record.get("error")])
    return text.getvalue()


def predictions_table(model: FinalModel, predictions: Sequence[Prediction]) -> str:
    """For the terminal: a line a clip, then notes, problems, and what the figures mean."""
    rows: list[list[str]] = []
    notes: list[str] = []
    for record in records(model, predictions):
        if "error" in record:
            notes.append(f"not predicted: {record['file']}: {record['error']}")
            continue
        rows.append([record["file"], *_cells(model, record), record["model"].partition("/")[2]])
        notes += [f"note: {record['file']}: {note}" for note in record["notes"]]
    lines = []
    if rows:
        header = ["file", *_header(model), "by"]
        left = {0, len(header) - 1}
        left |= set() if model.task == "regression" else {1, len(header) - 2}
        lines = [*align_columns([header, *rows], left=left), ""]
    if notes:
        lines += [*notes, ""]
    return "\n".join([*lines, *_legend(model, predictions)])


def _header(model: FinalModel) -> list[str]:
    if model.task == "regression":
        return list(model.classes)
    return ["label", "confidence", "others"] if model.task == "multiclass" else ["tags", "all"]


def _cells(model: FinalModel, record: dict[str, Any]) -> list[str]:
    if model.task == "regression":
        return [
            f"{v['value']:.3g}"
            + ("" if v["low"] is None else f" ({v['low']:.3g} to {v['high']:.3g})")
            for v in record["values"].values()
        ]
    ranked = sorted(record["proba"].items(), key=lambda item: -item[1])
    if model.task == "multiclass":
        others = ", ".join(f"{name} {p:.2f}" for name, p in ranked[1:3])
        return [record["label"], f"{record['confidence']:.2f}", others]
    return [", ".join(record["label"]) or "none", ", ".join(f"{n} {p:.2f}" for n, p in ranked[:5])]


def _legend(model: FinalModel, predictions: Sequence[Prediction]) -> list[str]:
    """What the model is, how good it came out, and what its figures mean."""
    lines = [
        f"model {model.name}: {model.facts['n_clips']} clips of {model.facts['n_groups']} groups"
    ]
    used = dict.fromkeys(p.predictor.name for p in predictions if p.predictor is not None)
    for predictor in (p for p in model.predictors if p.name in used):
        expected = predictor.expected
        if expected.get("mean") is None:
            lines.append(f"{predictor.name}: not evaluated by itself; not calibrated")
            continue
        interval = expected.get("interval")
        ends = "" if not interval or None in interval else " ({:.3f} to {:.3f})".format(*interval)
        lines.append(
            f"{predictor.name}: {expected['metric']} {expected['mean']:.3f}{ends} on clips that "
            "it had not seen, in the cross-validation"
        )
    if model.task == "multiclass":
        lines.append("confidence: calibrated probability of the label, among the model's classes")
    for name, words in scale_in_words(model).items():
        lines.append(f"{name}: {words}")
    if model.task == "regression":
        lines.append(f"in brackets: where {INTERVAL_SHARE:.0%} of unseen clips' ratings lay")
    return [*lines, *(f"note: {note}" for note in model.facts["notes"])]
