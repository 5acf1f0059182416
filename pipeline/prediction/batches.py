"""Batches of new clips that are decoded and embedded together, and their windows."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.media.isolated import probe_isolated
from mvemo.extract.nets import AudioInput, NetInput, input_of
from mvemo.extract.training.devices import return_freed_memory
from mvemo.extract.workers.pool import cores
from mvemo.fuse.arrays import F64
from mvemo.fuse.final.model import FeatureKey, Predictor
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import Progress, told_as_parts
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.inputs import NewClip

# Largest number of windows whose decoded media are on the disk at a time.
BATCH = 24
# Workers take seconds to start and much memory: fewer windows than `FEW` use only one.
FEW, MOST_WORKERS = 8, 4
# Length of a window if no net reads sound.
DEFAULT_SECONDS = 30.0
# Clips longer than `LONG` inputs are read in up to `MOST_WINDOWS` windows, to bound the cost.
LONG = 1.5
MOST_WINDOWS = 8


@dataclass(frozen=True)
class Windows:
    """Windows of a clip that are read."""

    # (start, duration) in seconds; a duration of None is the rest of the file.
    stretches: tuple[tuple[float, float | None], ...] = ()
    notes: tuple[str, ...] = ()  # notes for the user
    problem: str = ""  # reason why there are no windows
    length: float = 0.0  # length of the clip in seconds; 0 if unknown
    passing: bool = False  # True if the problem may not happen again


def input_seconds(inputs: Iterable[NetInput]) -> float:
    """Return the longest input among nets of sound, in seconds."""
    lengths = [i.seconds for i in inputs if isinstance(i, AudioInput)]
    return max(lengths, default=DEFAULT_SECONDS)


def clip_seconds(clip: NewClip) -> float:
    """Return the length of a clip in seconds; raise ExtractError if it cannot be read."""
    length = probe_isolated(clip.path) - clip.start
    if length <= 0:
        raise BadMedia(f"{clip.path}: the clip starts at {clip.start:g} s, after its file's end")
    return length if clip.duration is None else min(length, clip.duration)


def windows_of(clip: NewClip, seconds: float, length: float | None = None) -> Windows:
    """Return the windows to read: the whole clip, or windows of `seconds` spread over a long one.

    `length` is the length that an earlier call found; None measures the file.
    """
    if length is None:
        try:
            length = clip_seconds(clip)
        except ExtractError as error:
            reason = str(error).removeprefix(f"{clip.path}: ")
            return Windows(problem=reason, passing=not isinstance(error, BadMedia))
    if length <= LONG * seconds:
        notes: Sequence[str] = ()
        if length < 1.0:
            notes = (f"only {length:.2f} s long: too short to tell",)
        elif length > seconds + 1.0:
            notes = (f"{length:.0f} s long: of its sound the first {seconds:g} s are read",)
        return Windows(((clip.start, clip.duration),), tuple(notes), length=length)
    count = min(math.ceil(length / seconds), MOST_WINDOWS)
    starts = clip.start + np.linspace(0.0, length - seconds, count)
    note = f"{length:.0f} s long: the mean of {count} windows of {seconds:g} s, spread over it"
    stretches = tuple((round(float(s), 3), seconds) for s in starts)
    return Windows(stretches, (note,), length=length)


@dataclass(frozen=True)
class EmbeddedClip:
    """Features of one clip, before a model's heads read them."""

    clip: NewClip
    windows: Windows  # windows that were read
    content: str = ""  # digest of the file's bytes; empty if the file cannot be read
    # float64 (dim,) by feature and net, rounded to float32.
    vectors: Mapping[FeatureKey, F64] = field(default_factory=dict)
    # Reason why the clip lacks a modality; empty if it has the modality.
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""  # reason why the clip cannot be predicted
    passing: bool = False  # True if a failure may not happen again
    seconds: float = 0.0  # time that reading took
    # Time at which the clip was read.
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class BatchReader:
    """Reader of new clips for a model, with the features that some predictor needs."""

    def __init__(self, maker: FeatureMaker, features: tuple[str, ...]) -> None:
        self.maker, self.features = maker, features
        # Length of the nets' windows, in seconds.
        self.window = input_seconds(input_of(plan) for plan in maker.plans(features))

    def read(self, clips: Mapping[int, NewClip]) -> Iterator[list[tuple[int, EmbeddedClip]]]:
        """Yield batches of (key, clip), in order."""
        if not clips:
            return
        start = time.monotonic()
        # One part is decoding; each net, or the descriptors, is one more.
        n_parts = 1 + sum(len(self.maker.model.variants(name)) for name in self.features)
        with Progress("clips", len(clips)) as bar:
            for batch in self._batches(clips):
                readable = [clip for _, clip in batch if not clip.windows.problem]
                with (
                    tempfile.TemporaryDirectory(prefix="mvemo-") as work,
                    told_as_parts(len(batch), n_parts, bar.ahead),
                ):
                    embedded = iter(self._embed(readable, Path(work)) if readable else [])
                done = [(row, c if c.windows.problem else next(embedded)) for row, c in batch]
                bar.step(len(done), failed=sum(not clip.vectors for _, clip in done))
                seconds, start = time.monotonic() - start, time.monotonic()
                yield [(row, replace(clip, seconds=seconds / len(done))) for row, clip in done]
                # Clips of different lengths fragment the memory.
                return_freed_memory()

    def _batches(self, clips: Mapping[int, NewClip]) -> Iterator[list[tuple[int, EmbeddedClip]]]:
        batch: list[tuple[int, EmbeddedClip]] = []
        n = 0
        for row, clip in clips.items():
            windows = windows_of(clip, self.window)
            if batch and n + len(windows.stretches) > BATCH:
                yield batch
                batch, n = [], 0
            unread = EmbeddedClip(clip, windows, problem=windows.problem, passing=windows.passing)
            batch.append((row, unread))
            n += len(windows.stretches)
        if batch:
            yield batch

    def _embed(self, clips: Sequence[EmbeddedClip], work: Path) -> list[EmbeddedClip]:
        """Decode all windows of the clips, choose a predictor for each, and make its vectors."""
        stretches: list[Clip] = []
        rows: list[list[int]] = []
        for clip in clips:
            rows.append([])
            for start, duration in clip.windows.stretches:
                name = str(len(stretches))
                rows[-1].append(len(stretches))
                path = str(clip.clip.path.absolute())
                stretches.append(Clip(name, path, (), name, start, duration))
        maker = self.maker
        workers = 1 if len(stretches) < FEW else min(cores(), MOST_WORKERS)
        extract = replace(maker.settings.extract, workers=workers)
        media = ClipMedia(
            Manifest("predict", "multilabel", (), tuple(stretches), Path()),
            replace(maker.settings, extract=extract),
            work,
            plans=maker.plans(self.features),
            descriptors=maker.descriptors(self.features),
            require_any=False,
        )
        usable = {name: set(maker.has(name, media)) for name in self.features}
        chosen = [
            maker.model.best_of({name for name in self.features if usable[name].intersection(of)})
            for of in rows
        ]
        vectors = self._vectors(media, rows, chosen, usable)
        return [
            self._embedded(clip, media, [str(row) for row in of], predictor, found)
            for clip, of, predictor, found in zip(clips, rows, chosen, vectors, strict=True)
        ]

    def _vectors(
        self,
        media: ClipMedia,
        rows: Sequence[Sequence[int]],
        chosen: Sequence[Predictor | None],
        usable: Mapping[str, set[int]],
    ) -> list[dict[FeatureKey, F64]]:
        """Return each clip's vectors: the means over its windows."""
        vectors: list[dict[FeatureKey, F64]] = [{} for _ in rows]
        for name in self.features:
            needed = [i for i, p in enumerate(chosen) if p is not None and name in p.features]
            of_name = [row for i in needed for row in rows[i] if row in usable[name]]
            for spec in self.maker.model.variants(name):
                found = self.maker.embed(spec, media, of_name)
                for i in needed:
                    values = [found[row] for row in rows[i] if row in found]
                    if values:
                        mean = np.mean(values, axis=0).astype(np.float32)
                        vectors[i][name, spec.fold] = mean.astype(np.float64)
        return vectors

    def _embedded(
        self,
        clip: EmbeddedClip,
        media: ClipMedia,
        names: Sequence[str],
        predictor: Predictor | None,
        vectors: dict[FeatureKey, F64],
    ) -> EmbeddedClip:
        front = f"{clip.clip.path.absolute()}: "
        reasons = {m: media.reason(names[0], m).removeprefix(front) for m in media.modalities}
        needed = [] if predictor is None else predictor.features
        variants = self.maker.model.variants
        absent = [n for n in needed if any((n, s.fold) not in vectors for s in variants(n))]
        return replace(
            clip,
            content=media.digests[names[0]],
            vectors=vectors,
            reasons=reasons,
            problem=f"its {absent[0]} features are not finite numbers" if absent else "",
            passing=any(map(media.passing, names)),
            date=datetime.now(timezone.utc),
        )
