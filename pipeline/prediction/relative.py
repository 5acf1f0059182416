"""Clips compared with each other: ranks, standard scores and quadrants within one group of clips.

The group is all clips of one call of ``mvemo predict``, or all predicted clips of a served folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.numeric import F64
from mvemo.manifests.dimensions import QUADRANTS
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.moods import AROUSAL, Mood
from mvemo.pipeline.prediction.formats import Record
from mvemo.pipeline.prediction.predictions import UNLIKE, Prediction, prediction_fields

# Smallest number of clips that are compared with each other.
FEWEST = 10
# Smallest number of clips, and share of one word among them, for which comparing them is offered.
MANY, ONE_WORD = 20, 0.7


def ranks(values: F64) -> F64:
    """Return (rank - 0.5) / n of each finite value, from 0 to 1; NaN for others.

    Equal values have the mean of their ranks.

    Examples
    --------
    >>> ranks(np.array([3.0, 1.0, np.nan, 3.0, 2.0])).tolist()
    [0.75, 0.125, nan, 0.75, 0.375]
    """
    found, is_known = np.full(len(values), np.nan), np.isfinite(values)
    _, place, counts = np.unique(values[is_known], return_inverse=True, return_counts=True)
    found[is_known] = (np.cumsum(counts) - counts / 2)[place] / max(len(place), 1)
    return found


def standard_scores(values: F64) -> F64:
    """Return (value - mean) / standard deviation of finite values, 0 if all are equal."""
    known = values[np.isfinite(values)]
    if not known.size or np.ptp(known) <= 1e-12 * np.abs(known).max():
        return np.where(np.isfinite(values), 0.0, np.nan)
    return np.asarray((values - known.mean()) / known.std())


def compare(records: Sequence[Record]) -> list[Record]:
    """Return for each record of predictions its values relative to all of them, {} without any.

    Each rating has ``rank`` and ``score``. A clip with classes or tags has them, and the ``value``
    from 0 to 1, of its valence and arousal, or of each output if its words have no place. The
    ``quadrant`` is low or high in valence and arousal; ranks from 0.5 on are high.
    """
    rows = [_absolute(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    found: list[Record] = [{} for _ in rows]
    for name in names:
        values = np.array([row.get(name, np.nan) for row in rows], np.float64)
        columns = zip(found, records, values, ranks(values), standard_scores(values), strict=True)
        for entries, record, value, rank, score in columns:
            if np.isfinite(value):
                own = {} if name in (record.get("values") or {}) else {"value": float(value)}
                entries[name] = {**own, "rank": float(rank), "score": float(score)}
    for entries in found:
        places = {name: entry["rank"] for name, entry in entries.items()}
        if word := quadrant_of(places, dict.fromkeys(places, 0.5)):
            entries["quadrant"] = word
    return found


def _absolute(record: Record) -> dict[str, float]:
    """Return the values of a record that are compared; {} if it was not predicted."""
    if values := record.get("values"):
        return {name: float(value["value"]) for name, value in values.items()}
    proba = record.get("proba") or {}
    if Mood(Path(), proba=dict.fromkeys(proba, 1.0)).place is None:
        return dict(proba)
    place = Mood(Path(), proba=proba).place
    return {} if place is None else dict(zip(("valence", "arousal"), place, strict=True))


def quadrant_of(values: Mapping[str, float], centre: Mapping[str, float]) -> str | None:
    """Return the quadrant of valence and arousal around a centre, or None without them."""
    arousal = next((name for name in AROUSAL if name in values), None)
    if arousal is None or "valence" not in values:
        return None
    is_high = tuple(values[name] >= centre[name] for name in ("valence", arousal))
    return QUADRANTS[[(True, True), (False, True), (False, False), (True, False)].index(is_high)]


def is_foreign(share_unlike: float) -> bool:
    """Return True if so large a share of a folder is unlike the training clips."""
    return share_unlike > 0.5


def reason_to_compare(model: FinalModel, records: Sequence[Record]) -> str:
    """Return why these clips should be compared with each other, or ''."""
    found = [record for record in records if record.get("model")]
    if len(found) < MANY:
        return ""
    words = [_word(model, record) for record in found]
    word = max(words, key=words.count)
    n_unlike = sum(any(n.startswith(UNLIKE) for n in record["notes"]) for record in found)
    if word is not None and (n := words.count(word)) > ONE_WORD * len(found):
        return f"{n} of {len(found)} clips came out as {word}"
    return f"{n_unlike} of {len(found)} clips are {UNLIKE}" * is_foreign(n_unlike / len(found))


def _word(model: FinalModel, record: Record) -> str | None:
    """Return the class of a prediction, otherwise its quadrant, or None."""
    if isinstance(record.get("label"), str):
        return str(record["label"])
    middle = {name: sum(model.ends(name)) / 2 for name in model.scale}
    values = _absolute(record)
    return quadrant_of(values, {name: middle.get(name, 0.5) for name in values})


def folder_record(model: FinalModel, records: Sequence[Record]) -> Record:
    """Return what the API of ``mvemo serve`` says about the predicted clips as a whole."""
    predicted = [record for record in records if record.get("model") and not record.get("error")]
    placed = [record for record in predicted if record["map"]]
    places = np.array([record["map"] for record in placed], np.float64).reshape(-1, 2)
    on_map = np.apply_along_axis(ranks, 0, places).tolist()
    found = compare(predicted) if len(predicted) >= FEWEST else [{} for _ in predicted]
    return {
        "clips": len(predicted),
        "fewest": FEWEST,
        "reason": reason_to_compare(model, predicted),
        "map": {r["id"]: place for r, place in zip(placed, on_map, strict=True)},
        "relative": {r["id"]: of for r, of in zip(predicted, found, strict=True) if of},
    }


def check_number(n: int) -> None:
    """Check that there are enough clips to compare them with each other."""
    if n < FEWEST:
        raise BadOption(
            f"--relative: expected at least {FEWEST} clips to compare with each other, got {n}: "
            "predict more clips in one call, or leave it out"
        )


def compared(
    model: FinalModel, predictions: Sequence[Prediction], relative: bool, how: str
) -> list[Prediction]:
    """Return the predictions with their relative values; without `relative` only offer them.

    `how` is what to do to get them.
    """
    records = [
        {"model": p.predictor and model.name, **prediction_fields(model, p)} for p in predictions
    ]
    if not relative:
        if reason := reason_to_compare(model, records):
            tell_note(f"{reason}: {how} to compare the clips with each other")
        return [*predictions]
    check_number(len(predictions))
    found = compare(records)
    if (n := sum(map(bool, found))) < FEWEST:
        tell_note(
            f"{n} of {len(found)} clips were predicted: no relative values, which need {FEWEST}"
        )
        found = [{} for _ in found]
    return [replace(p, relative=entries) for p, entries in zip(predictions, found, strict=True)]
