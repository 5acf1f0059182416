"""Ranks, standard scores and quadrants within the clips of a call, or of a served folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.final.model import FinalModel, folder_alarm
from mvemo.fuse.numeric import F64
from mvemo.manifests.dimensions import AROUSAL, QUADRANTS, place_of
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.prediction.formats import Record
from mvemo.pipeline.prediction.predictions import UNLIKE, Prediction, prediction_fields

FEWEST = 10  # smallest number of clips that are compared with each other
MANY, ONE_WORD = 20, 0.7  # number of clips, and share of one word, that make comparing worthwhile


def ranks(values: F64) -> F64:
    """Return (rank - 0.5) / n of values (n, columns) in their columns; ties have the mean rank."""
    columns = [(np.sort(column), column) for column in values.T]
    below = [s.searchsorted(c, "left") + s.searchsorted(c, "right") for s, c in columns]
    return np.stack(below, axis=1) / (2 * max(len(values), 1))


def compare(records: Sequence[Record]) -> list[Record]:
    """Return each record's values relative to all; {} without a prediction, or for few records.

    Each rating has ``value``, ``rank`` and ``score``. Classes and tags have them, from 0 to 1, of
    valence and arousal, or of each output if its words have no place. In the ``quadrant``, ranks
    from 0.5 on are high.
    """
    # If some clips have no plane, as videos without sound, it is not the measure of the others.
    predicted = [record for record in records if record.get("proba") or record.get("values")]
    by_plane = all(record.get("plane") for record in predicted)
    rows = [_absolute(record, by_plane) for record in records]
    known = [row for row in rows if row]
    if len(known) < FEWEST:
        return [{} for _ in rows]
    x = np.array([[*row.values()] for row in known], np.float64)
    is_equal = np.ptp(x, axis=0) <= 1e-12 * np.abs(x).max(axis=0)
    scores = (x - x.mean(axis=0)) * ~is_equal / np.where(is_equal, 1.0, x.std(axis=0))
    found = []
    for cells in np.stack([x, ranks(x), scores], axis=-1).tolist():
        entries = [dict(zip(("value", "rank", "score"), three, strict=True)) for three in cells]
        of_name = dict(zip(known[0], entries, strict=True))
        word = _quadrant({name: entry["rank"] - 0.5 for name, entry in of_name.items()})
        found.append(({"quadrant": word} if word else {}) | of_name)
    compared = iter(found)
    return [next(compared) if row else {} for row in rows]


def _absolute(record: Record, by_plane: bool = False) -> dict[str, float]:
    """Return the values of a record that are compared; {} if it was not predicted."""
    proba = record.get("proba") or {}
    if by_plane and (plane := record.get("plane")):
        return dict(plane)
    if values := record.get("values"):
        return {name: float(value["value"]) for name, value in values.items()}
    if place_of({}, dict.fromkeys(proba, 1.0)) is None:
        return dict(proba)
    place = place_of({}, proba)
    return {} if place is None else dict(zip(("valence", "arousal"), place, strict=True))


def _quadrant(values: Mapping[str, float]) -> str | None:
    """Return the quadrant around 0 of valence and arousal, or None without them."""
    arousal = next((values[name] for name in AROUSAL if name in values), None)
    if arousal is None or "valence" not in values:
        return None
    is_pleasant = values["valence"] >= 0
    return QUADRANTS[1 - is_pleasant if arousal >= 0 else 2 + is_pleasant]


def is_foreign(share_unlike: float) -> bool:
    """Return True if so large a share of a folder is unlike the training clips."""
    return share_unlike > 0.5


def reason_to_compare(model: FinalModel, records: Sequence[Record]) -> str:
    """Return why these clips should be compared with each other, or ''."""
    found = [record for record in records if record.get("proba") or record.get("values")]
    if len(found) < MANY:
        return ""
    words = Counter(_word(model, record) for record in found)
    word, n = words.most_common(1)[0]
    if word is not None and n > ONE_WORD * len(found):
        return f"{n} of {len(found)} clips came out as {word}"
    n = sum(any(note.startswith(UNLIKE) for note in record["notes"]) for record in found)
    return f"{n} of {len(found)} clips are {UNLIKE}" if is_foreign(n / len(found)) else ""


def _word(model: FinalModel, record: Record) -> str | None:
    """Return the class of a prediction, otherwise its quadrant, or None."""
    if isinstance(record.get("label"), str):
        return str(record["label"])
    middle = {name: sum(model.ends(name)) / 2 for name in model.scale}
    return _quadrant({n: value - middle.get(n, 0.5) for n, value in _absolute(record).items()})


def compared(
    model: FinalModel, predictions: Sequence[Prediction], relative: bool, how: str
) -> tuple[FinalModel, Sequence[Prediction]]:
    """Return model and predictions with relative values, or only offer them: `how` gets them."""
    records = [prediction_fields(model, prediction) for prediction in predictions]
    if folder_alarm(model, [(p.predictor, p.unlikeness) for p in predictions if p.predictor]):
        tell_note(
            f"these clips as a whole are unlike the music that {model.name} was made of: judge 20 "
            "of them to see how well it does on them"
            + ("" if relative else f", or {how} to compare them with each other")
        )
    elif not relative and (reason := reason_to_compare(model, records)):
        tell_note(f"{reason}: {how} to compare the clips with each other")
    if not relative:
        return model, predictions
    found = compare(records)
    if not any(found):
        tell_note(f"no relative values: they need at least {FEWEST} predicted clips in one call")
    return model, [replace(p, relative=of) for p, of in zip(predictions, found, strict=True)]
