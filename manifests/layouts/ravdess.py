"""The file names of RAVDESS (Livingstone & Russo 2018): seven two-digit fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MODALITIES = ("audio-video", "video", "audio")
CHANNELS = ("speech", "song")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
# Of several copies of a take, the one that is kept where none is asked for.
PREFERRED = ("audio-video", "audio", "video")

_NAME = re.compile(r"-".join([r"(\d\d)"] * 7))


@dataclass(frozen=True)
class RavdessName:
    """The fields of a RAVDESS file name, ``03-02-05-02-01-01-12`` for example."""

    modality: str  # one of `MODALITIES`
    channel: str  # vocal channel, one of `CHANNELS`
    emotion: str  # one of `EMOTIONS`
    intensity: str  # one of `INTENSITIES`
    statement: int  # 1 or 2
    repetition: int  # 1 or 2
    actor: int  # 1 to 24; odd numbers are men

    @property
    def group(self) -> str:
        """The actor: a voice must not straddle folds, nor copies of one take."""
        return f"actor-{self.actor:02d}"

    @property
    def take(self) -> tuple[object, ...]:
        """What its copies with sound, pictures or both have in common."""
        return (
            *(self.channel, self.emotion, self.intensity),
            *(self.statement, self.repetition, self.actor),
        )

    @property
    def extra(self) -> tuple[tuple[str, str], ...]:
        """What a manifest keeps beside the label: modality, vocal channel and intensity."""
        return (
            ("modality", self.modality),
            ("channel", self.channel),
            ("intensity", self.intensity),
        )


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


def one_copy_each(
    names: Sequence[tuple[str, RavdessName]], modality: str | None
) -> tuple[list[tuple[str, RavdessName]], list[tuple[str, str]]]:
    """One file of every take: RAVDESS has most with sound and pictures, and with either alone."""
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
