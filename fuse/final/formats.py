"""Formats of predictions: one for each task, chosen by `format_of`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import compress
from statistics import NormalDist
from typing import Any

import numpy as np

from mvemo.fuse.conformal import members
from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction, Record
from mvemo.fuse.final.model import INTERVAL_SHARE, FinalModel, Predictor, tag_thresholds
from mvemo.manifests.array_types import F64
from mvemo.manifests.dimensions import QUADRANTS

# Maximum number of further classes, and of tags, in a row of the terminal's table.
N_OTHERS, N_TAGS = 2, 5
# Content of usual sets, and of the sets with `--per-class`.
TRUE_CLASS = (
    "the true class of {}, on average over the classes",
    "the true class of {}, for each class by itself",
)
TRUE_TAGS = ("all tags of {}", "each tag of {} that have it")
# Fields of a predicted rating.
ENDS = ("value", "low", "high")
# Number of errors of valence for which a quadrant's probability is computed.
STEPS = 500


class Format:
    """Format of predictions of one class; base class of the formats of other tasks."""

    # Columns of the terminal's table between the file and the predictor.
    header: tuple[str, ...] = ("label", "confidence", "others")
    # Indices of the text columns in `header`, which are aligned on the left side.
    text_columns: frozenset[int] = frozenset({0, 2})

    def __init__(self, model: FinalModel) -> None:
        self.model = model
        asked = model.coverage
        self.sets: Record = {} if asked is None else {"coverage": asked, "set": None}
        if model.coverage is not None:
            # The set replaces the column of less likely classes or of the tags' probabilities.
            self.header = (*self.header[:-1], "set")

    def members(self, predictor: Predictor, outputs: F64) -> list[str] | None:
        """Return the classes or tags of the set, likeliest first; None if it is not known."""
        limit = self.model.limit(predictor)
        if limit is None:
            return None
        inside = members(outputs[None], limit)[0]
        return [self.model.classes[i] for i in np.argsort(-outputs, kind="stable") if inside[i]]

    def label(self, predictor: Predictor, outputs: F64) -> Any:
        """Return the JSON value of the label."""
        return self.model.classes[int(np.argmax(outputs))]

    def predicted(self, clip: ClipPrediction, predictor: Predictor, outputs: F64) -> ClipPrediction:
        """Return a clip with the prediction of these outputs."""
        found = self._fields(predictor, outputs)
        if Caution.TRAINED_ON in clip.cautions:
            # The heads have learned the label of a training clip, so its confidence is meaningless.
            found |= dict.fromkeys(("confidence", "set", "doubt"))
        model = f"{self.model.name}/{predictor.name}"
        return replace(clip, model=model, predictor=predictor, outputs=outputs, **found)

    def _fields(self, predictor: Predictor, outputs: F64) -> Record:
        """Return the fields of a clip that depend on the outputs."""
        label = self.label(predictor, outputs)
        return {
            "proba": dict(zip(self.model.classes, outputs.tolist(), strict=True)),
            "label": label,
            # There is no common confidence of several tags.
            "confidence": float(outputs.max()) if isinstance(label, str) else None,
            "set": self.members(predictor, outputs) if self.sets else None,
            "doubt": self.doubt(outputs),
        }

    def doubt(self, outputs: F64) -> float:
        """Return how doubtful outputs are, from 0 to 1: 1 - the largest probability."""
        return float(1 - outputs.max())

    def unknown(self) -> Record:
        """Return the JSON values of a clip without a prediction."""
        return {"proba": None, "label": None, "confidence": None, **self.sets}

    def csv_columns(self) -> list[str]:
        """Return the columns of the CSV file between the model and the notes."""
        sets = ["set"] * (self.model.coverage is not None)
        return ["label", "confidence", *sets, *self.model.classes]

    def csv_cells(self, record: Mapping[str, Any]) -> list[object]:
        """Return the cells of `csv_columns` for a record with `fields`."""
        proba, label = record["proba"] or {}, record["label"]
        text = ";".join(label) if isinstance(label, list) else label
        sets = [";".join(record["set"] or ())] * (self.model.coverage is not None)
        return [text, record["confidence"], *sets, *map(proba.get, self.model.classes)]

    def cells(self, record: Mapping[str, Any]) -> list[str]:
        """Return the cells of `header` for a record with a prediction."""
        confidence = record["confidence"]
        shown = f"{confidence:.2f}" if confidence else "-"
        return [record["label"], shown, self.last_cell(record, 1, N_OTHERS)]

    def last_cell(self, record: Mapping[str, Any], first: int, most: int) -> str:
        """Return the set, if sets were asked for, or else `most` names from rank `first`."""
        if self.model.coverage is None:
            return _ranked(record["proba"], first, most)
        return ", ".join(record["set"] or "-")

    def summary(self, predictor: Predictor, outputs: F64) -> str:
        """Return the prediction in a few words."""
        return f"{self.label(predictor, outputs)}, with a probability of {outputs.max():.2f}"

    def brief(self, predictor: Predictor, outputs: F64) -> str:
        """Return the prediction in one or two words."""
        return str(self.label(predictor, outputs))

    def distance(self, first: F64, second: F64) -> float:
        """Return the distance between two predictions; a value of 1 is large."""
        # Total variation distance: the probability that moves to other classes.
        return float(np.abs(first - second).sum() / 2)

    def evidence(self, outputs: F64, output: int) -> float:
        """Return the strength of one output on an unbounded scale, such as log-odds."""
        # The sum of the other probabilities is more exact than 1 - p if p is near 1.
        return _log_odds(float(outputs[output]), float(np.delete(outputs, output).sum()))

    def legend(self, brief: bool = False) -> list[str]:
        """Return lines that explain the values; if `brief`, without statistics."""
        words = "calibrated probability of the label, among the model's classes"
        if brief:
            words = "of 100 clips with 0.70, about 70 have that label"
        return [f"confidence: {words}", *self.set_legend(*TRUE_CLASS)]

    def set_legend(self, *truths: str) -> list[str]:
        """Return a line that explains the sets, usual or optional, if a coverage was asked for."""
        asked = self.model.asked
        if asked is None:
            return []
        share = f"{100 * asked.share:.3g}% of new clips like the training clips"
        return [f"set: has {truths[bool(asked.option)].format(share)}"]

    def output_range(self) -> tuple[float, float]:
        """Return the smallest and the largest value of an output."""
        return 0.0, 1.0

    def target_output(self, predictor: Predictor, outputs: F64) -> int:
        """Return the index of the output to explain by default."""
        return int(np.argmax(outputs))


class TagFormat(Format):
    """Format of several tags: probabilities, and the tags that apply."""

    header: tuple[str, ...] = ("tags", "all")
    text_columns: frozenset[int] = frozenset({0, 1})

    def label(self, predictor: Predictor, outputs: F64) -> list[str]:
        applies = outputs >= tag_thresholds(self.model, predictor)
        return list(compress(self.model.classes, applies))

    def doubt(self, outputs: F64) -> float:
        """Return the mean entropy of the tags in bits."""
        pairs = np.clip([outputs, 1 - outputs], np.finfo(np.float64).tiny, 1.0)
        return float(-(pairs * np.log2(pairs)).sum(axis=0).mean())

    def cells(self, record: Mapping[str, Any]) -> list[str]:
        return [", ".join(record["label"]) or "none", self.last_cell(record, 0, N_TAGS)]

    def summary(self, predictor: Predictor, outputs: F64) -> str:
        return ", ".join(self.label(predictor, outputs)) or "none of the tags"

    brief = summary

    def distance(self, first: F64, second: F64) -> float:
        return float(np.abs(first - second).max())

    def evidence(self, outputs: F64, output: int) -> float:
        return _log_odds(float(outputs[output]), 1.0 - float(outputs[output]))

    def legend(self, brief: bool = False) -> list[str]:
        return self.set_legend(*TRUE_TAGS)

    def target_output(self, predictor: Predictor, outputs: F64) -> int:
        # Choose the tag that is furthest above its threshold.
        return int(np.argmax(outputs - tag_thresholds(self.model, predictor)))


class RatingFormat(Format):
    """Format of one or more ratings: a value, an interval and a scale for each."""

    def __init__(self, model: FinalModel) -> None:
        super().__init__(model)
        # Valence and arousal also have a quadrant, with its probability.
        self.quadrant: list[str] = ["quadrant", "confidence"] * has_quadrants(model)
        self.header: tuple[str, ...] = (*self.quadrant, *model.classes)
        self.text_columns: frozenset[int] = frozenset({0} if self.quadrant else ())

    def label(self, predictor: Predictor, outputs: F64) -> dict[str, dict[str, float | None]]:
        """Return value, low and high of each target, clipped to its scale."""
        values = {}
        widths = self.model.limit(predictor, INTERVAL_SHARE)
        widths = np.full(len(outputs), np.nan) if widths is None else widths
        for name, value, width in zip(self.model.classes, outputs, widths, strict=True):
            found = np.clip([value, value - width, value + width], *self.model.ends(name))
            numbers = [None if np.isnan(number) else number for number in found.tolist()]
            values[name] = dict(zip(ENDS, numbers, strict=True))
        return values

    def _fields(self, predictor: Predictor, outputs: F64) -> Record:
        plane, values = predictor.expected.get("plane"), self.label(predictor, outputs)
        quadrant, confidence = (None, None) if plane is None else quadrant_of(outputs, **plane)
        widths = list[float]()
        for name, of in values.items():
            low, high = self.model.ends(name)
            if of["low"] is not None and of["high"] is not None:
                widths.append((of["high"] - of["low"]) / (high - low or 1.0))
        doubt = math.fsum(widths) / len(widths) if widths else None
        if confidence is not None:
            doubt = 1 - confidence
        found = {"quadrant": quadrant, "confidence": confidence, "doubt": doubt}
        return {"values": values, **found}

    def unknown(self) -> Record:
        sets = {name: self.sets[name] for name in self.sets if name != "set"}
        quadrant = dict.fromkeys(self.quadrant)
        return {**quadrant, "values": None, "scale": self._scale(), **sets}

    def csv_columns(self) -> list[str]:
        names = self.model.classes
        ends = [column for name in names for column in (name, f"{name} low", f"{name} high")]
        return [*self.quadrant, *ends]

    def csv_cells(self, record: Mapping[str, Any]) -> list[object]:
        values, names = record["values"] or {}, self.model.classes
        ends = [values.get(name, {}).get(end) for name in names for end in ENDS]
        return [*map(record.get, self.quadrant), *ends]

    def cells(self, record: Mapping[str, Any]) -> list[str]:
        confidence = record.get("confidence")
        shown = [record.get("quadrant") or "-", f"{confidence:.2f}" if confidence else "-"]
        return [*shown[: len(self.quadrant)], *map(_rating, record["values"].values())]

    def summary(self, predictor: Predictor, outputs: F64) -> str:
        values = self.label(predictor, outputs)
        return ", ".join(f"{name} {_rating(value)}" for name, value in values.items())

    def brief(self, predictor: Predictor, outputs: F64) -> str:
        values = self.label(predictor, outputs)
        return ", ".join(f"{name} {value['value']:.3g}" for name, value in values.items())

    def distance(self, first: F64, second: F64) -> float:
        # The unit is the standard deviation of the training clips' ratings.
        return float(np.max(np.abs(first - second) / self._statistic("deviation")))

    def evidence(self, outputs: F64, output: int) -> float:
        return float(outputs[output] / self._statistic("deviation")[output])

    def legend(self, brief: bool = False) -> list[str]:
        named: dict[str, list[str]] = {}
        for name, words in self._scale().items():
            named.setdefault(words.partition("; ")[0] if brief else words, []).append(name)
        lines = [f"{', '.join(names)}: {words}" for words, names in named.items()]
        share, asked = 100 * (self.model.coverage or INTERVAL_SHARE), self.model.asked
        what = f"in brackets: {share:.3g}% prediction interval"
        if len(self.model.classes) > 1:
            jointly = asked is not None and asked.option
            what += "s, for all ratings of a clip at once" if jointly else " of each rating"
        likely = "confidence: of 100 clips with 0.70, about 70 are in that quadrant"
        return [*lines, what, *[likely] * bool(self.quadrant)]

    def output_range(self) -> tuple[float, float]:
        lows, highs = zip(*map(self.model.ends, self.model.classes), strict=True)
        return min(lows), max(highs)

    def target_output(self, predictor: Predictor, outputs: F64) -> int:
        # Choose the target that is furthest from its mean, in standard deviations.
        away = np.abs(outputs - self._statistic("mean"))
        return int(np.argmax(away / self._statistic("deviation")))

    def _statistic(self, name: str) -> F64:
        """Return mean or standard deviation of each target over the training clips."""
        scales = [self.model.scale[target] for target in self.model.classes]
        return np.array([s[name] or float(name == "deviation") for s in scales])

    def _scale(self) -> dict[str, str]:
        """Return a description of each target's scale, starting with the text on the card."""
        words = self.model.facts.get("about", {}).get("scale", {})
        return {
            name: (f"{words[name]}; " if name in words else "")
            + f"the {self.model.facts['n_clips']} training clips were rated "
            f"{s['minimum']:.3g} to {s['maximum']:.3g}, mean {s['mean']:.3g}, standard "
            f"deviation {s['deviation']:.3g}"
            for name, s in self.model.scale.items()
        }


