"""Prediction of one clip, in the form shared by commands, files, page, tags and learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from mvemo.manifests.array_types import F64
from mvemo.manifests.dimensions import Place, place_of

if TYPE_CHECKING:
    from mvemo.fuse.final.model import Predictor

Record = dict[str, Any]
# Keys of `ClipPrediction.facts`.
FACTS = ("content", "duration", "version", "date", "seconds")


class RatingRecord(TypedDict):
    """Predicted value of a rating, and its prediction interval, in the unit of the rating."""

    value: float
    low: float | None
    high: float | None


class _EveryRecord(TypedDict):
    """Keys that the records of all tasks have."""

    path: str
    model: str | None  # model and predictor; None if the clip was not predicted
    model_digest: str | None
    model_date: str | None
    cautions: list[str]  # values of `Caution`
    notes: list[str]


class PredictionRecord(_EveryRecord, total=False):
    """JSON object of a clip, as `mvemo.predict` and ``mvemo predict --json`` return it.

    Its keys depend on the task and the options; docs/predicting.md has their meaning.
    """

    proba: dict[str, float] | None  # of classes or tags
    label: str | list[str] | None  # class, or tags that apply
    confidence: float | None
    values: dict[str, RatingRecord] | None
    scale: dict[str, str]  # description of each rating's scale
    quadrant: str | None
    coverage: float
    set: list[str] | None
    doubt: float
    unlikeness: float
    plane: dict[str, float]
    relative: dict[str, Any] | None  # `quadrant`; of each output `value`, `rank` and `score`
    error: str
    # Only for a catalogue: `FACTS`.
    content: str
    duration: float
    version: str
    date: str
    seconds: float


class Caution(str, Enum):
    """Reason against relying on a prediction."""

    TRAINED_ON = "trained-on"
    COPY = "copy"
    UNLIKE = "unlike"
    ASK = "ask"

    @property
    def text(self) -> str:
        """Return the note for the user."""
        return _TEXTS[self]


_TEXTS = {
    Caution.TRAINED_ON: "the clip is part of the model's training data: this does not test the "
    "model",
    Caution.COPY: "sounds or looks like a training clip, perhaps re-encoded: this does not test "
    "the model",
    Caution.UNLIKE: "unlike the clips that the model was trained on: do not rely on this "
    "prediction",
    Caution.ASK: "ask a person",
}


@dataclass(frozen=True)
class ClipPrediction:
    """Prediction of one clip by a model, or its correction by a person.

    Its fields are those of the JSON records in docs/predicting.md; `record` and `of_record`
    convert them. Only a prediction of this process has `predictor` and `outputs`.
    """

    path: str  # name as given by the user
    model: str | None = None  # model and predictor, such as songs/musicnn; None if not predicted
    proba: Mapping[str, float] | None = None  # of classes or tags
    values: Mapping[str, Mapping[str, float | None]] | None = None  # value, low, high of ratings
    label: str | Sequence[str] | None = None  # class, or tags that apply
    quadrant: str | None = None  # of predicted valence and arousal
    confidence: float | None = None  # probability of the class or quadrant
    set: Sequence[str] | None = None  # classes or tags that contain the truth with the coverage
    doubt: float | None = None  # from 0 to 1 (`Format.doubt`)
    plane: Mapping[str, float] = field(default_factory=dict)  # from the companion model
    # Result of `mvemo.pipeline.prediction.relative`; None if not asked for, {} if not known.
    relative: Record | None = None
    cautions: tuple[Caution, ...] = ()
    notes: tuple[str, ...] = ()  # sentences for the user, also on the cautions
    # Distance from the training clips, divided by the largest usual distance; None if not known.
    unlikeness: float | None = None
    error: str = ""  # reason why the clip was not predicted
    # ``content`` (digest of its sound and pictures), ``duration`` in seconds, mvemo's ``version``,
    # the ``date`` of reading and the ``seconds`` that reading took.
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_corrected: bool = False
    predictor: Predictor | None = field(default=None, repr=False)
    outputs: F64 = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    @property
    def is_predicted(self) -> bool:
        """Return True if the clip has a prediction; an empty list of tags is a prediction, too."""
        return self.label not in (None, "") or bool(self.values)

    @property
    def ratings(self) -> dict[str, float]:
        """Return the predicted or corrected value of each rating."""
        return {name: float(of["value"] or 0.0) for name, of in (self.values or {}).items()}

    @property
    def moods(self) -> dict[str, float]:
        """Return the class, the tags that apply or the quadrant, with their probabilities."""
        names = self.quadrant if self.label is None else self.label
        known = self.proba or {}
        listed = (names,) if isinstance(names, str) else names or ()
        return {name: known.get(name, self.confidence or 0.0) for name in listed}

    @property
    def place(self) -> Place | None:
        """Return valence and arousal: ratings in their unit, for classes 0..1; None if unknown."""
        return place_of(self.ratings, self.proba or dict.fromkeys(self.moods, 1.0))

    def surer_than(self, least: float) -> ClipPrediction:
        """Return the clip with only its moods of at least this probability, or all if corrected."""
        if self.is_corrected:
            return self
        is_known = Caution.TRAINED_ON not in self.cautions
        kept = [name for name, proba in self.moods.items() if is_known and proba >= least]
        return replace(self, label=kept)

    def corrected(self, label: Sequence[str] | Mapping[str, float]) -> ClipPrediction:
        """Return the clip with classes or tags, or with some of its ratings, by a person."""
        predicted = ("label", "quadrant", "proba", "confidence", "doubt", "set")
        judged = replace(self, **dict.fromkeys(predicted), is_corrected=True)  # type: ignore[arg-type]
        if isinstance(label, Mapping):
            ratings = {name: {"value": value} for name, value in label.items()}
            return replace(judged, values={**(self.values or {}), **ratings})
        return replace(judged, label=tuple(label))

    def warned(self, caution: Caution, text: str = "") -> ClipPrediction:
        """Return the clip with a caution and its note, to which `text` is added."""
        note = f"{caution.text}: {text}" if text else caution.text
        return replace(self, cautions=(*self.cautions, caution), notes=(*self.notes, note))

    def record(self) -> Record:
        """Return the JSON object without `facts`; unknown values are left out."""
        names = ("proba", "values", "label", "quadrant", "confidence", "set", "doubt", "unlikeness")
        found: Record = {"path": self.path, "model": self.model}
        known = ((name, getattr(self, name)) for name in names)
        found |= {n: list(v) if isinstance(v, tuple) else v for n, v in known if v is not None}
        found |= {"plane": dict(self.plane)} if self.plane else {}
        found |= {} if self.relative is None else {"relative": self.relative or None}
        found |= {"cautions": [c.value for c in self.cautions], "notes": list(self.notes)}
        return found | ({"error": self.error} if self.error else {})

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> ClipPrediction:
        """Return the prediction in a JSON object; raise ValueError if the object is invalid."""
        names = ("quadrant", "confidence", "set", "doubt", "unlikeness", "relative")
        try:
            proba, values, label = map(record.get, ("proba", "values", "label"))
            optional: Record = {name: record.get(name) for name in names}
            found = cls(
                path=record["path"],
                model=record.get("model") or None,
                proba=proba and {str(name): float(p) for name, p in proba.items()},
                values=values
                and {n: {**of, "value": float(of["value"])} for n, of in values.items()},
                label=label if isinstance(label, str | None) else tuple(map(str, label)),
                plane=record.get("plane") or {},
                cautions=tuple(map(Caution, record.get("cautions") or ())),
                notes=tuple(record.get("notes") or ()),
                error=record.get("error") or "",
                facts={name: record[name] for name in FACTS if name in record},
                **optional,
            )
            numbers = (*found.ratings.values(), *(found.proba or {}).values())
            if not all(map(math.isfinite, (*numbers, float(found.confidence or 0)))):
                raise ValueError("a number is not finite")
        except (TypeError, KeyError, AttributeError) as error:
            text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(text) from None
        return found
