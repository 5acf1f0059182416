"""Predictions as records, as a CSV file, and as a table for the terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.csv_files import CsvWriter
from mvemo.manifests.text_table import align_columns, shown_name
from mvemo.pipeline.console.messages import verbosity
from mvemo.pipeline.prediction.formats import Record, format_of
from mvemo.pipeline.prediction.predictions import Prediction

# Plain words for the main score of a task.
_EXPECT = {
    "accuracy": "about {:.0%} of the labels right",
    "roc_auc_macro": "a clip that has a tag ranked above one that has not in about {:.0%} of pairs",
    "r2_macro": "about {:.0%} of the differences between clips' ratings explained",
}
# Largest number of values that share a line in the terminal.
MOST_COLUMNS = 4


def records(
    model: FinalModel, predictions: Sequence[Prediction], facts: bool = False
) -> list[Record]:
    """Return one JSON object for each clip; with `facts`, the facts of the prediction are in it.

    Classes have ``proba``, ``label`` and ``confidence``, the calibrated probability of the label.
    Tags have ``proba``, and in ``label`` the list of the tags that apply. Ratings have ``values``
    (``value``, ``low`` and ``high``) and a text ``scale``. A clip that was not predicted has
    ``error``, and null for these values.
    """
    written = format_of(model)
    result = []
    for prediction in predictions:
        predictor = prediction.predictor
        name = None if predictor is None else f"{model.name}/{predictor.name}"
        record: Record = {"path": prediction.file, "model": name}
        record |= written.fields(predictor, prediction.outputs)
        record["notes"] = list(prediction.notes)
        if prediction.trained_on:
            # The heads know the label, so their confidence is not valid.
            record |= {"confidence": None} if "confidence" in record else {}
            record["notes"].insert(0, "part of the model's training data: not a test of the model")
        if prediction.problem:
            record["error"] = prediction.problem
        record |= prediction.facts if facts else {}
        result.append(record)
    return result


def predictions_csv(
    model: FinalModel, predictions: Sequence[Prediction], facts: bool = False
) -> str:
    """Return a CSV text: a row for each clip, a column for each class, tag or value."""
    written = format_of(model)
    text = io.StringIO(newline="")
    writer = CsvWriter(text)
    names = list(dict.fromkeys(name for p in predictions for name in p.facts)) if facts else []
    writer.writerow(["path", "model", *written.csv_columns(), "notes", "error", *names])
    for record in records(model, predictions, facts):
        cells = [record["path"], record["model"], *written.csv_cells(record)]
        more = [record.get(name) for name in ("error", *names)]
        writer.writerow([*cells, "; ".join(record["notes"]), *more])
    return text.getvalue()


def predictions_table(model: FinalModel, predictions: Sequence[Prediction]) -> str:
    """Return the text for the terminal: a line for each clip, notes, problems and a legend.

    A note on many clips appears once; records and the CSV file repeat it for each clip.
    """
    written = format_of(model)
    rows: list[list[str]] = []
    # Files by (kind, text) of the notes on them.
    files: dict[tuple[str, str], list[str]] = {}
    for record in records(model, predictions):
        file = shown_name(record["path"])
        if "error" in record:
            files.setdefault(("not predicted", record["error"]), []).append(file)
            continue
        rows.append([file, *written.cells(record), record["model"].partition("/")[2]])
        for note in record["notes"]:
            # Distances differ from clip to clip.
            text = note if verbosity() == "verbose" else re.sub(r" \(distance [^)]*\)", "", note)
            files.setdefault(("note", text), []).append(file)
    notes = [
        f"{kind}: {of[0] if len(of) == 1 else f'{len(of)} clips, the first {of[0]}'}: {text}"
        for (kind, text), of in files.items()
    ]
    lines = []
    if rows and len(written.header) > MOST_COLUMNS:
        lines = [line for row in rows for line in _block(row, written.header)]
    elif rows:
        header = ["path", *written.header, "by"]
        left = {0, len(header) - 1, *(1 + column for column in written.text_columns)}
        lines = [*align_columns([header, *rows], left=left), ""]
    if notes:
        lines += [*notes, ""]
    if not rows:
        return "\n".join(notes)
    closing = legend if verbosity() == "verbose" else _plain_legend
    return "\n".join([*lines, *closing(model, predictions)])


def _block(row: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the lines of a clip whose values do not fit on one line."""
    file, *cells, predictor = row
    values = zip(names, cells, strict=True)
    pairs = align_columns([(f"  {name}", cell) for name, cell in values], left=(0, 1))
    return [f"{file}  by {predictor}", *pairs, ""]


def _plain_legend(model: FinalModel, predictions: Sequence[Prediction]) -> list[str]:
    """Return the legend of the model in plain words."""
    lines = [f"{model.name} was made of {model.facts['n_clips']} clips. On new clips expect:"]
    nested = model.facts.get("nested") or {}
    used = dict.fromkeys(p.predictor.name for p in predictions if p.predictor is not None)
    for predictor in (p for p in model.predictors if p.name in used):
        # If known, use the score that includes the cost of choosing this predictor.
        chosen = nested.get("model") == predictor.name and nested["mean"] is not None
        mean = nested["mean"] if chosen else predictor.expected.get("mean")
        text = "not known" if mean is None else _EXPECT[predictor.expected["metric"]].format(mean)
        lines.append(f"  by {predictor.name}: {text}")
    lines += format_of(model).legend(brief=True)
    return [*lines, *(f"note: {note}" for note in model.facts["notes"])]


def legend(model: FinalModel, predictions: Sequence[Prediction]) -> list[str]:
    """Return the legend: the model, its scores, and the meaning of its figures."""
    lines = [
        f"model {model.name}: {model.facts['n_clips']} clips of {model.facts['n_groups']} groups"
    ]
    used = dict.fromkeys(p.predictor.name for p in predictions if p.predictor is not None)
    for predictor in (p for p in model.predictors if p.name in used):
        lines.append(f"{predictor.name}: {expectation(model.expected_of(predictor))}")
    lines += format_of(model).legend()
    return [*lines, *(f"note: {note}" for note in model.facts["notes"])]


def expectation(expected: Mapping[str, Any]) -> str:
    """Return the cross-validated score of a predictor as a phrase."""
    if expected.get("mean") is None:
        return "not evaluated by itself; not calibrated"
    interval = expected.get("interval")
    ends = "" if not interval or None in interval else " ({:.3f} to {:.3f})".format(*interval)
    return (
        f"{expected['metric']} {expected['mean']:.3f}{ends} on clips that it had not seen, in the "
        "cross-validation"
    )