def format_of(model: FinalModel) -> Format:
    """Return the format for a model's task."""
    if model.task == "regression":
        return RatingFormat(model)
    return TagFormat(model) if model.task == "multilabel" else Format(model)


def has_quadrants(model: FinalModel) -> bool:
    """Return True if a model predicts the quadrant of valence and arousal."""
    return any("plane" in predictor.expected for predictor in model.predictors)


def quadrant_of(
    outputs: F64, at: list[int], centre: list[float], covariance: list[list[float]]
) -> tuple[str, float]:
    """Return the quadrant of predicted valence and arousal, and its probability.

    Errors are modelled as normal, with the `covariance` of out-of-fold errors.
    """
    away = outputs[at] - centre
    side = np.where(away >= 0, 1.0, -1.0)
    s = np.sqrt(np.diag(covariance)) + 1e-9
    rho = np.clip(covariance[0][1] / np.prod(s) * np.prod(side), -0.999, 0.999)
    # Errors are positive away from the centre; valence is in steps of equal probability.
    valence = _normal_steps()
    valence = valence[abs(away[0]) / s[0] + valence >= 0]
    arousal = (abs(away[1]) / s[1] + rho * valence) / np.sqrt(1 - rho**2)
    # Importing scipy.special takes longer than predicting a thousand clips.
    above = [0.5 * math.erfc(x) for x in (arousal * -math.sqrt(0.5)).tolist()]
    quadrant = QUADRANTS[[[2, 1], [3, 0]][int(side[0] > 0)][int(side[1] > 0)]]
    return quadrant, math.fsum(above) / STEPS


