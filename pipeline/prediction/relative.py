"""Ranks, standard scores and quadrants within the clips of a call, or of a served folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.final.clip_prediction import ClipPrediction, Record
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.reference import folder_alarm
from mvemo.manifests.array_types import F64
from mvemo.manifests.dimensions import AROUSAL, QUADRANTS, place_of
from mvemo.pipeline.console.messages import tell_note

FEWEST = 10  # minimum number of clips to compare with each other
MANY, ONE_WORD = 20, 0.7  # comparing is offered for at least MANY clips, if this share has one word


def ranks(values: F64) -> F64:
    """Return (rank - 0.5) / n within each column of `values` (n, columns); ties share a rank."""
    columns = [(np.sort(column), column) for column in values.T]
    below = [s.searchsorted(c, "left") + s.searchsorted(c, "right") for s, c in columns]
    return np.stack(below, axis=1) / (2 * max(len(values), 1))


def compare(clips: Sequence[ClipPrediction]) -> list[Record]:
    """Return each clip's values relative to all clips; {} if not predicted or too few clips.

    Each rating has ``value``, ``rank`` and ``score``. Classes and tags are placed on the plane of
    valence and arousal first, from 0 to 1; outputs without a place on it are compared directly. In
    the ``quadrant``, ranks from 0.5 on are high.
    """
    # The plane is used only if all clips have one; videos without sound may lack it.
    by_plane = all(clip.plane for clip in clips if clip.is_predicted)
    rows = [_absolute(clip, by_plane) for clip in clips]
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


def _absolute(clip: ClipPrediction, by_plane: bool = False) -> dict[str, float]:
    """Return the values of a clip to compare with other clips; {} if it was not predicted."""
    if by_plane and clip.plane:
        return dict(clip.plane)
    if clip.values:
        return clip.ratings
    proba = clip.proba or {}
    if place_of({}, dict.fromkeys(proba, 1.0)) is None:
        return dict(proba)
    place = place_of({}, proba)
    return {} if place is None else dict(zip(("valence", "arousal"), place, strict=True))


def _quadrant(values: Mapping[str, float]) -> str | None:
    """Return the quadrant of valence and arousal around 0, or None if one of them is missing."""
    arousal = next((values[name] for name in AROUSAL if name in values), None)
    if arousal is None or "valence" not in values:
        return None
    is_pleasant = values["valence"] >= 0
    return QUADRANTS[1 - is_pleasant if arousal >= 0 else 2 + is_pleasant]


def reason_to_compare(model: FinalModel, clips: Sequence[ClipPrediction]) -> str:
    """Return why these clips should be compared with each other, or ''."""
    return _foreign(model, clips) or _one_word(model, clips)


def _one_word(model: FinalModel, clips: Sequence[ClipPrediction]) -> str:
    known = [clip for clip in clips if clip.is_predicted]
    if len(known) < MANY:
        return ""
    word, n = Counter(_word(model, clip) for clip in known).most_common(1)[0]
    is_one = word is not None and n > ONE_WORD * len(known)
    return f"{n} of {len(known)} clips came out as {word}" if is_one else ""


def _word(model: FinalModel, clip: ClipPrediction) -> str | None:
    """Return the class of a prediction, or else its quadrant, or None."""
    if isinstance(clip.label, str):
        return clip.label
    middle = {name: sum(model.ends(name)) / 2 for name in model.scale}
    return _quadrant({n: value - middle.get(n, 0.5) for n, value in _absolute(clip).items()})


def _foreign(model: FinalModel, clips: Sequence[ClipPrediction]) -> str:
    predictors = {f"{model.name}/{predictor.name}": predictor for predictor in model.predictors}
    known = [(predictors[c.model], c.unlikeness) for c in clips if c.model in predictors]
    if folder_alarm(model, [(predictor, far) for predictor, far in known if far is not None]):
        return f"these clips as a whole are unlike the music that {model.name} was made of"
    return ""


def compared(
    model: FinalModel, predictions: Sequence[ClipPrediction], relative: bool, how: str
) -> tuple[FinalModel, Sequence[ClipPrediction]]:
    """Add values relative to all clips if `relative`, else print a note that offers `how`."""
    if foreign := _foreign(model, predictions):
        offer = "" if relative else f", or {how} to compare them with each other"
        tell_note(f"{foreign}: judge 20 of them to see how well it does on them{offer}")
    elif not relative and (reason := _one_word(model, predictions)):
        tell_note(f"{reason}: {how} to compare the clips with each other")
    if not relative:
        return model, predictions
    found = compare(predictions)
    if not any(found):
        tell_note(f"no relative values: they need at least {FEWEST} predicted clips in one call")
    return model, [replace(p, relative=of) for p, of in zip(predictions, found, strict=True)]
