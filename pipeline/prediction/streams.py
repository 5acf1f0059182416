"""Feature streams: the features of a clip's windows, computed while it is decoded.

Most streams embed pieces: patches of sound, frames, views of a few seconds, and frames of
descriptors. Overlapping windows share pieces, so each piece is embedded once. A window's vector is
pooled over the pieces whose middle lies in the window. Nets that read a clip as a whole embed each
window separately.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mvemo.extract.descriptors import LOUDNESS, DescriptorSettings, describe
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput
from mvemo.extract.nets.parts.cards import PieceInput
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.settings import ViewSettings
from mvemo.extract.training.embedding import pool_windows
from mvemo.fuse.features import sequence_statistics
from mvemo.manifests.array_types import F32, F64, U8, Bools

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


class FeatureStream(ABC):
    """One feature of all windows of a clip, by one net or from descriptors."""

    sr: int = 0  # sampling rate of the sound in Hz; 0 if it reads no sound
    size: int = 0  # height and width of the pictures in pixels; 0 if it reads none
    loudness: float = math.nan  # integrated loudness of the clip's sound in LUFS
    reach: float = 0.0  # seconds of media after a window's end that its vector needs
    # Times of the pictures in seconds from the clip's start, ascending, float64 (n,).
    times: F64 = np.zeros(0)
    # Samples that are not processed yet, or that a later window needs, float32 (n,).
    _sound: F32 = np.zeros(0, dtype=np.float32)

    @property
    def modality(self) -> str:
        """``audio`` or ``video``."""
        return "audio" if self.sr else "video"

    def add_sound(self, y: F32) -> None:
        """Add the next samples, float32 (n,)."""
        self._sound = np.concatenate([self._sound, y])

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
def embed_array(net: Net, raw: F32 | U8, *, pieces: bool = False) -> F32:
    """Embed raw input, or pieces of it, on the net's device; return float32 (batch, dim)."""
    x = torch.from_numpy(raw).to(net.classifier.weight.device)
    embedded = net.embed_pieces(x) if pieces else net.embed(net.prepare(x))
    return embedded.float().cpu().numpy()


def _embed_window(net: Net, raw: F32 | U8) -> F64:
    """Embed one raw input of a net; return float64 (dim,)."""
    vector: F32 = embed_array(net, raw[None])[0]
    return vector.astype(np.float64)


class _Pieces(FeatureStream):
    """Vectors of pieces, with their time ranges."""

    def __init__(self) -> None:
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
        return self._pool(np.stack([self._values[row] for row in np.flatnonzero(chosen)]))

    def forget(self, before: float) -> None:
        # Pieces are sorted by time.
        count = sum(stop <= before for _, stop in self._spans)
        del self._spans[:count], self._values[:count]

    def _embed_waiting(self) -> None:
        """Embed the complete pieces that are waiting for a full batch."""

    @abstractmethod
    def _pool(self, values: F32) -> F64:
        """Pool at least one piece, float32 (n, dim), to float64 (dim,)."""


def _inside(spans: F64, window: Span) -> Bools:
    """Return a mask of the pieces with their middle in a window, or else of the piece around it."""
    middles = spans.mean(axis=1)
    inside = (middles >= window[0]) & (middles < window[1])
    if not inside.any():
        middle = sum(window) / 2
        inside = (spans[:, 0] <= middle) & (middle < spans[:, 1])
    return np.asarray(inside)


