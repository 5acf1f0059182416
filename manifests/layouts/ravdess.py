"""The file names of RAVDESS (Livingstone & Russo 2018): seven two-digit fields."""

from __future__ import annotations

import re
from dataclasses import dataclass

MODALITIES = ("audio-video", "video", "audio")
CHANNELS = ("speech", "song")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")

_NAME = re.compile(r"-".join([r"(\d\d)"] * 7))


@dataclass(frozen=True)
class RavdessName:
    """The fields of a RAVDESS file name, ``03-02-05-02-01-01-12`` for example.

    Parameters
    ----------
    modality
        One of `MODALITIES`.
    channel
        Vocal channel, one of `CHANNELS`.
    emotion
        One of `EMOTIONS`.
    intensity
        One of `INTENSITIES`.
    statement, repetition
        1 or 2.
    actor
        1 to 24; odd numbers are men.
    """

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: int
    repetition: int
    actor: int

    @property
    def group(self) -> str:
        """The actor: a voice must not straddle folds."""
        return f"actor-{self.actor:02d}"


def parse_ravdess(stem: str) -> RavdessName | None:
    """Read a file name without suffix; None where it is not one of RAVDESS."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = map(int, match.groups())
    tops = (
        (modality, len(MODALITIES)),
        (channel, len(CHANNELS)),
        (emotion, len(EMOTIONS)),
        (intensity, len(INTENSITIES)),
        (statement, 2),
        (repetition, 2),
        (actor, 24),
    )
    if not all(1 <= value <= top for value, top in tops):
        return None
    return RavdessName(
        MODALITIES[modality - 1],
        CHANNELS[channel - 1],
        EMOTIONS[emotion - 1],
        INTENSITIES[intensity - 1],
        statement,
        repetition,
        actor,
    )
