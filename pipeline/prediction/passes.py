"""One pass over a clip: a worker decodes it, and this process embeds its windows in order."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mvemo.extract.array_types import F32, F64, U8
from mvemo.extract.media.isolated import stream_isolated
from mvemo.extract.media.request import Problem, StreamRequest
from mvemo.extract.store.folders import digest_file
from mvemo.fuse.final.model import FeatureKey
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.prediction.new_clips import NewClip
from mvemo.pipeline.prediction.streams import FeatureStream, Span, StreamPlan

# Seconds per bar of the waveform, and the sampling rate in Hz if no net reads sound.
BAR_SECONDS, BAR_SR = 0.1, 16000
# Height and width of a thumbnail in pixels, and their largest number.
THUMBNAIL, MOST_THUMBNAILS = 96, 60


@dataclass
class Sketch:
    """Waveform, sound and thumbnails of a clip, for a page."""

    # Largest magnitude in each bar of `BAR_SECONDS`.
    peaks: array[float] = field(default_factory=lambda: array("f"))
    # Mean square of each bar of `BAR_SECONDS`.
    power: array[float] = field(default_factory=lambda: array("f"))
    # (time in seconds, uint8 (96, 96, 3)), ascending.
    thumbnails: list[tuple[float, U8]] = field(default_factory=list)
    # All samples, if `keep_sound`.
    sound: list[F32] = field(default_factory=list)
    sr: int = 0  # sampling rate in Hz
    keep_sound: bool = False
    _rest: F32 = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def add_sound(self, y: F32, sr: int) -> None:
        """Add the next samples."""
        self.sr = sr
        if self.keep_sound:
            self.sound.append(y)
        y = np.concatenate([self._rest, y])
        size = round(BAR_SECONDS * sr)
        count = len(y) // size
        bars = y[: count * size].reshape(count, size)
        self.peaks.extend(np.abs(bars).max(axis=1, initial=0.0).tolist())
        self.power.extend(np.square(bars).mean(axis=1).tolist() if count else [])
        self._rest = y[count * size :]

    def loudness(self, start: float, stop: float) -> float:
        """Return the loudness of a time range in dB of full scale; -inf without sound."""
        bars = self.power[int(start / BAR_SECONDS) : max(int(np.ceil(stop / BAR_SECONDS)), 1)]
        mean = float(np.mean(bars)) if len(bars) else 0.0
        return 10.0 * float(np.log10(mean)) if mean > 0 else -np.inf


class ClipPass:
    """One decoding of a clip, which yields the vectors of each window as early as possible."""

    def __init__(
        self,
        clip: NewClip,
        plan: StreamPlan,
        streams: Mapping[FeatureKey, FeatureStream],
        modalities: tuple[str, ...] = ("audio", "video"),
    ) -> None:
        self.clip, self.plan, self._streams = clip, plan, streams
        self.sketch = Sketch()  # complete after the last window
        self.problems: dict[str, Problem] = {}  # reasons why a modality is missing
        # Problems that appeared after the first window, such as a truncated file.
        self.late: dict[str, Problem] = {}
        count = min(MOST_THUMBNAILS, max(1, round(plan.seconds)))
        self._thumbnail_times = (np.arange(count) + 0.5) * plan.seconds / count
        readers: list[tuple[FeatureStream | None, F64, int]] = []
        if "video" in modalities:
            readers = [(s, s.times, s.size) for s in streams.values() if len(s.times)]
            readers.append((None, self._thumbnail_times, THUMBNAIL))
        self._readers, times, sizes = _merge(readers)
        rates = {s.sr for s in streams.values() if s.sr} or {BAR_SR}
        self._bar_sr = min(rates)
        self._request = StreamRequest(
            clip.start,
            clip.duration,
            tuple(sorted(rates)) if "audio" in modalities else (),
            times=times,
            sizes=sizes,
        )
        self._modalities = modalities
        self._sound_time, self._picture_time = 0.0, 0.0
        self._samples = dict.fromkeys(rates, 0)

    @cached_property
    def content(self) -> str:
        """Digest of the file's bytes."""
        return digest_file(self.clip.path)[0]

    def windows(self, *, forget: bool = True) -> Iterator[tuple[int, dict[FeatureKey, F64]]]:
        """Yield index and vectors of each window; `forget` drops data that is not needed later."""
        row = 0
        reach = max((s.reach for s in self._streams.values()), default=0.0)
        done = dict.fromkeys(("audio", "video"), np.inf)
        requested = {"audio": len(self._request.sample_rates), "video": len(self._request.times)}
        done.update({modality: 0.0 for modality in self._modalities if requested[modality]})
        for event, *values in stream_isolated(self.clip.path, self._request):
            if event == "problem" and row and values[0] not in self.problems:
                self.late[values[0]] = values[1]
            self._handle(event, values, done)
            now = min(self._now(modality, done) for modality in done)
            while row < len(self.plan.windows) and self.plan.windows[row][1] + reach <= now:
                yield self._window(row, forget=forget)
                row += 1
        for stream in self._streams.values():
            stream.finish()
        while row < len(self.plan.windows):
            yield self._window(row, forget=forget)
            row += 1

    def _now(self, modality: str, done: Mapping[str, float]) -> float:
        return max(done[modality], self._sound_time if modality == "audio" else self._picture_time)

    def _handle(self, event: str, values: list[Any], done: dict[str, float]) -> None:
        if event == "sound":
            sr, y = values
            self._samples[sr] += len(y)
            self._sound_time = min(count / rate for rate, count in self._samples.items())
            for stream in self._streams.values():
                if stream.sr == sr:
                    stream.add_sound(y)
            if sr == self._bar_sr:
                self.sketch.add_sound(y, sr)
        elif event == "picture":
            row, pictures = values
            self._picture_time = float(self._request.times[row])
            for reader, its_row, size in self._readers[row]:
                if reader is None:
                    when = float(self._thumbnail_times[its_row])
                    self.sketch.thumbnails.append((when, pictures[size]))
                else:
                    reader.add_picture(its_row, pictures[size])
        elif event == "note":
            tell_note(f"{self.clip.path.name}: {values[0]}")
        else:
            modality, problem = values
            self.problems[modality] = problem
            done[modality] = np.inf

    def _window(self, row: int, *, forget: bool) -> tuple[int, dict[FeatureKey, F64]]:
        window = self.plan.windows[row]
        vectors = _finite({key: s.vector(window) for key, s in self._readable().items()})
        if forget and row + 1 < len(self.plan.windows):
            for stream in self._streams.values():
                stream.forget(self.plan.windows[row + 1][0])
        return row, vectors

    def without(
        self, modality: str, stretch: Span, keys: Collection[FeatureKey]
    ) -> dict[FeatureKey, F64]:
        """Return the vectors of `keys` for the first window without a range of a modality."""
        vectors = {
            key: stream.vector(self.plan.windows[0], stretch)
            for key, stream in self._readable().items()
            if key in keys and modality == ("audio" if stream.sr else "video")
        }
        return _finite(vectors)

    def _readable(self) -> dict[FeatureKey, FeatureStream]:
        """Return the streams of the modalities that the clip has."""
        return {
            key: stream
            for key, stream in self._streams.items()
            if ("audio" if stream.sr else "video") not in self.problems
        }


def _finite(vectors: Mapping[FeatureKey, F64 | None]) -> dict[FeatureKey, F64]:
    """Return only the vectors that exist and are finite."""
    return {key: v for key, v in vectors.items() if v is not None and np.isfinite(v).all()}


_Readers = list[list[tuple[FeatureStream | None, int, int]]]


def _merge(
    readers: list[tuple[FeatureStream | None, F64, int]],
) -> tuple[_Readers, F64, list[frozenset[int]]]:
    """Return the readers of each time, all times in ascending order, and the sizes per time."""
    times = np.unique(np.concatenate([*(t for _, t, _ in readers), np.zeros(0)]))
    of_row: _Readers = [[] for _ in times]
    for reader, its_times, size in readers:
        for its_row, row in enumerate(np.searchsorted(times, its_times)):
            of_row[int(row)].append((reader, its_row, size))
    return of_row, times, [frozenset(size for _, _, size in row) for row in of_row]
