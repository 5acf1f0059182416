"""Recipes for the sound and the pictures of each emotion class, after PL20 section 2.

PL20's words: Exciting has fast tempo, major tonality, complementing harmonics, high body
movement and colourful places. Fear has fast tempo, high loudness, irregular rhythm, and
pictures of danger or horror that change abruptly. Relaxation has slow tempo, complementing
harmonies and natural scenes. Sad has slow tempo, minor tonality and the look of loss and
despair. Tension has high loudness, fast tempo, clashing harmonies and violent, highly
arousing scenes. Neutral mixes influences of the others.

Neither modality suffices to classify. Sound hardly separates Fear from Tension (loud,
clashing, off the beat), or Sad from Relaxation (slow and soft; only the mode differs).
Pictures hardly separate Exciting from Tension (fast, colourful, many cuts); Fear is as dark
and colourless as Sad, but has cuts. Every two classes differ in sound or in pictures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from mvemo.manifests.schemes import SCHEMES

CLASSES = SCHEMES["pl20"].classes
_MIXED = "Neutral"


@dataclass(frozen=True)
class Sound:
    """Recipe of a clip's music."""

    tempo: float  # beats a minute
    minor: float  # probability of a minor mode, 0 to 1
    level: float  # RMS level in dBFS
    regularity: float  # 1 for beats on time, 0 for onsets anywhere
    dissonance: float  # share of chords with minor seconds, 0 to 1
    brightness: float  # share of high harmonics, 0 to 1
    drums: float  # level of the beats relative to the chords, 0 to 1
    root: float  # MIDI number of the key note
    even: float = 0.6  # level of even harmonics relative to odd ones, 0 to 1 (the instrument)


@dataclass(frozen=True)
class Picture:
    """Recipe of a clip's pictures."""

    motion: float  # speed of the discs, in picture widths per second
    light: float  # mean brightness, 0 to 1
    hue: float  # hue in turns, 0 to 1
    colour: float  # saturation, 0 to 1
    cuts: float  # cuts per second
    slope: float = 0.25  # direction in which the background grows lighter, in turns


SOUNDS = {
    "Exciting": Sound(156, 0.15, -13, 1.0, 0.0, 0.8, 0.9, 62),
    "Fear": Sound(136, 0.85, -14.5, 0.1, 0.85, 0.5, 0.25, 43),
    "Neutral": Sound(104, 0.3, -21, 0.95, 0.05, 0.4, 0.5, 57),
    "Relaxation": Sound(66, 0.15, -28, 0.9, 0.0, 0.1, 0.0, 56),
    "Sad": Sound(64, 0.85, -28, 0.9, 0.0, 0.1, 0.0, 55),
    "Tension": Sound(134, 0.85, -14.5, 0.15, 0.9, 0.5, 0.3, 43),
}
PICTURES = {
    "Exciting": Picture(1.1, 0.58, 0.07, 0.8, 2.0),
    "Fear": Picture(0.15, 0.18, 0.62, 0.2, 1.6),
    "Neutral": Picture(0.4, 0.45, 0.12, 0.15, 0.4),
    "Relaxation": Picture(0.1, 0.68, 0.37, 0.5, 0.1),
    "Sad": Picture(0.13, 0.2, 0.61, 0.2, 0.2),
    "Tension": Picture(1.1, 0.56, 0.04, 0.77, 2.0),
}
# Share of clips whose sound or pictures have the recipe of a random class.
STRAYS = 0.05

_Recipe = TypeVar("_Recipe", Sound, Picture)


def sound_of(label: str, group: np.random.Generator, clip: np.random.Generator) -> Sound:
    """Draw a clip's music: the group fixes key and instrument, the rest varies by clip.

    `group` is a generator in the same state for every clip of a group; `clip` is the clip's own.
    """
    recipe = _drawn(SOUNDS, label, clip)
    return replace(
        recipe,
        root=recipe.root + int(group.integers(-4, 5)),
        tempo=recipe.tempo * float(np.exp(0.08 * group.normal() + 0.03 * clip.normal())),
        level=recipe.level + 1.5 * float(group.normal()) + 1.0 * float(clip.normal()),
        brightness=_share(recipe.brightness + 0.12 * group.normal()),
        even=_share(group.uniform(0.2, 1.0)),
        minor=float(group.random() < recipe.minor),
        dissonance=_share(recipe.dissonance + 0.06 * clip.normal()),
        regularity=_share(recipe.regularity + 0.05 * clip.normal()),
        drums=_share(recipe.drums + 0.08 * clip.normal()),
    )


def picture_of(label: str, group: np.random.Generator, clip: np.random.Generator) -> Picture:
    """Draw a clip's pictures: the group fixes the palette, the rest varies by clip.

    Parameters are those of `sound_of`.
    """
    recipe = _drawn(PICTURES, label, clip)
    light = recipe.light * float(np.exp(0.1 * group.normal() + 0.08 * clip.normal()))
    return replace(
        recipe,
        light=float(np.clip(light, 0.06, 0.8)),
        hue=float((recipe.hue + 0.05 * group.normal()) % 1.0),
        colour=_share(recipe.colour + 0.07 * group.normal()),
        slope=float(group.random()),
        motion=recipe.motion * float(np.exp(0.25 * clip.normal())),
        cuts=recipe.cuts * float(np.exp(0.2 * clip.normal())),
    )


def _drawn(recipes: dict[str, _Recipe], label: str, clip: np.random.Generator) -> _Recipe:
    """Return the class's recipe (rarely another one); Neutral is mixed with another class."""
    other = recipes[CLASSES[int(clip.integers(len(CLASSES)))]]
    share = clip.uniform(0.0, 0.25)
    if clip.random() < STRAYS:
        return other
    recipe = recipes[label]
    if label != _MIXED:
        return recipe
    # Hue and key are not mixed: a value between two others is not similar to both.
    fields = [f.name for f in dataclasses.fields(recipe) if f.name not in ("hue", "root")]
    mixed = {
        name: (1 - share) * getattr(recipe, name) + share * getattr(other, name) for name in fields
    }
    return replace(recipe, **mixed)


def _share(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))
