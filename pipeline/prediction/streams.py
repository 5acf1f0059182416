"""Feature streams: the features of a clip's windows, computed while it is decoded.

Most streams embed pieces: patches of sound, frames, views of a few seconds, and frames of
descriptors. Overlapping windows share pieces, so each piece is embedded once. A window's vector is
pooled over the pieces whose middle lies in the window. Nets that read a clip as a whole embed each
window separately.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvemo.extract.array_types import F32, F64, U8, Mask
from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput
from mvemo.extract.nets.parts.cards import PieceInput
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.settings import ViewSettings
from mvemo.extract.training.embedding import pool_windows
from mvemo.fuse.features import sequence_statistics

Span = tuple[float, float]
# Batch sizes: patches or single frames, and views of several frames.
BATCH_PIECES, BATCH_VIEWS = 8, 1
# Minimum number of seconds of sound from which descriptors are computed at a time.
DESCRIBED_SECONDS = 4.0


@dataclass(frozen=True)
class StreamPlan:
    """Windows of a clip to predict."""

    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # (start, stop) in seconds from the clip's start, ascending
    # Seconds between views of several frames; 0 for consecutive views.
    view_step: float = 0.0

    @property
    def window(self) -> float:
        """Length of the longest window."""
        return max(stop - start for start, stop in self.windows)


class FeatureStream(ABC):
    """One feature of all windows of a clip, by one net or from descriptors."""

    sr: int = 0  # sampling rate of the sound in Hz; 0 if it reads no sound
    size: int = 0  # height and width of the pictures in pixels; 0 if it reads none
    reach: float = 0.0  # seconds of media after a window's end that its vector needs

    def __init__(self) -> None:
        # Times of the pictures in seconds from the clip's start, ascending, float64 (n,).
        self.times: F64 = np.zeros(0)

    def add_sound(self, y: F32) -> None:  # noqa: B027
        """Add the next samples, float32 (n,)."""

    def add_picture(self, row: int, picture: U8) -> None:  # noqa: B027
        """Add the picture of `times[row]`, uint8 (size, size, 3); pictures come in order."""

    def finish(self) -> None:  # noqa: B027
        """Process the rest of the clip after its end."""

    @abstractmethod
    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        """Return the vector of a window, float64 (dim,), omitting the range `without`, or None."""

    @abstractmethod
    def forget(self, before: float) -> None:
        """Drop data that only windows that begin before this time need."""


@torch.inference_mode()
def embed_array(net: Net, raw: NDArray[Any], *, pieces: bool = False) -> F32:
    """Embed raw input, or pieces of it, on the net's device; return float32 (batch, dim)."""
    x = torch.from_numpy(raw).to(net.classifier.weight.device)
    embedded = net.embed_pieces(x) if pieces else net.embed(net.prepare(x))
    values: F32 = embedded.float().cpu().numpy()
    return values


class _Pieces(FeatureStream):
    """Vectors of pieces, with their time ranges."""

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
        # Pieces are sorted by time.
        count = sum(1 for _, stop in self._spans if stop <= before)
        del self._spans[:count], self._values[:count]

    def _keep(self, spans: Sequence[Span], values: F32) -> None:
        self._spans += spans
        self._values += list(values)

    def _embed_waiting(self) -> None:
        """Embed the complete pieces that are waiting for a full batch."""

    @abstractmethod
    def _pool(self, values: F32) -> F64:
        """Pool at least one piece, float32 (n, dim), to float64 (dim,)."""


def _inside(spans: F64, window: Span) -> Mask:
    """Return a mask of the pieces with their middle in a window, or else of the piece around it."""
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

    def _embed_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._batch):
            batch = waiting[first : first + self._batch]
            values = embed_array(self._net, np.stack([raw for _, raw in batch]), pieces=self._own)
            self._keep([span for span, _ in batch], values)

    @torch.inference_mode()
    def _pool(self, values: F32) -> F64:
        tensor = torch.from_numpy(values).to(self._net.classifier.weight.device)
        if self._own:
            pooled = self._net.pool_pieces(tensor)
        else:
            pooled = pool_windows(tensor, [len(tensor)], self._view.pooling)[0]
        return pooled.cpu().numpy().astype(np.float64)


