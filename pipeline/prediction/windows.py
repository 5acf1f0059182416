"""Vectors of the windows of one clip, which is decoded once.

Most nets embed pieces: patches of sound, frames, views of a few seconds. Overlapping windows share
pieces, so each piece is embedded once. A window's vector is pooled over the pieces whose middle
lies in the window, and so are the frames of descriptors. Nets that read a clip as a whole embed
each window separately.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvemo.cache import FeatureSpec
from mvemo.extract.descriptors import LOUDNESS, DescriptorSettings
from mvemo.extract.media.loudness import gain_to
from mvemo.extract.media.request import FrameSampling, FrameTimes, MediaProblem
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput
from mvemo.extract.store import contents, decoded, folders
from mvemo.extract.training import data, embedding
from mvemo.fuse.features import statistics_vector
from mvemo.fuse.final.model import FeatureKey
from mvemo.manifests.array_types import F32, F64, U8, Ints
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.model_nets import plan_of
from mvemo.pipeline.prediction import new_clips, page

Span = tuple[float, float]  # start and stop in seconds from the clip's start
# Called with the share of the work that is done, from 0 to 1; an exception ends the work.
Progress = Callable[[float], object]


@dataclass(frozen=True)
class WindowPlan:
    """Windows of a clip to predict."""

    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # ascending
    # Seconds between views of several frames; 0 for consecutive views.
    view_step: float = 0.0
    # Seconds between the middles of pieces of any kind; 0 for the net's own step, without overlap.
    piece_step: float = 0.0


@dataclass
class ClipWindows:
    """Vectors of any window of a clip, whose sound, pictures and descriptors are in files."""

    clip: new_clips.NewClip
    plan: WindowPlan
    features: Mapping[FeatureKey, Feature]  # the features of the clip after `read_windows`
    store: decoded.DecodedStore
    described: decoded.DescribedStore
    samplings: Mapping[int, FrameTimes]  # pictures by size
    content: str  # digest of the file's content
    problems: dict[str, MediaProblem] = field(default_factory=dict)  # by modality

    def sound(self, sr: int) -> F32:
        """Return the samples at a rate in Hz, float32 (n,)."""
        return self.store.array("", sr)

    def pictures(self, size: int, times: F64) -> U8:
        """Return the pictures at times in seconds, uint8 (*times.shape, size, size, 3)."""
        sampling = self.samplings[size]
        rows = np.searchsorted(sampling.seconds, times)
        return np.asarray(self.store.array("", sampling)[rows])

    def frames(self, name: str, window: Span, without: Span | None) -> F32:
        """Return the audible frames of a descriptor, float32 (frames, dim)."""
        values, settings = self.described.sequence("", name), self.described.settings
        if name == LOUDNESS:
            return values
        middles = self.described.sequence("", _times_of(name, settings)).astype(np.float64)
        half = settings.framed(name).hop_length / settings.sr / 2
        return values[_inside(middles + np.array([-half, half]), window, without)]

    def vectors(
        self, window: Span, without: Span | None = None, keys: Collection[FeatureKey] | None = None
    ) -> dict[FeatureKey, F64]:
        """Return the finite vectors of a window, of all features or those in `keys`."""
        chosen = self.features if keys is None else keys
        found = {key: self.features[key].vector(window, without) for key in chosen}
        return {k: x for k, x in found.items() if len(x) and np.isfinite(x).all()}

    def sketch(self, *, keep_sound: bool) -> page.Sketch:
        """Return the waveform, the sound and the thumbnails for a page."""
        request, thumbnails = self.store.request, list[tuple[float, U8]]()
        if request.pictures and "video" not in self.problems:
            times = page.thumbnail_times(self.plan.seconds)
            pictures = self.pictures(page.THUMBNAIL, times)
            thumbnails = list(zip(times.tolist(), pictures, strict=True))
        y, sr, gain = np.zeros(0, dtype=np.float32), min(request.sample_rates, default=0), 1.0
        if sr and "audio" not in self.problems:
            loudness = np.load(self.store.folder_of("") / folders.LOUDNESS)[0, 0]
            y, gain = self.sound(sr), gain_to(request.level, float(loudness))
        return page.Sketch(y, sr, gain, thumbnails, keep_sound=keep_sound)


def _times_of(name: str, settings: DescriptorSettings) -> str:
    """Return the name of the descriptor with the frame times of descriptor `name`."""
    return "times" if settings.framed(name) is settings else "spectrogram_times"


class Feature:
    """One feature of a clip's windows, by one net or from descriptors."""

    sr: int = 0  # sampling rate of the sound in Hz; 0 if it reads no sound
    size: int = 0  # height and width of the pictures in pixels; 0 if it reads none
    times: F64 = np.zeros(0)  # of the pictures in seconds from the clip's start
    descriptors: Sequence[str] = ()

    @property
    def modality(self) -> str:
        return "video" if self.size else "audio"

    def read(self, media: ClipWindows, progress: Progress) -> None:
        """Keep the media of a clip, and embed its pieces."""
        self.media = media

    def vector(self, window: Span, without: Span | None = None) -> F64:
        """Return the vector of a window without the range `without`, float64 (dim,) or empty."""
        raise NotImplementedError


