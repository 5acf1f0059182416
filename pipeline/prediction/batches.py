"""Batches of new clips that are decoded and embedded together, as stage one does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mvemo.cache import FeatureSpec
from mvemo.extract.nets import AudioInput, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.training import devices, embedding
from mvemo.extract.workers.pool import cores
from mvemo.fuse.features import sequence_statistics, statistics_of
from mvemo.fuse.final.model import FeatureKey, Predictor
from mvemo.fuse.numeric import F64
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import Progress, told_as_parts
from mvemo.pipeline.model_nets import plan_of
from mvemo.pipeline.prediction.embedding import FeatureMaker, is_net
from mvemo.pipeline.prediction.new_clips import NewClip, Windows, windows_of

# Largest number of windows whose decoded media are on the disk at a time.
BATCH = 24
# Workers take seconds to start and much memory: fewer windows than `FEW` use only one.
FEW, MOST_WORKERS = 8, 4
# Length of a window in seconds if no net reads sound.
DEFAULT_SECONDS = 30.0


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

    def __init__(self, maker: FeatureMaker) -> None:
        self.maker, self.features = maker, maker.features()
        # Length of the nets' windows in seconds: the longest input among nets of sound.
        inputs = map(input_of, self._plans())
        lengths = [i.seconds for i in inputs if isinstance(i, AudioInput)]
        self.window = max(lengths, default=DEFAULT_SECONDS)

    def read(self, clips: Mapping[int, NewClip]) -> Generator[list[tuple[int, EmbeddedClip]]]:
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
                devices.return_freed_memory()

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

    def embed(self, spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]) -> dict[int, F64]:
        """Return float64 (dim,) for each row with finite values; all rows have the input."""
        if not rows:
            return {}
        vectors = (self._embeddings if is_net(spec) else _statistics)(spec, media, rows)
        return {row: vector for row, vector in vectors.items() if np.isfinite(vector).all()}

    def _embeddings(
        self, spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]
    ) -> dict[int, F64]:
        vectors: dict[int, F64] = {}
        net = self.maker.net(spec)
        batches = embedding.embed_rows(
            net,
            media.batches(net, plan_of(spec).view),
            rows,
            batch_size=self.maker.settings.extract.embed_batch,
            device=devices.pick_device(self.maker.options.device),
            precision=spec.params["precision"],
        )
        with Progress(spec.name, len(rows)) as bar:
            for batch, values in batches:
                vectors.update(zip(batch, values.astype(np.float64), strict=True))
                bar.step(len(batch))
        return vectors

    def _specs(self) -> list[FeatureSpec]:
        """Return one spec of each feature: the nets of all folds read the same."""
        return [self.maker.model.variants(name)[0] for name in self.features]

    def _plans(self) -> list[NetSettings]:
        return [self._plan(spec) for spec in self._specs() if is_net(spec)]

    def _plan(self, spec: FeatureSpec) -> NetSettings:
        return plan_of(spec, name=self.maker.net(spec).name)

    def _descriptors(self) -> list[str]:
        specs = [spec for spec in self._specs() if not is_net(spec)]
        return [name for spec in specs for name in spec.params["order"]]

    def _rows_with(self, feature: str, media: ClipMedia) -> list[int]:
        """Return the rows of the clips that have the input of a feature."""
        spec = self.maker.model.variants(feature)[0]
        usable = media.usable(self._plan(spec)) if is_net(spec) else media.described
        return [int(row) for row in np.flatnonzero(usable)]

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
            plans=self._plans(),
            descriptors=self._descriptors(),
            require_any=False,
        )
        usable = {name: set(self._rows_with(name, media)) for name in self.features}
        chosen = [
            maker.model.best_of({name for name in self.features if usable[name].intersection(of)})
            for of in rows
        ]
        # Vectors are means over the windows of a clip.
        vectors: list[dict[FeatureKey, F64]] = [{} for _ in rows]
        for name in self.features:
            needed = [i for i, p in enumerate(chosen) if p is not None and name in p.features]
            of_name = [row for i in needed for row in rows[i] if row in usable[name]]
            for spec in maker.model.variants(name):
                found = self.embed(spec, media, of_name)
                for i in needed:
                    values = [found[row] for row in rows[i] if row in found]
                    if values:
                        mean = np.mean(values, axis=0).astype(np.float32)
                        vectors[i][name, spec.fold] = mean.astype(np.float64)
        return [
            self._embedded(clip, media, [str(row) for row in of], predictor, found)
            for clip, of, predictor, found in zip(clips, rows, chosen, vectors, strict=True)
        ]

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


def _statistics(spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]) -> dict[int, F64]:
    """Return the statistics of descriptors, the feature ``lld``, by row."""
    vectors, statistics = {}, statistics_of(spec)
    for row in rows:
        clip_id = media.manifest.clip_ids[row]
        parts = [
            sequence_statistics(media.sequence(clip_id, name), statistics)
            for name in spec.params["order"]
        ]
        vectors[row] = np.concatenate(parts).astype(np.float64)
    return vectors
