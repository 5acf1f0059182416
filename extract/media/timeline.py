"""Decoded frames and sound of a container, placed on a clip's time line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mvemo.extract.array_types import F32, F64, U8
from mvemo.extract.media.audio import OnBlock, Waveforms
from mvemo.extract.media.request import ClipRequest, FrameSampling, Problem

# Gap or overlap of sound, in seconds, that is corrected; a smaller one is rounding.
MIN_GAP = 0.05
# Type and full scale of the decoders' sample formats.
_SAMPLE_FORMATS: dict[str, tuple[type[np.generic], float]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, 1.0),
    "dbl": (np.float64, 1.0),
}


class FrameTimes:
    """Presentation times of the frames in a stretch of a file, from its packets.

    `stamps` are the packets' times in units of `time_base`, in any order, not empty;
    `last_duration` is the duration of the last frame in the same unit, 0 if not stated.
    """

    def __init__(
        self, stamps: Sequence[int], last_duration: int, time_base: float, origin: float
    ) -> None:
        self._stamps = np.sort(np.asarray(stamps, dtype=np.int64))
        self._seconds = self._stamps * time_base - origin
        if last_duration > 0:
            last = last_duration * time_base
        else:
            steps = np.diff(self._seconds)
            last = float(np.median(steps)) if len(steps) else 0.0
        # Seconds from the file's first presentation time.
        self.first: float = float(self._seconds[0])
        self.end: float = float(self._seconds[-1]) + last
        # One frame is shown as long as the sound lasts.
        self.single = len(self._stamps) == 1

    def stamps_at(self, times: F64) -> set[int]:
        """Return the stamps of the frames shown at some times; the first frame's before it."""
        rows = np.searchsorted(self._seconds, times, side="right") - 1
        return {int(stamp) for stamp in self._stamps[np.maximum(rows, 0)]}


class FramePicker:
    """Picker of the frames shown at some times, float64 (n,), ascending, in seconds.

    `on_frame` is called with each chosen frame and the rows of the times that show it.
    """

    def __init__(
        self, start: float, end: float, times: F64, on_frame: Callable[[Any, slice], None]
    ) -> None:
        self._start, self._end = start, end
        self.times = times
        self._on_frame = on_frame
        self._next_row = 0
        self._frame: Any = None
        self._frame_start = self._frame_end = start

    def add(self, when: float, frame: Any) -> None:
        """Add the frame that is shown from `when` on; frames come in order of presentation."""
        if when >= self._end and self._frame is not None:
            # A frame beyond the clip shows that the one before lasted until the clip's end.
            self._show_until(len(self.times))
            self._frame_end = self._end
            return
        # All earlier times show the frame before this one.
        if self._next_row < len(self.times) and self.times[self._next_row] < when:
            self._show_until(int(np.searchsorted(self.times, when, side="left")))
        duration = float((frame.duration or 0) * (frame.time_base or 0))
        self._frame_end = when + (duration or max(when - self._frame_start, 0.0))
        self._frame_start = when
        self._frame = frame

    def _show_until(self, row: int) -> None:
        """Choose the last frame for all times before `row` that have none."""
        if self._frame is not None and row > self._next_row:
            self._on_frame(self._frame, slice(self._next_row, row))
            self._next_row = row

    def finish(self) -> None:
        """Choose the last frame for all remaining times."""
        self._show_until(len(self.times))

    @property
    def is_empty(self) -> bool:
        """True if no frame was added."""
        return self._frame is None

    @property
    def seconds(self) -> float:
        """Seconds from the clip's start to the end of the last decoded frame."""
        if self._frame is None:
            return 0.0
        return max(min(self._frame_end, self._end) - self._start, 0.0)


