"""What is to be decoded of one media file, and what was."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadSetting
from mvemo.extract.media.checks import Problem

# Eleven days: no file of sound or video is as long.
MAX_SECONDS = 1e6


@dataclass(frozen=True)
class ClipRequest:
    """The stretch of a file that is decoded, and to what; see `decode_clip`.

    Raises
    ------
    BadSetting
        A time, a rate, a count or a size out of range.
    """

    start: float = 0.0
    duration: float | None = None
    sample_rates: tuple[int, ...] = ()
    n_frames: int = 32
    sizes: tuple[int, ...] = ()
    threads: int = 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start) and self.start >= 0):
            raise BadSetting(f"start must be 0 or more seconds, not {self.start}")
        if self.duration is not None and not (np.isfinite(self.duration) and self.duration > 0):
            raise BadSetting(f"duration must be more than 0 seconds, or None, not {self.duration}")
        for name, value in (("start", self.start), ("duration", self.duration or 0.0)):
            if value > MAX_SECONDS:
                raise BadSetting(f"{name} must be {MAX_SECONDS:.0f} seconds at most, not {value}")
        for name, values in (("sample_rates", self.sample_rates), ("sizes", self.sizes)):
            if any(value < 1 for value in values):
                raise BadSetting(f"{name} must be 1 or more each, not {list(values)}")
        if self.sizes and self.n_frames < 1:
            raise BadSetting(f"n_frames must be 1 or more, not {self.n_frames}")

    @property
    def stop(self) -> float | None:
        """Where the clip ends, in seconds; None for the end of the file."""
        return None if self.duration is None else self.start + self.duration


@dataclass(frozen=True)
class Decoded:
    """One clip, decoded.

    Parameters
    ----------
    waveforms
        Sampling rate in Hz to float32 (samples,): mono, the mean of all channels, as
        decoded (in [-1, 1] but for sound that clips). Empty where there is a problem.
    frames
        Size to uint8 (n_frames, size, size, 3), RGB. Empty where there is a problem.
    seconds
        Length of the clip: of its sound, else of its pictures.
    problems
        ``audio`` or ``video`` to why the clip has no such modality.
    """

    waveforms: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    frames: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    seconds: float = 0.0
    problems: dict[str, Problem] = field(default_factory=dict)