@cache
def _normal_steps() -> F64:
    """Return values of a standard normal distribution in `STEPS` of equal probability."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((step + 0.5) / STEPS) for step in range(STEPS)])


def relative_columns(record: Mapping[str, Any]) -> Record:
    """Return the columns of a record's plane and relative values, such as ``valence_rank``."""
    entries = {name: {"value": x} for name, x in (record.get("plane") or {}).items()}
    entries |= record.get("relative") or {}
    word = {"relative_quadrant": entries.pop("quadrant")} if "quadrant" in entries else {}
    return word | {f"{name}_{key}": x for name, of in entries.items() for key, x in of.items()}


def relative_cell(record: Mapping[str, Any]) -> str:
    """Return the quadrant and the first ranks in words."""
    entries = (record.get("relative") or {}).items()
    texts = [of if isinstance(of, str) else f"{name} {of['rank']:.2f}" for name, of in entries]
    return ", ".join(texts[:3]) or "-"


def _rating(value: dict[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    ends = "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"
    return f"{value['value']:.3g}{ends}"


def _ranked(proba: dict[str, float], first: int, most: int) -> str:
    """Return `most` names with their probabilities in descending order, from rank `first`."""
    ranked = sorted(proba.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {p:.2f}" for name, p in ranked[first : first + most])


def _log_odds(p: float, others: float) -> float:
    least = np.finfo(np.float64).tiny
    return float(np.log(max(p, least)) - np.log(max(others, least)))
