"""File names of RAVDESS (Livingstone & Russo 2018), which consist of seven two-digit fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MODALITIES = ("audio-video", "video", "audio")
CHANNELS = ("speech", "song")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
# Order of preference among the copies of a take.
PREFERRED = ("audio-video", "audio", "video")

_NAME = re.compile(r"-".join([r"(\d\d)"] * 7))


@dataclass(frozen=True)
class RavdessName:
    """Fields of a RAVDESS file name, such as ``03-02-05-02-01-01-12``."""

    modality: str  # one of `MODALITIES`
    channel: str  # vocal channel, one of `CHANNELS`
    emotion: str  # one of `EMOTIONS`
    intensity: str  # one of `INTENSITIES`
    statement: int  # 1 or 2
    repetition: int  # 1 or 2
    actor: int  # 1 to 24; odd numbers are male actors

    @property
    def group(self) -> str:
        """Actor, so that neither a voice nor copies of a take are in two folds."""
        return f"actor-{self.actor:02d}"

    @property
    def take(self) -> tuple[object, ...]:
        """Fields that the copies of a take (sound, pictures or both) share."""
        return (
            *(self.channel, self.emotion, self.intensity),
            *(self.statement, self.repetition, self.actor),
        )

    @property
    def extra(self) -> tuple[tuple[str, str], ...]:
        """Facts for `Clip.extra`: modality, vocal channel and intensity."""
        return (
            ("modality", self.modality),
            ("channel", self.channel),
            ("intensity", self.intensity),
        )


def parse_ravdess(stem: str) -> RavdessName | None:
    """Parse a file name without suffix; return None if RAVDESS does not use it."""
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


def one_copy_each(
    names: Sequence[tuple[str, RavdessName]], modality: str | None
) -> tuple[list[tuple[str, RavdessName]], list[tuple[str, str]]]:
    """Return one file of each take, and (path, reason) of the other files.

    Most takes exist as sound with pictures, sound and pictures. `names` are (path, parsed name)
    pairs. `modality` selects one of `MODALITIES`, None the first of `PREFERRED` that exists.
    """
    kept: dict[tuple[object, ...], str] = {}
    for path, name in sorted(names, key=lambda item: PREFERRED.index(item[1].modality)):
        if modality in (None, name.modality):
            kept.setdefault(name.take, path)
    chosen, left_out = [], []
    for path, name in names:
        if kept.get(name.take) == path:
            chosen.append((path, name))
        elif modality not in (None, name.modality):
            left_out.append((path, f"modality is not {modality}"))
        else:
            left_out.append((path, "another copy of the same take is there"))
    return chosen, left_out