class _NetPieces(_Pieces):
    """Pieces that a net embeds."""

    _batch = BATCH_PIECES

    def __init__(self, net: Net, view: ViewSettings, pieces: PieceInput | None) -> None:
        super().__init__()
        self._net, self._view, self._own = net, view, pieces is not None
        self._waiting: list[tuple[Span, F32 | U8]] = []

    def _wait(self, span: Span, raw: F32 | U8) -> None:
        self._waiting.append((span, raw))
        if len(self._waiting) >= self._batch:
            self._embed_waiting()

    def _embed_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._batch):
            batch = waiting[first : first + self._batch]
            spans, raw = zip(*batch, strict=True)
            self._values += list(embed_array(self._net, np.stack(raw), pieces=self._own))
            self._spans += spans

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
        self._sound = np.zeros(self._before, dtype=np.float32)
        self._n_pieces = 0
        self.reach = raw.seconds / 2

    def add_sound(self, y: F32) -> None:
        super().add_sound(y)
        while len(self._sound) >= self._samples:
            start = self._n_pieces * self._step / self.sr
            self._wait((start, start + self._step / self.sr), self._sound[: self._samples])
            self._sound = self._sound[self._step :].copy()
            self._n_pieces += 1

    def finish(self) -> None:
        # Only a clip shorter than one piece is padded; the rest of a longer clip is dropped.
        if not self._n_pieces and len(self._sound) > self._before:
            self.add_sound(np.zeros(self._samples - len(self._sound), dtype=np.float32))


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
            step = max(stop - start for start, stop in plan.windows) / max(pieces.count, 1)
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
        self._piece_of = (order // self._n_frames).tolist()
        self._partial: dict[int, list[U8]] = {}
        self.reach = seconds / 2

    def add_picture(self, row: int, picture: U8) -> None:
        # The frames of a piece arrive sorted by time.
        piece = self._piece_of[row]
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
        self._first = 0
        self._widths: list[int] = []
        self.reach = settings.n_fft / settings.sr

    def add_sound(self, y: F32) -> None:
        super().add_sound(y)
        if len(self._sound) >= DESCRIBED_SECONDS * self.sr:
            self._embed_waiting()

    def finish(self) -> None:
        self._embed_waiting(last=True)

    def _embed_waiting(self, *, last: bool = False) -> None:
        """Describe the whole frames of the sound; if `last`, also the partial frame at the end."""
        n_fft, hop = self._settings.n_fft, self._settings.hop_length
        count = max(1 + (len(self._sound) - n_fft) // hop, 0)
        y = self._sound if last else self._sound[: (count - 1) * hop + n_fft]
        if len(y) == 0 or not (count or last):
            return
        self._sound = self._sound[count * hop :].copy()
        first, self._first = self._first, self._first + count
        try:
            names = [name for name in self._names if name != LOUDNESS]
            values = describe(y, self._settings, [*names, "times"])
        except BadMedia:
            # All frames are silent.
            return
        middles = values["times"][:, 0].astype(np.float64) + first * hop / self.sr
        values[LOUDNESS] = np.full((len(middles), 1), self.loudness, dtype=np.float32)
        half = hop / self.sr / 2
        self._spans += zip((middles - half).tolist(), (middles + half).tolist(), strict=True)
        parts = [values[name] for name in self._names]
        self._widths = [part.shape[1] for part in parts]
        self._values += list(np.concatenate(parts, axis=1))

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
        raw = np.full((self._n_frames, values.shape[1]), np.nan, dtype=np.float32)
        raw[: len(values)] = values[: self._n_frames]
        return _embed_window(self._net, raw)


class WholeSound(FeatureStream):
    """Windows of sound that a net reads as a whole; an omitted range becomes silence."""

    def __init__(self, net: Net) -> None:
        assert isinstance(net.input, AudioInput)
        self._net, self._input = net, net.input
        self.sr = net.input.sr
        self._first = 0

    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        first, stop = (max(round(t * self.sr) - self._first, 0) for t in window)
        y = self._sound[first:stop][: self._input.samples].copy()
        if len(y) == 0:
            return None
        if without is not None:
            begin, end = (max(round((t - window[0]) * self.sr), 0) for t in without)
            y[begin:end] = 0.0
        after = np.nan if self._input.mark_end else 0.0
        raw = np.full(self._input.samples, after, dtype=np.float32)
        raw[: len(y)] = y
        return _embed_window(self._net, raw)

    def forget(self, before: float) -> None:
        count = max(round(before * self.sr) - self._first, 0)
        self._sound = self._sound[count:].copy()
        self._first += count


class WholePictures(FeatureStream):
    """Frames spread over each window; frames in an omitted range become the others' mean."""

    def __init__(self, net: Net, plan: StreamPlan) -> None:
        assert isinstance(net.input, VideoInput)
        self._net, self.size = net, net.input.size
        sampling = FrameSampling(net.input.n_frames, net.input.size)
        self._of_window = {window: sampling.times(*window) for window in plan.windows}
        self.times = np.unique(np.concatenate(list(self._of_window.values())))
        self._pictures: dict[int, U8] = {}

    def add_picture(self, row: int, picture: U8) -> None:
        self._pictures[row] = picture

    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        times = self._of_window[window]
        rows = np.searchsorted(self.times, times).tolist()
        if not self._pictures.keys() >= set(rows):
            return None
        raw = np.stack([self._pictures[row] for row in rows])
        if without is not None:
            hidden = (times >= without[0]) & (times < without[1])
            if hidden.any() and not hidden.all():
                raw[hidden] = raw[~hidden].mean(axis=0).astype(np.uint8)
        return _embed_window(self._net, raw)

    def forget(self, before: float) -> None:
        kept = self._pictures.items()
        self._pictures = {row: picture for row, picture in kept if self.times[row] >= before}


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
