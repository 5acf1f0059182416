"""Rated dimensions, such as valence, in the names of columns."""

import re
from collections.abc import Sequence

# Words of a rated dimension in the name of a column.
DIMENSIONS = {
    "valence": ("valence", "val", "pleasure", "pleasantness", "pl"),
    "arousal": ("arousal", "aro", "activation"),
    "energy": ("energy",),
    "tension": ("tension",),
    "dominance": ("dominance", "dom"),
}
# Words of the quadrants of valence and arousal, from both high against the clock (Russell 1980).
QUADRANTS = ("excited", "tense", "sad", "calm")
_LETTERS = {"v": "valence", "a": "arousal", "d": "dominance"}
_MEAN = {"mean", "avg", "average", "m", "mn", "mu", "label", "rating", "ratings", "score", "static"}
_MEAN |= {"scores", "value", "song", "sum", "median", "gt", "annotation", "annotations"}
_DEVIATION = {"std", "sd", "dev", "deviation", "stdev", "sigma", "stddev", "uncertainty"}

_RATED = "valence|arousal|dominance|pleasure|val|aro|dom|v|a|d"
_STATISTIC = "mean|mn|avg|std|sd|dev"
_JOINED = re.compile(f"({_RATED})({_STATISTIC})|({_STATISTIC})({_RATED})")


def rated_columns(header: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the columns of each rated dimension's means, and of its deviations.

    Examples
    --------
    >>> rated_columns(["song", "Valence(mean)", "Arousal(mean)", "Valence(std)", "arousal_max"])
    ({'valence': ['Valence(mean)'], 'arousal': ['Arousal(mean)']}, {'valence': 'Valence(std)'})
    """
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


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, also where no mark is between them."""
    spaced = re.sub("([a-z])([A-Z])", r"\1 \2", name).lower()
    found = []
    for word in re.findall("[a-z]+", spaced):
        joined = _JOINED.fullmatch(word)
        found += [part for part in joined.groups() if part] if joined else [word]
    return found
