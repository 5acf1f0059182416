"""Rated dimensions, such as valence: names of their columns, and places of words on their plane."""

import re
from collections.abc import Mapping, Sequence

# Words of a rated dimension in the name of a column.
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "valence": ("valence", "val", "pleasure", "pleasantness", "pl"),
    "arousal": ("arousal", "aro", "activation"),
    "energy": ("energy",),
    "tension": ("tension",),
    "dominance": ("dominance", "dom"),
}
# Words for the quadrants of valence and arousal: both high, low and high, both low, high and low.
QUADRANTS = ("excited", "tense", "sad", "calm")
# Valence and arousal, from 0 to 1, of words for emotions: their rough places in Russell's
# circumplex (1980). Other words have no place.
PLACES = {
    **dict.fromkeys(("excited", "exciting", "lively", "energetic"), (0.75, 0.85)),
    **dict.fromkeys(("happy", "happiness", "joy", "cheerful"), (0.9, 0.65)),
    **dict.fromkeys(("calm", "relaxed", "relaxing", "relaxation", "tenderness"), (0.75, 0.15)),
    **dict.fromkeys(("sad", "sadness", "melancholic"), (0.15, 0.2)),
    **dict.fromkeys(("tense", "tension"), (0.3, 0.8)),
    **dict.fromkeys(("angry", "anger"), (0.1, 0.85)),
    **dict.fromkeys(("fear", "fearful", "scary"), (0.15, 0.75)),
    **dict.fromkeys(("neutral",), (0.5, 0.5)),
}
# Ratings of the second axis; models of film music rate energy.
AROUSAL = ("arousal", "energy")
Place = tuple[float, float]

_LETTERS = {"v": "valence", "a": "arousal", "d": "dominance"}
_MEAN = {"mean", "avg", "average", "m", "mn", "mu", "label", "rating", "ratings", "score", "static"}
_MEAN |= {"scores", "value", "song", "sum", "median", "gt", "annotation", "annotations"}
_DEVIATION = {"std", "sd", "dev", "deviation", "stdev", "sigma", "stddev", "uncertainty"}

_RATED = "valence|arousal|dominance|pleasure|val|aro|dom|v|a|d"
_STATISTIC = "mean|mn|avg|std|sd|dev"
_JOINED = re.compile(f"({_RATED})({_STATISTIC})|({_STATISTIC})({_RATED})")


def rated_columns(header: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the columns of each rated dimension's means, and of its deviations."""
    means: dict[str, list[str]] = {}
    deviations: dict[str, str] = {}
    words = {name: _words(name) for name in header}
    letters = {word for parts in words.values() for word in parts} >= {"v", "a"}
    for name, parts in words.items():
        found = {
            dimension
            for dimension, names in DIMENSIONS.items()
            for word in parts
            if word in names or (letters and _LETTERS.get(word) == dimension)
        }
        rest = {word for word in parts if not any(word in n for n in DIMENSIONS.values())}
        rest -= {*_LETTERS} if letters else set()
        if len(found) != 1:
            continue
        (dimension,) = found
        if rest <= _MEAN:
            means.setdefault(dimension, []).append(name)
        elif rest <= _MEAN | _DEVIATION:
            deviations.setdefault(dimension, name)
    for dimension, columns in means.items():
        # A column that says that it is a mean is preferred to one that says nothing.
        stated = [name for name in columns if {*words[name]} & {"mean", "avg", "average", "mn"}]
        means[dimension] = stated or columns
    return means, deviations


def place_of(ratings: Mapping[str, float], weights: Mapping[str, float]) -> Place | None:
    """Return valence and arousal of ratings, or of words by their weights; None if not known.

    Ratings keep their unit; words have places from 0 to 1.
    """
    arousal = next((ratings[name] for name in AROUSAL if name in ratings), None)
    if "valence" in ratings and arousal is not None:
        return ratings["valence"], arousal
    found = [(p, PLACES[name.lower()]) for name, p in weights.items() if name.lower() in PLACES]
    total = sum(p for p, _ in found)
    if 2 * len(found) < len(weights) or not total:
        return None
    x, y = (sum(p * place[axis] for p, place in found) / total for axis in (0, 1))
    return x, y


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, also where no mark is between them."""
    spaced = re.sub("([a-z])([A-Z])", r"\1 \2", name).lower()
    found = []
    for word in re.findall("[a-z]+", spaced):
        joined = _JOINED.fullmatch(word)
        found += [part for part in joined.groups() if part] if joined else [word]
    return found
