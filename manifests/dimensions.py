"""Rated dimensions, such as valence: names of their columns, and places of words on their plane."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mvemo.manifests import tables, text_files

Place = tuple[float, float]
_WORDS = text_files.read_toml(Path(__file__).with_name("dimensions.toml"))
# Words of a rated dimension in the name of a column.
DIMENSIONS: dict[str, list[str]] = _WORDS["dimensions"]
# Words for the quadrants of valence and arousal: both high, low and high, both low, high and low.
QUADRANTS = ("excited", "tense", "sad", "calm")
# Valence and arousal, from 0 to 1, of words for emotions.
PLACES: dict[str, Place] = {
    word: (each["valence"], each["arousal"]) for each in _WORDS["places"] for word in each["words"]
}
# Ratings of the second axis; models of film music rate energy.
AROUSAL = ("arousal", "energy")

_LETTERS = {"v": "valence", "a": "arousal", "d": "dominance"}
_MEAN, _DEVIATION = {*_WORDS["mean"]}, {*_WORDS["deviation"]}

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
    """Return the words of a name in lower case; known words may be joined without a mark."""
    found: list[str] = []
    for word in tables.words_of(name):
        joined = _JOINED.fullmatch(word)
        found += [part for part in joined.groups() if part] if joined else [word]
    return found
