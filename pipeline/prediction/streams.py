"""Features of the windows of one clip, made piece by piece while it is decoded.

Windows that overlap share their pieces: patches of sound, frames, views of a few seconds and
frames of descriptors are embedded once. What a window's vector is pooled of are the pieces
whose middle lies in it. A net that reads a clip as a whole embeds each window by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mvemo.extract.arrays import F32, F64, U8, Mask
from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput
from mvemo.extract.nets.parts.inputs import PieceInput
from mvemo.extract.training.embedding import pool_windows
from mvemo.extract.views import ViewSettings
from mvemo.fuse.descriptor_statistics import sequence_statistics

# Pieces that are embedded at a time: patches and frames, and views of many frames.
BATCH_PIECES, BATCH_VIEWS = 8, 1
# Seconds of sound that are described at a time.
DESCRIBED_SECONDS = 4.0

Span = tuple[float, float]


@dataclass(frozen=True)
class StreamPlan:
    """Which windows of a clip are predicted.

    Parameters
    ----------
    seconds
        Length of the clip.
    windows
        (start, stop) of each in seconds from the clip's start, ascending.
    view_step
        Seconds from one view of several frames to the next; 0 for one after the other.
    frame_step
        Seconds from one single frame to the next; 0 for as many in a window as the net reads
        of a clip.
    """

    seconds: float
    windows: tuple[Span, ...]
    view_step: float = 0.0
    frame_step: float = 0.0

    @property
    def window(self) -> float:
        """Length of the longest window."""
        return max(stop - start for start, stop in self.windows)


class FeatureStream(ABC):
    """One feature by one net, of all windows of a clip.

    Attributes
    ----------
    sr
        Of the sound that it reads; 0 for none.
    times, size
        When the pictures that it reads are shown, float64 (n,), ascending, in seconds from
        the clip's start, and their height and width; none and 0 where it reads none.
    reach
        Seconds after a window's end that are decoded before its vector is made.
    """

    sr: int = 0
    size: int = 0
    reach: float = 0.0

    def __init__(self) -> None:
        self.times: F64 = np.zeros(0)

    def add_sound(self, y: F32) -> None:  # noqa: B027
        """Take the next samples, float32 (n,)."""

    def add_picture(self, row: int, picture: U8) -> None:  # noqa: B027
        """Take the picture of one of `times`, uint8 (size, size, 3); they come in order."""

    def finish(self) -> None:  # noqa: B027
        """Take note that the clip is at its end."""

    @abstractmethod
    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        """float64 (dim,) of a window, as if a stretch of it were not there; None of nothing."""

    @abstractmethod
    def forget(self, before: float) -> None:
        """Drop what only windows that begin before this time need."""


class _Pieces(FeatureStream):
    """Vectors of pieces, with their places in time."""

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[Span] = []
        self._values: list[F32] = []

    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        self._embed_waiting()
        if not self._spans:
            return None
        spans = np.array(self._spans)
        chosen = _inside(spans, window)
        if without is not None:
            chosen &= ~_inside(spans, without)
        if not chosen.any():
            return None
        values = np.stack([self._values[row] for row in np.flatnonzero(chosen)])
        return self._pool(values)

    def forget(self, before: float) -> None:
        # Pieces are in order of time: those of a later window are the last.
        count = sum(1 for _, stop in self._spans if stop <= before)
        del self._spans[:count], self._values[:count]

    def _keep(self, spans: Sequence[Span], values: F32) -> None:
        self._spans += spans
        self._values += list(values)

    def _embed_waiting(self) -> None:
        """Embed what is complete."""

    @abstractmethod
    def _pool(self, values: F32) -> F64:
        """float64 (dim,) of pieces (n, dim), one at least."""


def _inside(spans: F64, window: Span) -> Mask:
    """bool (n,): pieces whose middle is in a window; of a short window, the piece around it."""
    middles = spans.mean(axis=1)
    inside = (middles >= window[0]) & (middles < window[1])
    if not inside.any():
        middle = sum(window) / 2
        inside = (spans[:, 0] <= middle) & (middle < spans[:, 1])
    return np.asarray(inside, dtype=np.bool_)


class _NetPieces(_Pieces):
    """Pieces that a net embeds."""

    def __init__(self, net: Net, view: ViewSettings, pieces: PieceInput | None) -> None:
        super().__init__()
        self._net, self._view, self._own = net, view, pieces is not None
        self._waiting: list[tuple[Span, F32 | U8]] = []
        self._batch = BATCH_PIECES

    def _wait(self, span: Span, raw: F32 | U8) -> None:
        self._waiting.append((span, raw))
        if len(self._waiting) >= self._batch:
            self._embed_waiting()

    @torch.inference_mode()
    def _embed_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._batch):
            batch = waiting[first : first + self._batch]
            raw = torch.from_numpy(np.stack([raw for _, raw in batch]))
            net = self._net
            values = net.embed_pieces(raw) if self._own else net.embed(net.prepare(raw))
            self._keep([span for span, _ in batch], values.float().numpy())

    @torch.inference_mode()
    def _pool(self, values: F32) -> F64:
        tensor = torch.from_numpy(values)
        if self._own:
            pooled = self._net.pool_pieces(tensor)
        else:
            pooled = pool_windows(tensor, [len(tensor)], self._view.pooling)[0]
        return pooled.numpy().astype(np.float64)


class SoundPieces(_NetPieces):
    """Stretches of sound one after the other."""

    def __init__(
        self, net: Net, view: ViewSettings, raw: AudioInput, pieces: PieceInput | None
    ) -> None:
        super().__init__(net, view, pieces)
        self.sr = raw.sr
        self._samples = raw.samples
        self._step = round((pieces.step if pieces else raw.seconds) * raw.sr)
        self._before = round((pieces.before if pieces else 0.0) * raw.sr)
        self._buffer = np.zeros(self._before, dtype=np.float32)
        self._n_pieces = 0
        self.reach = raw.seconds / 2

    def add_sound(self, y: F32) -> None:
        self._buffer = np.concatenate([self._buffer, y])
        while len(self._buffer) >= self._samples:
            self._take()

    def finish(self) -> None:
        left = len(self._buffer) - self._before
        # A clip shorter than a piece is filled up; what is left of a longer one is no piece.
        if not self._n_pieces and left > 0:
            fill = np.zeros(self._samples - len(self._buffer), dtype=np.float32)
            self._buffer = np.concatenate([self._buffer, fill])
            self._take()

    def _take(self) -> None:
        start = self._n_pieces * self._step / self.sr
        self._wait((start, start + self._step / self.sr), self._buffer[: self._samples])
        self._buffer = self._buffer[self._step :].copy()
        self._n_pieces += 1


class PicturePieces(_NetPieces):
    """Single frames, or views of several frames at a rate."""

    def __init__(
        self, net: Net, view: ViewSettings, plan: StreamPlan, pieces: PieceInput | None
    ) -> None:
        raw = net.input if pieces is None else pieces.raw
        assert isinstance(raw, VideoInput)
        super().__init__(net, view, pieces)
        self.size, self._n_frames = raw.size, raw.n_frames
        seconds = raw.n_frames / view.rate if view.rate else 0.0
        if pieces is not None:
            step = plan.frame_step or plan.window / max(pieces.count, 1)
            self._batch = BATCH_PIECES
        else:
            step = max(plan.view_step, seconds)
            self._batch = BATCH_VIEWS
        count = max(1, round(plan.seconds / step))
        middles = (np.arange(count) + 0.5) * plan.seconds / count
        starts = np.clip(middles - seconds / 2, 0.0, max(plan.seconds - seconds, 0.0))
        sampling = FrameSampling(raw.n_frames, raw.size, rate=view.rate)
        # (pieces, frames)
        if pieces is None:
            times = np.stack([s + sampling.times(0.0, min(seconds, plan.seconds)) for s in starts])
        else:
            times = middles[:, None]
        half = seconds / 2 or step / 2
        self._piece_spans = [(float(t.mean()) - half, float(t.mean()) + half) for t in times]
        order = np.argsort(times.ravel(), kind="stable")
        self.times = times.ravel()[order]
        self._place = order
        self._partial: dict[int, list[U8]] = {}
        self.reach = seconds / 2

    def add_picture(self, row: int, picture: U8) -> None:
        # Frames of a piece come in order of time, as they are in it.
        piece = int(self._place[row]) // self._n_frames
        frames = self._partial.setdefault(piece, [])
        frames.append(picture)
        if len(frames) == self._n_frames:
            self._wait(self._piece_spans[piece], np.stack(self._partial.pop(piece)))


class Descriptors(_Pieces):
    """Frames of descriptors; those that are silent are left out."""

    def __init__(self, names: Sequence[str], settings: DescriptorSettings) -> None:
        super().__init__()
        self.sr = settings.sr
        self._names, self._settings = tuple(names), settings
        self._buffer = np.zeros(0, dtype=np.float32)
        self._first = 0
        self._widths: list[int] = []
        self.reach = settings.n_fft / settings.sr

    def add_sound(self, y: F32) -> None:
        self._buffer = np.concatenate([self._buffer, y])
        if len(self._buffer) >= DESCRIBED_SECONDS * self.sr:
            self._describe(last=False)

    def finish(self) -> None:
        self._describe(last=True)

    def _embed_waiting(self) -> None:
        self._describe(last=False)

    def _describe(self, *, last: bool) -> None:
        """Whole frames of what there is; at the clip's end, also a last one that is not."""
        n_fft, hop = self._settings.n_fft, self._settings.hop_length
        count = 1 + (len(self._buffer) - n_fft) // hop if len(self._buffer) >= n_fft else 0
        y = self._buffer if last else self._buffer[: (count - 1) * hop + n_fft]
        if len(y) == 0 or not (count or last):
            return
        self._buffer = self._buffer[count * hop :].copy()
        try:
            values = describe(y, self._settings, [*self._names, "times"])
        except BadMedia:
            # Silent throughout.
            values = {}
        if values:
            middles = values["times"][:, 0].astype(np.float64) + self._first * hop / self.sr
            half = hop / self.sr / 2
            self._widths = [values[name].shape[1] for name in self._names]
            joined = np.concatenate([values[name] for name in self._names], axis=1)
            self._keep([(float(m) - half, float(m) + half) for m in middles], joined)
        self._first += count

    def _pool(self, values: F32) -> F64:
        parts = np.split(values, np.cumsum(self._widths)[:-1], axis=1)
        return np.concatenate([sequence_statistics(part) for part in parts]).astype(np.float64)


