"""One pass over a clip: a worker decodes it, and this process embeds its windows in order."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mvemo.extract.media.isolated import stream_isolated
from mvemo.extract.media.loudness import gain_to
from mvemo.extract.media.request import Problem, StreamRequest
from mvemo.extract.store.contents import content_of
from mvemo.fuse.final.model import FeatureKey
from mvemo.manifests.array_types import F32, F64, U8
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.prediction.new_clips import NewClip
from mvemo.pipeline.prediction.streams import FeatureStream, Span, StreamPlan

# Seconds per bar of the waveform, and the sampling rate in Hz if no net reads sound.
BAR_SECONDS, BAR_SR = 0.1, 16000
# Height and width of a thumbnail in pixels, and their largest number.
THUMBNAIL, MOST_THUMBNAILS = 96, 60
# Called with the share of the work that is done, from 0 to 1; an exception ends the work.
Progress = Callable[[float], None]


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
    gain: float = 1.0  # factor of the samples that are added, which is taken out
    keep_sound: bool = False
    _rest: F32 = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def add_sound(self, y: F32, sr: int) -> None:
        """Add the next samples."""
        self.sr, y = sr, y / np.float32(self.gain)
        if self.keep_sound:
            self.sound.append(y)
        y = np.concatenate([self._rest, y])
        size = round(BAR_SECONDS * sr)
        whole = len(y) // size * size
        bars = y[:whole].reshape(-1, size)
        self.peaks.extend(np.abs(bars).max(axis=1).tolist())
        self.power.extend(np.square(bars).mean(axis=1).tolist())
        self._rest = y[whole:]

    def loudness(self, start: float, stop: float) -> float:
        """Return the loudness of a time range in dB of full scale; -inf without sound."""
        bars = self.power[int(start / BAR_SECONDS) : max(math.ceil(stop / BAR_SECONDS), 1)]
        mean = float(np.mean(bars)) if bars else 0.0
        return 10.0 * math.log10(mean) if mean > 0 else -math.inf


class ClipPass:
    """One decoding of a clip, which yields the vectors of each window as early as possible."""

    def __init__(
        self,
        clip: NewClip,
        plan: StreamPlan,
        streams: Mapping[FeatureKey, FeatureStream],
        modalities: tuple[str, ...] = ("audio", "video"),
        level: float = 0.0,  # loudness in LUFS to which the sound is brought
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
        times = np.unique(
            np.concatenate([np.zeros(0), *(its_times for _, its_times, _ in readers)])
        )
        # For each time, the streams that read the picture (None for the sketch), with the row of
        # the time there and the size of the picture.
        self._readers: list[list[tuple[FeatureStream | None, int, int]]] = [[] for _ in times]
        for stream, its_times, size in readers:
            for its_row, row in enumerate(np.searchsorted(times, its_times)):
                self._readers[row].append((stream, its_row, size))
        rates = {s.sr for s in streams.values() if s.sr} or {BAR_SR}
        self._bar_sr = min(rates)
        self._request = StreamRequest(
            clip.start,
            clip.duration,
            tuple(sorted(rates)) if "audio" in modalities else (),
            level=level,
            times=times,
            sizes=[frozenset(size for _, _, size in row) for row in self._readers],
        )
        # Seconds that are decoded of each modality; infinite if there is nothing to decode.
        self._decoded = {
            "audio": 0.0 if self._request.sample_rates else math.inf,
            "video": 0.0 if len(times) else math.inf,
        }
        self._samples = dict.fromkeys(rates, 0)
        self._row = 0  # of the next window

    @cached_property
    def content(self) -> str:
        """Digest of the file's content."""
        return content_of(self.clip.path).digest

    def windows(
        self, *, forget: bool = True, progress: Progress | None = None
    ) -> Iterator[tuple[int, dict[FeatureKey, F64]]]:
        """Yield index and vectors of each window; `forget` drops data that is not needed later."""
        for event, *values in stream_isolated(self.clip.path, self._request):
            self._handle(event, values)
            decoded = min(self._decoded.values())
            if progress is not None:
                progress(min(decoded / self.plan.seconds, 1.0))
            yield from self._finished(decoded, forget)
        for stream in self._streams.values():
            stream.finish()
        yield from self._finished(math.inf, forget)

    def _finished(self, until: float, forget: bool) -> Iterator[tuple[int, dict[FeatureKey, F64]]]:
        """Yield the next windows, if their vectors need no media after the second `until`."""
        windows = self.plan.windows
        reach = max((s.reach for s in self._streams.values()), default=0.0)
        while self._row < len(windows) and windows[self._row][1] + reach <= until:
            row, self._row = self._row, self._row + 1
            yield row, self._vectors(windows[row], self._streams)
            if forget and self._row < len(windows):
                for stream in self._streams.values():
                    stream.forget(windows[self._row][0])

    def _handle(self, event: str, values: list[Any]) -> None:
        if event == "sound":
            sr, y = values
            self._samples[sr] += len(y)
            self._decoded["audio"] = min(count / rate for rate, count in self._samples.items())
            for stream in self._streams.values():
                if stream.sr == sr:
                    stream.add_sound(y)
            if sr == self._bar_sr:
                self.sketch.add_sound(y, sr)
        elif event == "picture":
            row, pictures = values
            self._decoded["video"] = float(self._request.times[row])
            for reader, its_row, size in self._readers[row]:
                if reader is None:
                    when = float(self._thumbnail_times[its_row])
                    self.sketch.thumbnails.append((when, pictures[size]))
                else:
                    reader.add_picture(its_row, pictures[size])
        elif event == "loudness":
            self.sketch.gain = gain_to(self._request.level, values[0])
            for stream in self._streams.values():
                stream.loudness = values[0]
        elif event == "note":
            tell_note(f"{self.clip.path.name}: {values[0]}")
        else:
            modality, problem = values
            if self._row and modality not in self.problems:
                self.late[modality] = problem
            self.problems[modality] = problem
            self._decoded[modality] = math.inf

    def without(
        self, modality: str, stretch: Span, keys: Collection[FeatureKey]
    ) -> dict[FeatureKey, F64]:
        """Return the vectors of `keys` for the first window without a range of a modality."""
        changed = [key for key in keys if self._streams[key].modality == modality]
        return self._vectors(self.plan.windows[0], changed, stretch)

    def _vectors(
        self, window: Span, keys: Collection[FeatureKey], without: Span | None = None
    ) -> dict[FeatureKey, F64]:
        """Return the finite vectors of a window, for the modalities that the clip has."""
        vectors = {}
        for key in keys:
            stream = self._streams[key]
            vector = None if stream.modality in self.problems else stream.vector(window, without)
            if vector is not None and np.isfinite(vector).all():
                vectors[key] = vector
        return vectors
