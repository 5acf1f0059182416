"""Streams of nets that read a clip as a whole: each window is embedded separately."""

from __future__ import annotations

import numpy as np

from mvemo.extract.arrays import F32, F64, U8
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, Net, VideoInput
from mvemo.pipeline.prediction.streams import FeatureStream, Span, StreamPlan, embed_array


class WholeSound(FeatureStream):
    """Windows of sound that a net reads as a whole; an omitted stretch becomes silence."""

    def __init__(self, net: Net) -> None:
        assert isinstance(net.input, AudioInput)
        super().__init__()
        self._net, self._input = net, net.input
        self.sr = net.input.sr
        self._buffer = np.zeros(0, dtype=np.float32)
        self._first = 0

    def add_sound(self, y: F32) -> None:
        self._buffer = np.concatenate([self._buffer, y])

    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        first, stop = (max(round(t * self.sr) - self._first, 0) for t in window)
        y = self._buffer[first:stop][: self._input.samples].copy()
        if len(y) == 0:
            return None
        if without is not None:
            begin, end = (max(round((t - window[0]) * self.sr), 0) for t in without)
            y[begin:end] = 0.0
        after = np.nan if self._input.mark_end else 0.0
        raw = np.full((1, self._input.samples), after, dtype=np.float32)
        raw[0, : len(y)] = y
        return embed_array(self._net, raw).astype(np.float64).reshape(-1)

    def forget(self, before: float) -> None:
        count = max(round(before * self.sr) - self._first, 0)
        self._buffer = self._buffer[count:].copy()
        self._first += count


class WholePictures(FeatureStream):
    """Frames spread over each window, which a net reads as a whole.

    The frames of an omitted stretch become the mean of the window's other frames.
    """

    def __init__(self, net: Net, plan: StreamPlan) -> None:
        assert isinstance(net.input, VideoInput)
        super().__init__()
        self._net = net
        self.size = net.input.size
        sampling = FrameSampling(net.input.n_frames, net.input.size)
        self._of_window = {window: sampling.times(*window) for window in plan.windows}
        self.times = np.unique(np.concatenate(list(self._of_window.values())))
        self._pictures: dict[int, U8] = {}

    def add_picture(self, row: int, picture: U8) -> None:
        self._pictures[row] = picture

    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        times = self._of_window[window]
        rows = np.searchsorted(self.times, times)
        if any(int(row) not in self._pictures for row in rows):
            return None
        raw = np.stack([self._pictures[int(row)] for row in rows])
        if without is not None:
            hidden = (times >= without[0]) & (times < without[1])
            if hidden.any() and not hidden.all():
                raw[hidden] = raw[~hidden].mean(axis=0).astype(np.uint8)
        return embed_array(self._net, raw[None]).astype(np.float64).reshape(-1)

    def forget(self, before: float) -> None:
        for row in [row for row in self._pictures if self.times[row] < before]:
            del self._pictures[row]