class Sequences(Descriptors):
    """Windows of descriptors that a net reads as a whole."""

    def __init__(self, net: Net, settings: DescriptorSettings) -> None:
        assert isinstance(net.input, SequenceInput)
        super().__init__(net.input.features, settings)
        self._net, self._n_frames = net, net.input.n_frames

    @torch.inference_mode()
    def _pool(self, values: F32) -> F64:
        raw = np.full((1, self._n_frames, values.shape[1]), np.nan, dtype=np.float32)
        raw[0, : len(values)] = values[: self._n_frames]
        embedded = self._net.embed(self._net.prepare(torch.from_numpy(raw)))
        return embedded[0].float().numpy().astype(np.float64)


class WholeSound(FeatureStream):
    """Windows of sound that a net reads as a whole; a stretch that is left out is silence."""

    def __init__(self, net: Net) -> None:
        assert isinstance(net.input, AudioInput)
        super().__init__()
        self._net, self._input = net, net.input
        self.sr = net.input.sr
        self._buffer = np.zeros(0, dtype=np.float32)
        self._first = 0

    def add_sound(self, y: F32) -> None:
        self._buffer = np.concatenate([self._buffer, y])

    @torch.inference_mode()
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
        embedded = self._net.embed(self._net.prepare(torch.from_numpy(raw)))
        return embedded[0].float().numpy().astype(np.float64)

    def forget(self, before: float) -> None:
        count = max(round(before * self.sr) - self._first, 0)
        self._buffer = self._buffer[count:].copy()
        self._first += count


class WholePictures(FeatureStream):
    """Frames spread over each window, which a net reads as a whole.

    A stretch that is left out shows the mean picture of the window's other frames.
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

    @torch.inference_mode()
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
        embedded = self._net.embed(self._net.prepare(torch.from_numpy(raw[None])))
        return embedded[0].float().numpy().astype(np.float64)

    def forget(self, before: float) -> None:
        for row in [row for row in self._pictures if self.times[row] < before]:
            del self._pictures[row]


def net_stream(
    net: Net, view: ViewSettings, plan: StreamPlan, settings: DescriptorSettings
) -> FeatureStream:
    """The stream of a net: by pieces where it has such, else window by window."""
    pieces, net_input = net.piece_input(), net.input
    if isinstance(net_input, SequenceInput):
        return Sequences(net, settings)
    if isinstance(net_input, AudioInput):
        # A net that reads several windows of a clip has windows of its input for pieces.
        if pieces is None and view.views == 1:
            return WholeSound(net)
        raw = net_input if pieces is None else pieces.raw
        assert isinstance(raw, AudioInput)
        return SoundPieces(net, view, raw, pieces)
    if pieces is None and not view.rate:
        return WholePictures(net, plan)
    return PicturePieces(net, view, plan, pieces)
