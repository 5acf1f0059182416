"""Moods of clips: predictions of ``mvemo predict``, with a person's corrections in their place.

A clip's mood is its predicted class, or each tag that applies. Its place on the valence-arousal
plane is its ratings, or the mean place of its classes or tags, weighted by their probabilities.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvemo.manifests import read_manifest
from mvemo.manifests.cells import to_number
from mvemo.manifests.dimensions import Place, place_of
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import shown
from mvemo.manifests.labels import label_kind
from mvemo.manifests.tables import read_table
from mvemo.manifests.text_files import parse_json
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.prediction.formats import Record
from mvemo.pipeline.prediction.predictions import TRAINED_ON


@dataclass(frozen=True)
class Mood:
    """Mood of one clip, predicted or corrected."""

    path: Path
    moods: tuple[str, ...] = ()  # class or tags; empty for ratings
    proba: Mapping[str, float] = field(default_factory=dict)
    ratings: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    seconds: float | None = None  # length of the clip
    is_certain: bool = True  # False if the model was trained on the clip
    is_corrected: bool = False

    @property
    def place(self) -> Place | None:
        """Valence and arousal: ratings in their unit, for classes 0..1; None if not known."""
        return place_of(self.ratings, self.proba or dict.fromkeys(self.moods, 1.0))

    def surer_than(self, least: float) -> "Mood":
        """Return the clip with the moods of at least this probability; corrections stay."""
        if self.is_corrected:
            return self
        kept = [m for m in self.moods if self.is_certain and self.proba.get(m, 0.0) >= least]
        return replace(self, moods=tuple(kept))


def read_moods(predictions: Path, corrections: Path | None, least: float | None) -> list[Mood]:
    """Read predictions (CSV, JSON or JSON Lines of ``mvemo predict``) and corrections.

    Files that were not predicted are left out with a note, also if they were corrected. `least` is
    the smallest probability of a mood; None keeps all.

    Raises
    ------
    BadOption
        A file is not what it should be, or no clip is predicted.
    """
    rows = list(read_records(predictions))
    # A clip that has none of the tags, label [], was predicted.
    predicted = [row for row in rows if row.get("label") not in (None, "") or row.get("values")]
    found = [_mood(row, predictions) for row in predicted]
    if not found:
        raise BadOption(f"{predictions}: has no predicted clip, only {len(rows)} failed ones")
    if len(found) < len(rows):
        tell_note(f"{len(rows) - len(found)} of {len(rows)} clips were not predicted: left out")
    if corrections is not None:
        found = _corrected(found, corrections)
    if least is not None:
        if not any(mood.proba for mood in found):
            raise BadOption("--min-confidence: ratings have no probabilities: leave it out")
        found = [mood.surer_than(least) for mood in found]
    return found


def read_records(file: Path) -> Iterator[Record]:
    """Yield the records of a file of predictions, checked as far as `_mood` reads them."""
    try:
        if file.suffix.lower() not in (".json", ".jsonl"):
            yield from _table_records(file)
            return
        text = file.read_text(encoding="utf-8")
        lines = text.split("\n") if file.suffix.lower() == ".jsonl" else [text]
        for i, line in enumerate(filter(str.strip, lines), start=1):
            value = parse_json(line)
            for record in value if isinstance(value, list) else [value]:
                if not isinstance(record, dict) or not isinstance(record.get("path"), str):
                    got = shown(json.dumps(record))
                    raise BadOption(f"{file}:{i}: expected records with a path, got {got}")
                yield record
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, BadOption):
            raise
        raise BadOption(f"{file}: expected predictions of mvemo predict: {error}") from None


def _table_records(file: Path) -> Iterator[Record]:
    table = read_table(file)
    header = table.header
    if not {"path", "model", "notes"} <= {*header}:
        raise BadOption(
            f"{file}: expected the columns path, model and notes of mvemo predict --csv, got "
            f"{', '.join(header)}"
        )
    first = max(header.index(n) for n in ("model", "confidence", "set", "label") if n in header) + 1
    outputs = header[first : header.index("notes")]
    for line, cells in table.rows[1:]:
        if len(cells) != len(header):
            raise BadOption(f"{file}:{line}: expected {len(header)} cells, got {len(cells)}")
        row: Record = dict(zip(header, cells, strict=True))
        try:
            values = {name: to_number(row[name]) for name in outputs if row[name].strip()}
            row["duration"] = to_number(row["duration"]) if row.get("duration") else None
        except ValueError as error:
            raise BadOption(f"{file}:{line}: {error}") from None
        if "label" not in header:
            row["values"] = {n: {"value": values[n]} for n in outputs[::3] if n in values}
        elif values:
            row["proba"], label = values, row["label"]
            row["label"] = label if label in values else [n for n in label.split(";") if n]
        yield row


def _mood(record: Record, file: Path) -> Mood:
    """Return the mood of a record; a relative path may start at the file's folder, too."""
    path = Path(record["path"])
    if not path.exists() and (file.parent / path).exists():
        path = file.parent / path
    label, length = record.get("label") or record.get("quadrant") or (), record.get("duration")
    proba = record.get("proba") or {}
    if record.get("quadrant") and record.get("confidence"):
        proba = {label: record["confidence"]}
    try:
        mood = Mood(
            path=path,
            moods=(label,) if isinstance(label, str) else (*map(str, label),),
            proba={name: float(p) for name, p in proba.items()},
            ratings={n: float(v["value"]) for n, v in (record.get("values") or {}).items()},
            model=str(record.get("model") or ""),
            seconds=float(length) if length else None,
            is_certain=TRAINED_ON not in (record.get("notes") or ()),
        )
        if all(map(math.isfinite, (*mood.proba.values(), *mood.ratings.values()))):
            return mood
        problem = "a number is not finite"
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    raise BadOption(f"{file}: {path}: expected a record of mvemo predict: {problem}")


def _corrected(found: list[Mood], corrections: Path) -> list[Mood]:
    """Return the moods with those of a manifest in the place of predictions."""
    manifest = read_manifest(corrections, media=False)
    numeric = label_kind(manifest.task).numeric
    given = {_whole(manifest.media_path(clip)): clip.label for clip in manifest.clips}
    moods = []
    for mood in found:
        label = given.pop(_whole(mood.path), None)
        if label is not None and numeric:
            ratings = dict(zip(manifest.classes, map(float, label), strict=True))
            ratings = {**mood.ratings, **ratings}
            mood = replace(mood, ratings=ratings, moods=(), proba={}, is_corrected=True)
        elif label is not None:
            names = tuple(map(str, label))
            mood = replace(mood, moods=names, proba={}, is_corrected=True)
        moods.append(mood)
    if given:
        tell_note(
            f"{corrections}: {len(given)} of {len(manifest)} corrected clips are not among the "
            f"predictions, such as {min(given)}"
        )
    return moods


def _whole(path: Path) -> str:
    return os.path.realpath(path)
