"""Requests for the decoding of a clip, and its result with the problems of the media file."""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.settings import ViewSettings, window_starts
from mvemo.manifests.array_types import F64
from mvemo.manifests.clip_rows import MAX_SECONDS
from mvemo.manifests.declared import Allowed, check_settings, setting
from mvemo.manifests.errors import BadOption

# A clip counts as cut off if less than this share of it can be decoded.
MIN_DECODED_SHARE = 0.8
IN_WORDS = {"audio": "sound", "video": "pictures"}


@dataclass(frozen=True)
class MediaProblem:
    """Reason, as a single line, why a clip has no usable sound or no usable pictures."""

    reason: str
    # True if an intact file lacks the modality (no such stream, or silence); False if the modality
    # should exist but cannot be read.
    missing: bool = False
    passing: bool = False  # True if it may not occur again (memory ran out, or no file)

    def __str__(self) -> str:
        return self.reason


NO_VIDEO = MediaProblem("no video stream", missing=True)
NO_AUDIO = MediaProblem("no audio stream", missing=True)
CUT_OFF = MediaProblem("cut off: the end of the file is missing")


def reasons_text(problems: Mapping[str, object]) -> str:
    return "; ".join(f"{IN_WORDS[m]}: {problems[m]}" for m in IN_WORDS if m in problems)


def in_words(modalities: Iterable[str]) -> str:
    """Return modalities in plain words, such as 'sound and pictures'."""
    return " and ".join(IN_WORDS[modality] for modality in modalities)


def check_length(seconds: float, expected: float) -> MediaProblem | None:
    """Return a problem if far less than `expected` seconds were decoded; 0 skips the check."""
    if expected <= 0 or seconds >= MIN_DECODED_SHARE * expected:
        return None
    if seconds <= 0:
        return MediaProblem(f"nothing can be decoded, expected {expected:.1f} s")
    return MediaProblem(f"cut off: only {seconds:.1f} of {expected:.1f} s can be decoded")


def starts_after_end(start: float, stream: str, seconds: float) -> MediaProblem:
    return MediaProblem(f"the clip starts at {start:g} s, but the {stream} at {seconds:.1f} s")


def error_line(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
    return " ".join(text.split()) or type(error).__name__


@dataclass(frozen=True)
class FrameSampling:
    """Times and size of the frames to decode; a value out of range raises `BadOption`.

    Parameters
    ----------
    n_frames
        Number of frames per window.
    size
        Height and width in pixels.
    views, layout, rate
        Windows, as in `mvemo.extract.settings.ViewSettings`; by default a single window, whose
        frames are spread over the whole clip.

    Examples
    --------
    >>> FrameSampling(n_frames=2, size=112, views=2, rate=4.0).times(0.0, 8.0)
    array([0.125, 0.375, 7.625, 7.875])
    """

    n_frames: int = field(metadata={"allowed": Allowed(ge=1)})
    size: int = field(metadata={"allowed": Allowed(ge=1)})
    views: int = 1
    layout: str = "spread"
    rate: float = 0.0

    def __post_init__(self) -> None:
        check_settings(self)
        ViewSettings(self.views, self.layout, self.rate)

    @property
    def name(self) -> str:
        """Short name that is unique to the sampling, for file names."""
        name = f"{self.n_frames}x{self.size}"
        if self.rate:
            return f"{name}-{self.views}{self.layout}{self.rate!r}"
        return name if self.views == 1 else f"{name}-{self.views}parts"

    def times(self, start: float, end: float) -> F64:
        """Return the frames' times in seconds, by window, float64 (windows * n_frames,)."""
        length = max(end - start, 0.0)
        window = self.n_frames / self.rate if self.rate else 0.0
        if not self.rate or length <= window:
            # The frames are spread over the whole clip.
            n_frames = self.n_frames * (1 if self.rate else self.views)
            return start + (np.arange(n_frames, dtype=np.float64) + 0.5) * (length / n_frames)
        begins = window_starts(length, window, ViewSettings(self.views, self.layout))
        steps = (np.arange(self.n_frames) + 0.5) / self.rate
        return (start + begins[:, None] + steps).ravel()


@dataclass(frozen=True, eq=False)
class FrameTimes(FrameSampling):
    """Frames at given times; after the end of the pictures, the last frame is repeated."""

    n_frames: int = field(init=False)
    seconds: F64 = field(kw_only=True)  # from the clip's start, ascending, (n_frames,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_frames", len(self.seconds))

    @property
    def name(self) -> str:
        return f"{self.n_frames}x{self.size}-{zlib.crc32(self.seconds.tobytes()):x}"

    def times(self, start: float, end: float) -> F64:
        return start + self.seconds


@dataclass(frozen=True)
class DecodeRequest:
    sample_rates: tuple[int, ...] = ()  # Hz; empty to skip the sound
    pictures: tuple[FrameSampling, ...] = ()
    # Loudness in LUFS to which the sound is brought; 0 to leave it as it is.
    level: float = setting(0.0, ge=-70, le=0)

    @property
    def modalities(self) -> tuple[str, ...]:
        asked = (("audio", self.sample_rates), ("video", self.pictures))
        return tuple(modality for modality, values in asked if values)


@dataclass(frozen=True)
class ClipRequest(DecodeRequest):
    """Checked arguments of `decode_clip`."""

    start: float = setting(0.0, ge=0, le=MAX_SECONDS)  # seconds
    duration: float | None = setting(None, gt=0, le=MAX_SECONDS)
    threads: int = 0  # number of decoder threads; 0 for one per core
    spool: Path | None = None  # folder for long sound; None to keep all in memory

    def __post_init__(self) -> None:
        check_settings(self)
        if any(rate < 1 for rate in self.sample_rates):
            raise BadOption(f"all sample_rates must be 1 or more, got {list(self.sample_rates)}")

    @property
    def stop(self) -> float | None:
        return None if self.duration is None else self.start + self.duration


@dataclass(frozen=True)
class Sound:
    """Audio track and channel to read from a container."""

    track: int | None = None  # index of the stream; None for the preferred audio stream
    channel: int | None = None  # None for the mix of all channels


@dataclass(frozen=True)
class Decoded:
    """Decoded sound and frames of one clip."""

    # Mono mix by sampling rate in Hz, float32 (samples,), in [-1, 1] unless the sound exceeds full
    # scale or is brought to a level; empty if there is a problem.
    waveforms: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    # uint8 (windows * n_frames, size, size, 3), RGB, window after window; empty if there is a
    # problem.
    frames: dict[FrameSampling, NDArray[np.uint8]] = field(default_factory=dict)
    seconds: float = 0.0  # length of the sound, or of the pictures if there is no sound
    problems: dict[str, MediaProblem] = field(default_factory=dict)  # by modality: audio, video
    note: str = ""  # note about the tracks or channel that were read; empty for most files
    # Integrated loudness of the mono sound in the file in LUFS; -inf without sound.
    loudness: float = -math.inf
