"""Windows of long files that nets read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.media.isolated import probe_isolated
from mvemo.extract.nets import AudioInput, NetInput
from mvemo.pipeline.prediction.inputs import NewClip

# Length of a window if no net reads sound.
DEFAULT_SECONDS = 30.0
# Clips longer than `LONG` inputs are read in up to `MOST_WINDOWS` windows, to bound the cost.
LONG = 1.5
MOST_WINDOWS = 8


@dataclass(frozen=True)
class Windows:
    """Windows of a clip that are read."""

    # (start, duration) in seconds; a duration of None is the rest of the file.
    stretches: tuple[tuple[float, float | None], ...] = ()
    notes: tuple[str, ...] = ()  # notes for the user
    problem: str = ""  # reason why there are no windows
    length: float = 0.0  # length of the clip in seconds; 0 if unknown
    passing: bool = False  # True if the problem may not happen again


def input_seconds(inputs: Iterable[NetInput]) -> float:
    """Return the longest input among nets of sound, in seconds."""
    lengths = [i.seconds for i in inputs if isinstance(i, AudioInput)]
    return max(lengths, default=DEFAULT_SECONDS)


def windows_of(clip: NewClip, seconds: float, length: float | None = None) -> Windows:
    """Return the windows to read: the whole clip, or windows of `seconds` spread over a long one.

    `length` is the length that an earlier call found; None measures the file.
    """
    if length is None:
        try:
            length = probe_isolated(clip.path) - clip.start
        except ExtractError as error:
            reason = str(error).removeprefix(f"{clip.path}: ")
            return Windows(problem=reason, passing=not isinstance(error, BadMedia))
        if length <= 0:
            return Windows(problem=f"the clip starts at {clip.start:g} s, after its file's end")
        if clip.duration is not None:
            length = min(length, clip.duration)
    if length <= LONG * seconds:
        notes: Sequence[str] = ()
        if length < 1.0:
            notes = (f"only {length:.2f} s long: too short to tell",)
        elif length > seconds + 1.0:
            notes = (f"{length:.0f} s long: of its sound the first {seconds:g} s are read",)
        return Windows(((clip.start, clip.duration),), tuple(notes), length=length)
    count = min(math.ceil(length / seconds), MOST_WINDOWS)
    starts = clip.start + np.linspace(0.0, length - seconds, count)
    note = f"{length:.0f} s long: the mean of {count} windows of {seconds:g} s, spread over it"
    stretches = tuple((round(float(s), 3), seconds) for s in starts)
    return Windows(stretches, (note,), length=length)