class Statistics(Feature):
    """Statistics of the frames of descriptors."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec, self.descriptors = spec, spec.params["order"]

    def vector(self, window: Span, without: Span | None = None) -> F64:
        frames = [self.media.frames(name, window, without) for name in self.descriptors]
        return statistics_vector(self._spec, frames) if all(map(len, frames)) else np.zeros(0)


class NetFeature(Feature):
    """Feature of a net."""

    input: Any  # input of a piece, or of the net if it has no pieces

    def __init__(self, net: Net, spec: FeatureSpec) -> None:
        self._net, self._spec = net, spec
        self._pieces = net.piece_input()
        self.input = net.input if self._pieces is None else self._pieces.raw
        if isinstance(self.input, AudioInput):
            self.sr = self.input.sr
        elif isinstance(self.input, VideoInput):
            self.size = self.input.size

    def embed(
        self, read: Callable[[int], F32 | U8], n: int, progress: Progress = lambda share: None
    ) -> F32:
        """Return the vectors of `n` rows, float32 (n, dim); `read` returns the media of a row."""
        batches = embedding.embed_rows(
            self._net,
            data.RawBatches(read, self._pieces or self.input),
            range(n),
            batch_size=8 if self._pieces else 1,
            device=self._net.classifier.weight.device,
            precision=self._spec.params["precision"],
        )
        found = []
        for rows, values in batches:
            found.append(values)
            progress((rows[-1] + 1) / n)
        return np.concatenate(found)


class WholeWindows(NetFeature):
    """Feature of a net that reads each window as a whole: here, descriptors."""

    def __init__(self, net: Net, spec: FeatureSpec) -> None:
        super().__init__(net, spec)
        self.descriptors = getattr(net.input, "features", ())

    def vector(self, window: Span, without: Span | None = None) -> F64:
        raw = self.raw(window, without)
        return (self.embed(lambda row: raw, 1)[0] if len(raw) else raw[:0]).astype(np.float64)

    def raw(self, window: Span, without: Span | None) -> Any:
        """Return the media of a window."""
        parts = [self.media.frames(name, window, without) for name in self.descriptors]
        return np.concatenate(parts, axis=1)


class WholeSound(WholeWindows):
    """Feature of a net that reads sound; an omitted range becomes silence."""

    def raw(self, window: Span, without: Span | None) -> F32:
        first, stop = (max(round(t * self.sr), 0) for t in window)
        y = np.array(self.media.sound(self.sr)[first:stop][: self.input.samples])
        if without is not None:
            begin, end = (max(round((t - window[0]) * self.sr), 0) for t in without)
            y[begin:end] = 0.0
        return y


class WholePictures(WholeWindows):
    """Feature of a net that reads frames spread over a window; omitted ones become the mean."""

    def __init__(self, net: Net, spec: FeatureSpec, plan: WindowPlan) -> None:
        super().__init__(net, spec)
        self._sampling = FrameSampling(self.input.n_frames, self.size)
        self.times = np.concatenate([self._sampling.times(*window) for window in plan.windows])

    def raw(self, window: Span, without: Span | None) -> U8:
        times = self._sampling.times(*window)
        raw = self.media.pictures(self.size, times)
        if without is not None:
            hidden = (times >= without[0]) & (times < without[1])
            if hidden.any() and not hidden.all():
                raw[hidden] = raw[~hidden].mean(axis=0).astype(np.uint8)
        return raw


class Pieces(NetFeature):
    """Feature of a net whose pieces are embedded once."""

    spans: F64  # of the pieces in seconds, ascending, float64 (pieces, 2)

    def read(self, media: ClipWindows, progress: Progress) -> None:
        super().read(media, progress)
        self._values = self.embed(self.piece, len(self.spans), progress)

    def piece(self, row: int) -> F32 | U8:
        """Return the media of a piece."""
        raise NotImplementedError

    @torch.inference_mode()
    def vector(self, window: Span, without: Span | None = None) -> F64:
        rows = _inside(self.spans, window, without)
        if not len(rows):
            return np.zeros(0)
        values = torch.from_numpy(self._values[rows]).to(self._net.classifier.weight.device)
        if self._pieces is not None:
            pooled = self._net.pool_pieces(values)
        else:
            pooling = plan_of(self._spec).view.pooling
            pooled = embedding.pool_windows(values, [len(values)], pooling)[0]
        return pooled.cpu().numpy().astype(np.float64)


class SoundPieces(Pieces):
    """Consecutive patches of sound or, for nets without patches, input windows.

    With `WindowPlan.piece_step` they may overlap, and those at both ends are padded with silence.
    """

    def __init__(self, net: Net, spec: FeatureSpec, plan: WindowPlan) -> None:
        super().__init__(net, spec)
        self._hop = plan.piece_step

    def read(self, media: ClipWindows, progress: Progress) -> None:
        pieces, length = self._pieces, len(media.sound(self.sr))
        self._step = round((self._hop or (pieces.step if pieces else self.input.seconds)) * self.sr)
        self._before = round((pieces.before if pieces else 0.0) * self.sr)
        # Only a clip shorter than one piece is padded; the rest of a longer clip is dropped.
        count = max((length + self._before - self.input.samples) // self._step + 1, 1)
        if self._hop:
            self._before = (self.input.samples - self._step) // 2
            count = max(-(-length // self._step), 1)
        starts = np.arange(count) * self._step / self.sr
        self.spans = np.stack([starts, starts + self._step / self.sr], axis=1)
        super().read(media, progress)

    def piece(self, row: int) -> F32:
        start = row * self._step - self._before
        y = self.media.sound(self.sr)[max(start, 0) : max(start + self.input.samples, 0)]
        after = self.input.samples - len(y) - max(-start, 0) if self._hop else 0
        return np.pad(y, (max(-start, 0), max(after, 0)))


class PicturePieces(Pieces):
    """Single frames, or views of several frames at a given rate."""

    def __init__(self, net: Net, spec: FeatureSpec, plan: WindowPlan) -> None:
        super().__init__(net, spec)
        raw, rate = self.input, plan_of(spec).view.rate
        seconds = raw.n_frames / rate if rate else 0.0
        if self._pieces is not None:
            step = max(stop - start for start, stop in plan.windows) / max(self._pieces.count, 1)
        else:
            step = max(plan.view_step, seconds)
        step = plan.piece_step or step
        count = max(1, round(plan.seconds / step))
        middles = (np.arange(count) + 0.5) * plan.seconds / count
        self._times = middles[:, None]  # (pieces, frames)
        if self._pieces is None:
            starts = np.clip(middles - seconds / 2, 0.0, max(plan.seconds - seconds, 0.0))
            sampling = FrameSampling(raw.n_frames, raw.size, rate=rate)
            self._times = starts[:, None] + sampling.times(0.0, min(seconds, plan.seconds))
        half = seconds / 2 or step / 2
        self.spans = self._times.mean(axis=1, keepdims=True) + np.array([-half, half])
        self.times = self._times.ravel()

    def piece(self, row: int) -> U8:
        return self.media.pictures(self.size, self._times[row])


def _inside(spans: F64, window: Span, without: Span | None = None) -> Ints:
    """Return the pieces whose middle is in a window, or else the piece at the window's middle."""
    rows = np.arange(*np.searchsorted(spans.mean(axis=1), window))
    if not len(rows):
        middle = sum(window) / 2
        rows = np.flatnonzero((spans[:, 0] <= middle) & (middle < spans[:, 1]))
    return rows if without is None else np.setdiff1d(rows, _inside(spans, without))