class SoundPieces(_NetPieces):
    """Consecutive patches of sound."""

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
        n_new = len(self._buffer) - self._before
        # Only a clip shorter than one piece is padded; the rest of a longer clip is dropped.
        if not self._n_pieces and n_new > 0:
            fill = np.zeros(self._samples - len(self._buffer), dtype=np.float32)
            self._buffer = np.concatenate([self._buffer, fill])
            self._take()

    def _take(self) -> None:
        start = self._n_pieces * self._step / self.sr
        self._wait((start, start + self._step / self.sr), self._buffer[: self._samples])
        self._buffer = self._buffer[self._step :].copy()
        self._n_pieces += 1


class PicturePieces(_NetPieces):
    """Single frames, or views of several frames at a given rate."""

    def __init__(
        self, net: Net, view: ViewSettings, plan: StreamPlan, pieces: PieceInput | None
    ) -> None:
        raw = net.input if pieces is None else pieces.raw
        assert isinstance(raw, VideoInput)
        super().__init__(net, view, pieces)
        self.size, self._n_frames = raw.size, raw.n_frames
        seconds = raw.n_frames / view.rate if view.rate else 0.0
        if pieces is not None:
            step = plan.window / max(pieces.count, 1)
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
        # The frames of a piece arrive sorted by time.
        piece = int(self._place[row]) // self._n_frames
        frames = self._partial.setdefault(piece, [])
        frames.append(picture)
        if len(frames) == self._n_frames:
            self._wait(self._piece_spans[piece], np.stack(self._partial.pop(piece)))


class Descriptors(_Pieces):
    """Frames of descriptors; silent frames are left out."""

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
        """Describe the whole frames in the buffer; if `last`, also the partial frame at the end."""
        n_fft, hop = self._settings.n_fft, self._settings.hop_length
        count = 1 + (len(self._buffer) - n_fft) // hop if len(self._buffer) >= n_fft else 0
        y = self._buffer if last else self._buffer[: (count - 1) * hop + n_fft]
        if len(y) == 0 or not (count or last):
            return
        self._buffer = self._buffer[count * hop :].copy()
        try:
            values = describe(y, self._settings, [*self._names, "times"])
        except BadMedia:
            # All frames are silent.
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
    """Descriptors of whole windows, embedded by a net."""

    def __init__(self, net: Net, settings: DescriptorSettings) -> None:
        assert isinstance(net.input, SequenceInput)
        super().__init__(net.input.features, settings)
        self._net, self._n_frames = net, net.input.n_frames

    def _pool(self, values: F32) -> F64:
        raw = np.full((1, self._n_frames, values.shape[1]), np.nan, dtype=np.float32)
        raw[0, : len(values)] = values[: self._n_frames]
        return embed_array(self._net, raw).astype(np.float64).reshape(-1)


class WholeSound(FeatureStream):
    """Windows of sound that a net reads as a whole; an omitted range becomes silence."""

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
    """Frames spread over each window; frames in an omitted range become the others' mean."""

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


def net_stream(
    net: Net, view: ViewSettings, plan: StreamPlan, settings: DescriptorSettings
) -> FeatureStream:
    """Return the stream of a net: by pieces if the net pools pieces, otherwise by windows."""
    net = optimized(net)
    pieces, net_input = net.piece_input(), net.input
    if isinstance(net_input, SequenceInput):
        return Sequences(net, settings)
    if isinstance(net_input, AudioInput):
        # If a net reads several windows of a clip, its input windows are the pieces.
        if pieces is None and view.views == 1:
            return WholeSound(net)
        raw = net_input if pieces is None else pieces.raw
        assert isinstance(raw, AudioInput)
        return SoundPieces(net, view, raw, pieces)
    if pieces is None and not view.rate:
        return WholePictures(net, plan)
    return PicturePieces(net, view, plan, pieces)
