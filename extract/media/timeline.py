"""Frames and sound put in their place in time, as they come from the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Sound that starts this much off its time is moved; less is rounding of time stamps.
JUMP = 0.05
# The sample formats that decoders give: type, and full scale.
_KINDS: dict[str, type[np.generic]] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
_SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1.0, "dbl": 1.0}


class Beside:
    """Does work in order beside the decoder, which leaves the interpreter free.

    A context manager: leaving it waits for all that was given, and raises what failed.
    """

    # Frames held at a time: a decoder that outruns the work waits for it.
    AHEAD = 8

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[Future[None]] = []

    def run(self, work: Callable[..., None], *given: Any) -> None:
        """Call ``work(*given)`` after all that was given before."""
        self._waiting.append(self._pool.submit(work, *given))
        if len(self._waiting) > self.AHEAD:
            self._waiting.pop(0).result()

    def wait(self) -> None:
        """Until all that was given is done."""
        while self._waiting:
            self._waiting.pop(0).result()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self.wait()


class FrameTimes:
    """When the pictures of a stretch of a file are shown, as its packets say.

    Parameters
    ----------
    stamps
        int64 (packets,): presentation times in units of `base`, in any order; not empty.
    last
        How long the last of them is shown, in the same units; 0 where it is not said.
    base, origin
        Seconds a unit, and the file's first presentation time in seconds.
    """

    def __init__(self, stamps: Sequence[int], last: int, base: float, origin: float) -> None:
        self._stamps = np.sort(np.asarray(stamps, dtype=np.int64))
        self._seconds = self._stamps * base - origin
        steps = np.diff(self._seconds)
        own = last * base if last > 0 else float(np.median(steps)) if len(steps) else 0.0
        #: When the first picture is shown, in seconds from the file's first presentation time.
        self.first: float = float(self._seconds[0])
        #: A single picture, of which nobody says how long it is shown: as long as need be.
        self.still = len(self._stamps) == 1
        #: When the last picture ends, in seconds from the file's first presentation time.
        self.end: float = float(self._seconds[-1]) + own

    def shown_at(self, times: NDArray[np.float64]) -> set[int]:
        """Stamps of the pictures that are shown at some times (the first where none is yet)."""
        rows = np.searchsorted(self._seconds, times, side="right") - 1
        return {int(stamp) for stamp in self._stamps[np.maximum(rows, 0)]}


class FramePicker:
    """Chooses the frames that are shown at n uniform times.

    Parameters
    ----------
    begin, end
        Of the pictures, in seconds.
    n_frames
        How many times: begin + (i + 1/2) (end - begin) / n_frames.
    choose
        Given each chosen frame as soon as it is, and the rows of the times that show it.
    """

    def __init__(
        self, begin: float, end: float, n_frames: int, choose: Callable[[Any, slice], None]
    ) -> None:
        length = max(end - begin, 0.0)
        self._begin, self._end = begin, end
        #: float64 (n_frames,), in seconds.
        self.times: NDArray[Any] = begin + (np.arange(n_frames) + 0.5) * (length / max(n_frames, 1))
        self._next = 0
        self._last: Any = None
        self._choose = choose
        self._before = self._seen = begin

    def add(self, when: float, frame: Any) -> None:
        """A frame that is shown from `when` on; frames come in order of presentation."""
        if when >= self._end and self._last is not None:
            # After the clip: it only tells that the frame before it lasted until now.
            self._show(len(self.times))
            self._seen = self._end
            return
        # All times before this frame's show the one before it.
        if self._next < len(self.times) and self.times[self._next] < when:
            self._show(int(np.searchsorted(self.times, when, side="left")))
        own = float((frame.duration or 0) * (frame.time_base or 0))
        self._seen = when + (own or max(when - self._before, 0.0))
        self._before = when
        self._last = frame

    def _show(self, until: int) -> None:
        """The last frame is the one for all times up to row `until`."""
        if self._last is not None and until > self._next:
            self._choose(self._last, slice(self._next, until))
            self._next = until

    def finish(self) -> bool:
        """The last frame stays to the end; whether there was any."""
        self._show(len(self.times))
        return self._last is not None

    @property
    def seconds(self) -> float:
        """From the clip's start to where the last picture that was decoded ends."""
        if self._last is None:
            return 0.0
        return max(min(self._seen, self._end) - self._begin, 0.0)


class SoundCollector:
    """Joins decoded sound to one mono waveform that starts at the clip's start.

    Parameters
    ----------
    start, duration
        The clip's stretch, in seconds.
    """

    def __init__(self, start: float, duration: float | None) -> None:
        self._start, self._duration = start, duration
        self._chunks: list[Floats] = []
        self._filled = 0
        self._sr = 0
        self._decoded = 0
        self.problem = ""
        #: When the last sound that was decoded ends, in or before the clip, in seconds.
        self.ended = 0.0

    @property
    def seconds(self) -> float:
        """Length of the sound that was decoded within the clip."""
        return self._decoded / self._sr if self._sr else 0.0

    def add_all(self, frames: Sequence[tuple[float, Any]]) -> None:
        """Decoded frames, each with when it begins, in order."""
        for when, frame in frames:
            self._add(when, frame)

    def _add(self, when: float, frame: Any) -> None:
        if self._sr == 0:
            self._sr = frame.sample_rate
        elif frame.sample_rate != self._sr:
            self.problem = f"the sampling rate changes from {self._sr} to {frame.sample_rate} Hz"
            return
        mono = mono_of(frame)
        self.ended = when + frame.samples / self._sr
        at = round((when - self._start) * self._sr)
        if abs(at - self._filled) <= JUMP * self._sr and self._filled:
            at = self._filled
        if at < self._filled:
            mono, at = mono[self._filled - at :], self._filled
        if self._duration is not None:
            mono = mono[: max(round(self._duration * self._sr) - at, 0)]
        if len(mono) == 0:
            return
        if at > self._filled:
            self._chunks.append(np.zeros(at - self._filled, dtype=np.float32))
        self._chunks.append(mono)
        self._filled = at + len(mono)
        self._decoded += len(mono)

    def finish(self) -> tuple[Floats, int]:
        """float32 (samples,) and the sampling rate; empty where there was no sound."""
        if not self._chunks:
            return np.zeros(0, dtype=np.float32), self._sr or 1
        return np.concatenate(self._chunks), self._sr


def mono_of(frame: Any) -> Floats:
    """float32 (samples,): the mean of an audio frame's channels, full scale being 1."""
    name = frame.format.name.removesuffix("p")
    kind, channels = _KINDS[name], len(frame.layout.channels)
    # Decoders pad planes; the samples come first.
    if frame.format.is_planar:
        planes = [np.frombuffer(p, kind, frame.samples) for p in frame.planes]
    else:
        joint = np.frombuffer(frame.planes[0], kind, frame.samples * channels)
        planes = list(joint.reshape(-1, channels).T)
    total: NDArray[Any] = planes[0].astype(np.float32 if name == "flt" else np.float64)
    for plane in planes[1:]:
        total += plane
    if name == "u8":
        total -= 128.0 * channels
    total *= 1.0 / (_SCALES[name] * channels)
    return total.astype(np.float32, copy=False)
