"""Predictions as JSON records and as tables, written and read again."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mvemo.fuse.final.clip_prediction import FACTS, ClipPrediction, PredictionRecord, Record
from mvemo.fuse.final.formats import format_of, relative_columns
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests import files, labels, tables, text_files
from mvemo.manifests.cells import to_number
from mvemo.manifests.errors import BadFile
from mvemo.manifests.text_table import Tabular

# Columns of a table after those of the outputs, and before relative values.
NOTES = ("notes", "cautions", "doubt", "unlikeness")
# Columns of a table with texts of a record, and columns with numbers.
TEXTS = ("path", "model", "quadrant", "error", "content", "version", "date")
NUMBERS = ("confidence", "doubt", "unlikeness", "duration", "seconds")


class Records(Tabular, list[PredictionRecord]):
    """JSON objects of predictions, shown as a table in notebooks."""

    def caption(self) -> str:
        """Return the number of clips as text."""
        return f"{len(self)} clips"

    def records(self) -> list[PredictionRecord]:
        """Return the objects as a plain list."""
        return list(self)


def records(
    model: FinalModel, predictions: Iterable[ClipPrediction], facts: bool = False
) -> Records:
    """Return the JSON object of each clip (docs/predicting.md); `facts` adds its `facts`."""
    unknown = {"path": None, "model": None, **origin(model), **format_of(model).unknown()}
    found = ({**unknown, **p.record(), **(p.facts if facts else {})} for p in predictions)
    return Records(cast(PredictionRecord, record) for record in found)


def origin(model: FinalModel) -> Record:
    """Return the digest and date of a model, which differ between models of the same name."""
    return {"model_digest": model.digest or None, "model_date": model.date or None}


def record_rows(
    model: FinalModel, found: Sequence[Mapping[str, Any]], first: Sequence[str] = ("path", "model")
) -> list[list[object]]:
    """Return records as a table; it begins with the columns `first`."""
    written = format_of(model)
    facts = list(dict.fromkeys(name for record in found for name in FACTS if name in record))
    relative = dict.fromkeys(column for record in found for column in relative_columns(record))
    last = ("error", *origin(model), *facts)
    table: list[list[object]] = [[*first, *written.csv_columns(), *NOTES, *relative, *last]]
    for record in found:
        known = defaultdict[str, Any](lambda: None, record)
        known |= {"notes": "; ".join(record["notes"]), "cautions": ";".join(record["cautions"])}
        cells = [*map(known.get, first), *written.csv_cells(known), *map(known.get, NOTES)]
        cells += map(relative_columns(record).get, relative)
        table.append([*cells, *map(known.get, last)])
    return table


def window_rows(model: FinalModel, windows: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    """Return a table with a row for each window; a file that failed has one row."""
    return record_rows(model, windows, ("path", "start", "stop", "loudness", "model"))


def read_predictions(file: Path) -> Iterator[ClipPrediction]:
    """Yield the predictions in a file that ``mvemo predict`` wrote.

    The file is a table (CSV or another format that mvemo reads), a JSON list (``.json``), or JSON
    Lines. Raise `BadFile` if it cannot be read, or if a record is not from ``mvemo predict``.
    """
    of_json = file.suffix.lower() in (".json", ".jsonl")
    for where, record in _json_records(file) if of_json else _table_records(file):
        if not isinstance(record, dict) or not isinstance(record.get("path"), str):
            got = files.shown(json.dumps(record))
            raise BadFile(f"{file}{where}: expected records with a path, got {got}")
        try:
            yield ClipPrediction.of_record(record)
        except ValueError as error:
            text = f"{record['path']}: expected a record of mvemo predict: {error}"
            raise BadFile(f"{file}{where}: {text}") from None


def _json_records(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        lines = text.split("\n") if file.suffix.lower() == ".jsonl" else [text]
        for i, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            value = text_files.parse_json(line)
            for record in value if isinstance(value, list) else [value]:
                yield f":{i}", record
    except (OSError, ValueError) as error:
        raise BadFile(f"{file}: expected predictions of mvemo predict: {error}") from None


def _table_records(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the JSON object of each row."""
    table = tables.read_table(file)
    header = table.header
    if missing := [name for name in ("path", "model", *NOTES) if name not in header]:
        raise BadFile(
            f"{file}: lacks the columns {', '.join(missing)} of mvemo predict --csv; it has "
            f"{', '.join(header)}: predict the clips again"
        )
    known = ("model", "quadrant", "confidence", "set", "label")
    first = max(header.index(name) for name in known if name in header) + 1
    outputs = header[first : header.index("notes")]
    for line, cells in table.rows[1:]:
        if len(cells) != len(header):
            raise BadFile(f"{file}:{line}: expected {len(header)} cells, got {len(cells)}")
        row = {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
        try:
            yield f":{line}", _record(row, outputs, is_rated="label" not in header)
        except ValueError as error:
            raise BadFile(f"{file}:{line}: {error}") from None


def _record(row: Mapping[str, str], outputs: Sequence[str], *, is_rated: bool) -> Record:
    """Return the JSON object of a row's cells that are not empty."""
    numbers = {n: to_number(row[n]) for n in (*outputs, *NUMBERS) if n in row}
    found: Record = {name: row[name] for name in TEXTS if name in row}
    found |= {name: numbers[name] for name in NUMBERS if name in numbers}
    found["notes"] = row["notes"].split("; ") if "notes" in row else []
    found["cautions"] = row["cautions"].split(";") if "cautions" in row else []
    plane = {axis: f"{axis}_value" for axis in labels.PLANE}
    if not is_rated and all(column in row for column in plane.values()):
        found["plane"] = {axis: to_number(row[column]) for axis, column in plane.items()}
    if is_rated:
        ends = {name: (f"{name} low", f"{name} high") for name in outputs[::3]}
        values = {
            name: {"value": numbers[name], "low": numbers.get(low), "high": numbers.get(high)}
            for name, (low, high) in ends.items()
            if name in numbers
        }
        return {**found, "values": values or None}
    if proba := {name: numbers[name] for name in outputs if name in numbers}:
        label = row.get("label", "")
        found |= {"proba": proba, "label": label if label in proba else _names(label)}
    return found | ({"set": _names(row["set"])} if "set" in row else {})


def _names(cell: str) -> list[str]:
    return [name for name in cell.split(";") if name]