class SquareScaler:
    """Scaler of frames to square pictures: turned upright, cropped to the middle, resized."""

    def __init__(self) -> None:
        # Shared by all frames: a new one would set up its tables and threads each time.
        self._reformatter = VideoReformatter()
        self._options: dict[str, int] = {"threads": 1}

    def squares(self, frame: Any, sizes: Sequence[int]) -> dict[int, U8]:
        """Return a PyAV frame's picture at each size, uint8 (size, size, 3), RGB."""
        picture = self._rgb(frame)
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        # A rotation does not move the middle of the picture.
        square = picture[top : top + side, left : left + side]
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        mirrored = _is_mirrored(frame)
        squares: dict[int, U8] = {}
        for size in sizes:
            interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
            resized = cv2.resize(square, (size, size), interpolation=interpolation)
            upright = np.rot90(resized[::-1] if mirrored else resized, quarter_turns)
            squares[size] = np.asarray(upright, dtype=np.uint8)
        return squares

    def _rgb(self, frame: Any) -> U8:
        """Convert a frame by its stated colour matrix and range, uint8 (height, width, 3)."""
        try:
            converted = self._reformatter.reformat(frame, format="rgb24", **self._options)
        except TypeError:
            # Older versions of PyAV have no such option, and always use one thread.
            self._options = {}
            converted = self._reformatter.reformat(frame, format="rgb24")
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _is_mirrored(frame: Any) -> bool:
    """Return True if a frame's display matrix mirrors it, in addition to any rotation."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.float64)
    return bool(a * d < b * c)


class FrameScaler:
    """Square pictures of the decoded frames of a clip from `start` to `end`, in seconds."""

    def __init__(self, samplings: Sequence[FrameSampling], start: float, end: float) -> None:
        targets = [(t, s, row) for s in samplings for row, t in enumerate(s.times(start, end))]
        # For each time: its sampling, and its row in that sampling's pictures.
        self._targets = sorted(targets, key=lambda target: target[0])
        self.times: F64 = np.array([time for time, _, _ in self._targets])
        counts = Counter(sampling for _, sampling, _ in targets)
        # uint8 (windows * n_frames, size, size, 3), RGB; zeros until frames are added.
        self.pictures: dict[FrameSampling, U8] = {
            s: np.zeros((counts[s], s.size, s.size, 3), dtype=np.uint8) for s in samplings
        }
        self._scaler = SquareScaler()

    def add(self, frame: Any, rows: slice) -> None:
        """Put a PyAV frame into `pictures`, for the given rows of `times`."""
        targets = self._targets[rows]
        squares = self._scaler.squares(frame, sorted({sampling.size for _, sampling, _ in targets}))
        for _, sampling, row in targets:
            self.pictures[sampling][row] = squares[sampling.size]


class SoundCollector:
    """Mono waveforms of a clip, joined from decoded frames of sound.

    `channel` is the channel that is read, None for the mean of all.
    """

    def __init__(
        self, request: ClipRequest, on_block: OnBlock | None = None, channel: int | None = None
    ) -> None:
        self._request, self._on_block, self._channel = request, on_block, channel
        self._sound: Waveforms | None = None
        self._n_decoded = 0
        self._n_before = 0
        self.end = 0.0  # end of the last decoded sound in or before the clip, in seconds
        self.error = ""  # reason why the sound cannot be used

    @property
    def seconds(self) -> float:
        """Seconds from the clip's start to the end of its last sound."""
        return self._sound.n_samples / self._sound.sr if self._sound else 0.0

    @property
    def decoded_seconds(self) -> float:
        """`seconds` without the gaps in the sound."""
        return (self._n_before + self._n_decoded) / self._sound.sr if self._sound else 0.0

    @property
    def is_silent(self) -> bool:
        """True if no sound was added, or only silence."""
        return self._sound is None or self._sound.is_silent

    @property
    def channel(self) -> int | None:
        """First channel that is not silent, if the mean of all is silent; otherwise None."""
        return self._sound.channel if self._sound and self.is_silent else None

    def add(self, frames: Sequence[tuple[float, Any]]) -> None:
        """Append decoded frames, each with the time at which it begins, in order."""
        blocks: list[F32] = []
        for when, frame in frames:
            if self.error:
                return
            self._add_frame(when, frame, blocks)
        self._flush(blocks)

    def _add_frame(self, when: float, frame: Any, blocks: list[F32]) -> None:
        """Append a frame's sound to `blocks`, which are not yet in the waveforms."""
        if self._sound is None:
            self._sound = Waveforms(frame.sample_rate, self._request, self._on_block)
        sound, sr = self._sound, self._sound.sr
        if frame.sample_rate != sr:
            self.error = f"the sampling rate changes from {sr} to {frame.sample_rate} Hz"
            return
        self.end = when + frame.samples / sr
        length = sound.n_samples + sum(map(len, blocks))
        first = round((when - self._request.start) * sr)
        if abs(first - length) <= MIN_GAP * sr and length:
            first = length
        n_left = frame.samples
        if self._request.duration is not None:
            n_left = min(n_left, round(self._request.duration * sr) - first)
        n_left -= max(length - first, 0)
        if n_left <= 0:
            return
        if not sound.has_room(sum(map(len, blocks)) + max(first - length, 0) + n_left):
            at, to = length / sr, first / sr
            if first > length:
                self.error = f"the time stamps of the sound jump from {at:.1f} to {to:.0f} s"
            else:
                self.error = sound.too_long
            return
        if first > length:
            self._flush(blocks)
            sound.add_silence(first - length)
            self._n_before += first if not self._n_decoded else 0
        skip = max(length - first, 0)
        if sound.is_silent:
            sound.hear(_planes(frame), _SAMPLE_FORMATS[frame.format.name.removesuffix("p")][1])
        blocks.append(to_mono(frame, self._channel)[skip : skip + n_left])
        self._n_decoded += n_left

    def _flush(self, blocks: list[F32]) -> None:
        if blocks and self._sound is not None:
            self._sound.add(np.concatenate(blocks))
        blocks.clear()

    def problem(self) -> Problem | None:
        """Return the reason why the sound cannot be used, or None."""
        if self.error:
            return Problem(self.error)
        return Problem("no sound decodes") if self._sound is None else self._sound.problem()

    def finish(self) -> tuple[dict[int, F32], Problem | None]:
        """Return the waveform by sampling rate, float32 (samples,), or {} and the problem."""
        return ({}, self.problem()) if self._sound is None else self._sound.finish()


def to_mono(frame: Any, channel: int | None = None) -> F32:
    """Return one channel or the mean of all, float32 (samples,); full scale is 1."""
    name = frame.format.name.removesuffix("p")
    planes = _planes(frame)
    if channel is not None:
        planes = planes[channel : channel + 1] or planes[-1:]
    n_channels = len(planes)
    total: NDArray[Any] = planes[0].astype(np.float32 if name == "flt" else np.float64)
    for plane in planes[1:]:
        total += plane
    if name == "u8":
        total -= 128.0 * n_channels
    total *= 1.0 / (_SAMPLE_FORMATS[name][1] * n_channels)
    return total.astype(np.float32, copy=False)


def _planes(frame: Any) -> list[NDArray[Any]]:
    dtype = _SAMPLE_FORMATS[frame.format.name.removesuffix("p")][0]
    # Decoders pad the planes at their end.
    if frame.format.is_planar:
        return [np.frombuffer(p, dtype, frame.samples) for p in frame.planes]
    n_channels = len(frame.layout.channels)
    interleaved = np.frombuffer(frame.planes[0], dtype, frame.samples * n_channels)
    return list(interleaved.reshape(-1, n_channels).T)
