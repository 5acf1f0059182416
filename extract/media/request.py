"""What is to be decoded of one media file, and what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.arrays import F64
from mvemo.extract.errors import BadSetting
from mvemo.extract.media.checks import Problem
from mvemo.extract.views import ViewSettings, window_starts
from mvemo.manifests.cells import MAX_SECONDS


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a clip are chosen, and how large they are.

    Parameters
    ----------
    n_frames
        Frames of a window.
    size
        Height and width in pixels.
    views, layout, rate
        The windows, as of `mvemo.extract.views.ViewSettings`; by default one, whose frames
        are spread over the whole clip.

    Raises
    ------
    BadSetting
        A count, a rate or a size out of range.

    Examples
    --------
    >>> FrameSampling(n_frames=2, size=112).times(0.0, 8.0)
    array([2., 6.])
    >>> FrameSampling(n_frames=2, size=112, views=2, rate=4.0).times(0.0, 8.0)
    array([0.125, 0.375, 7.625, 7.875])
    """

    n_frames: int
    size: int
    views: int = 1
    layout: str = "spread"
    rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_frames", "size"):
            if getattr(self, name) < 1:
                raise BadSetting(f"{name} must be 1 or more, not {getattr(self, name)}")
        ViewSettings(self.views, self.layout, self.rate)

    @property
    def name(self) -> str:
        """Short, of letters and digits, and another one for other frames."""
        name = f"{self.n_frames}x{self.size}"
        if self.rate:
            return f"{name}-{self.views}{self.layout}{self.rate!r}"
        return name if self.views == 1 else f"{name}-{self.views}parts"

    def times(self, start: float, end: float) -> F64:
        """When the frames are shown, float64 (windows * n_frames,), window after window.

        A clip that is shorter than a window has its frames spread over all of it.
        """
        length = max(end - start, 0.0)
        window = self.n_frames / self.rate if self.rate else 0.0
        if not self.rate or length <= window:
            n_frames = self.n_frames * (1 if self.rate else self.views)
            return start + (np.arange(n_frames, dtype=np.float64) + 0.5) * (length / n_frames)
        begins = window_starts(length, window, ViewSettings(self.views, self.layout))
        steps = (np.arange(self.n_frames) + 0.5) / self.rate
        times: F64 = (start + begins[:, None] + steps).ravel()
        return times


@dataclass(frozen=True)
class ClipRequest:
    """The stretch of a file that is decoded, and to what; see `decode_clip`."""

    start: float = 0.0
    duration: float | None = None
    sample_rates: tuple[int, ...] = ()
    pictures: tuple[FrameSampling, ...] = ()
    threads: int = 0
    spool: Path | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start) and self.start >= 0):
            raise BadSetting(f"start must be 0 or more seconds, not {self.start}")
        if self.duration is not None and not (np.isfinite(self.duration) and self.duration > 0):
            raise BadSetting(f"duration must be more than 0 seconds, or None, not {self.duration}")
        for name, value in (("start", self.start), ("duration", self.duration or 0.0)):
            if value > MAX_SECONDS:
                raise BadSetting(f"{name} must be {MAX_SECONDS:.0f} seconds at most, not {value}")
        if any(rate < 1 for rate in self.sample_rates):
            raise BadSetting(f"sample_rates must be 1 or more each, not {list(self.sample_rates)}")

    @property
    def stop(self) -> float | None:
        """Where the clip ends, in seconds; None for the end of the file."""
        return None if self.duration is None else self.start + self.duration


@dataclass(frozen=True)
class StreamRequest:
    """What is read of a clip from its start to its end; see `stream_clip`."""

    start: float = 0.0  # the clip's stretch in seconds; None for all that follows
    duration: float | None = None  # the clip's stretch in seconds; None for all that follows
    sample_rates: tuple[int, ...] = ()  # in Hz; empty to leave the sound undecoded
    # Float64 (n,), ascending: when the pictures are shown, in seconds from the clip's start;
    # empty to leave them undecoded.
    times: F64 = field(default_factory=lambda: np.zeros(0))
    # Of each time, the heights and widths in pixels that are asked for.
    sizes: Sequence[frozenset[int]] = ()
    threads: int = 0  # of the decoders; 0 for as many as there are cores

    def of_clip(self) -> ClipRequest:
        """The same for the readers of whole clips, which take no times."""
        pictures = (FrameSampling(1, 1),) if len(self.times) else ()
        return ClipRequest(self.start, self.duration, self.sample_rates, pictures, self.threads)


@dataclass(frozen=True)
class Sound:
    """Which sound of a container is read."""

    track: int | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Decoded:
    """One clip, decoded.

    Parameters
    ----------
    waveforms
        Sampling rate in Hz to float32 (samples,): mono, the mean of all channels, as
        decoded (in [-1, 1] but for sound that clips). Empty where there is a problem.
    frames
        Sampling to uint8 (windows * n_frames, size, size, 3), RGB, window after window.
        Empty where there is a problem.
    seconds
        Length of the clip: of its sound, else of its pictures.
    problems
        ``audio`` or ``video`` to why the clip has no such modality.
    note
        Which sound was read, of a file with more than one; empty for most.
    """

    waveforms: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    frames: dict[FrameSampling, NDArray[np.uint8]] = field(default_factory=dict)
    seconds: float = 0.0
    problems: dict[str, Problem] = field(default_factory=dict)
    note: str = ""