def feature_of(spec: FeatureSpec, net: Net | None, plan: WindowPlan) -> Feature:
    """Return the `Feature` for a spec: of a net, or of descriptors if `net` is None."""
    if net is None:
        return Statistics(spec)
    if isinstance(net.input, SequenceInput):
        return WholeWindows(net, spec)
    whole, view = net.piece_input() is None, plan_of(spec).view
    if isinstance(net.input, AudioInput):
        # If a net reads several windows of a clip, its input windows are the pieces.
        is_read_whole = whole and view.views == 1
        return WholeSound(net, spec) if is_read_whole else SoundPieces(net, spec, plan)
    kind = WholePictures if whole and not view.rate else PicturePieces
    return kind(net, spec, plan)


@contextmanager
def read_windows(
    clip: new_clips.NewClip,
    plan: WindowPlan,
    features: Mapping[FeatureKey, Feature],
    settings: DescriptorSettings,
    modalities: Collection[str],
    progress: Progress,
) -> Iterator[ClipWindows]:
    """Decode a clip and embed its pieces; within the context, its media are on the disk."""
    names = {name: None for f in features.values() for name in f.descriptors}
    names |= dict.fromkeys([_times_of(name, settings) for name in names])
    rates = {f.sr for f in features.values() if f.sr} | ({settings.sr} if names else set())
    times = {page.THUMBNAIL: [page.thumbnail_times(plan.seconds)]}
    for feature in features.values():
        if feature.size:
            times.setdefault(feature.size, []).append(feature.times)
    samplings = {s: FrameTimes(s, seconds=np.unique(np.concatenate(t))) for s, t in times.items()}
    request = folders.DecodeRequest(
        tuple(sorted(rates or {16000})) if "audio" in modalities else (),
        tuple(samplings.values()) if "video" in modalities else (),
        settings.level,
    )
    content, how = contents.content_of(clip.path).digest, decoded.DecodeSettings()
    with tempfile.TemporaryDirectory(prefix="mvemo-") as work:
        store = decoded.DecodedStore(Path(work), request)
        described = decoded.DescribedStore(store, settings, list(names))
        read = ClipWindows(clip, plan, features, store, described, samplings, content)
        job = folders.DecodeJob("", clip.path, content, clip.start, clip.duration)
        decoded.decode_many(store, [job], how, on_clip=lambda _, of: read.problems.update(of))
        if note := read.problems.pop(folders.NOTE, None):
            tell_note(f"{clip.path.name}: {note}")
        progress(0.3)
        undescribed = list[str]()
        if names and request.sample_rates and "audio" not in read.problems:
            decoded.describe_many(
                described, [""], how, on_clip=lambda _, reason: undescribed.append(reason)
            )
        progress(0.4)
        read.features = {
            key: feature
            for key, feature in features.items()
            if feature.modality not in read.problems
            and not (feature.descriptors and any(undescribed))
        }
        # Embedding counts as half of the work.
        each = 0.5 / max(len(read.features), 1)
        for i, feature in enumerate(read.features.values()):
            feature.read(read, lambda share, i=i: progress(0.4 + each * (i + share)))  # type: ignore[misc]
        yield read
