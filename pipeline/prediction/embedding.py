"""Features of new clips in batches, as in stage one."""

import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import numpy as np

from mvemo.cache import FeatureSpec
from mvemo.extract.nets import AudioInput, input_of
from mvemo.extract.training import devices, embedding
from mvemo.extract.workers.pool import cores
from mvemo.fuse.features import statistics_vector
from mvemo.fuse.final.model import FeatureKey
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.array_types import F64
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import Progress, told_as_parts
from mvemo.pipeline.model_nets import is_net, plan_of
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import Batch, EmbeddedClip, NewClip, windows_of

# Maximum number of windows whose decoded media are on the disk at the same time.
BATCH = 24
# Workers start slowly and need much memory: fewer than `FEW` windows use only one worker.
FEW, MOST_WORKERS = 8, 4
# Length of a window in seconds if no net reads sound.
DEFAULT_SECONDS = 30.0


class BatchReader:
    """Reader of new clips that computes the features that a model's predictors need."""

    def __init__(self, maker: FeatureMaker, *, one_by_one: bool = False) -> None:
        self.maker = maker
        self.features = maker.features()
        self._one_by_one = one_by_one  # True to yield each clip as soon as it is done
        # One spec of each feature is enough: the nets of all folds read the same input.
        specs = [(name, maker.model.variants(name)[0]) for name in self.features]
        # A net from a local folder has a name that includes the folder.
        self._plans = {n: plan_of(s, name=maker.net(s).name) for n, s in specs if is_net(s)}
        orders = [spec.params["order"] for _, spec in specs if not is_net(spec)]
        self._descriptors = [name for order in orders for name in order]
        # Length of the windows in seconds: the longest input among the audio nets.
        inputs = map(input_of, self._plans.values())
        lengths = [i.seconds for i in inputs if isinstance(i, AudioInput)]
        self.window: float = max(lengths, default=DEFAULT_SECONDS)

    def read(self, clips: Mapping[int, NewClip]) -> Generator[Batch]:
        """Yield batches of (key, clip), in order."""
        if not clips:
            return
        start, times = time.monotonic(), dict[str, float]()
        titles = ["decode", *["describe"] * bool(self._descriptors)]
        titles += [spec.label for spec in filter(is_net, self.maker.specs(self.features))]
        with Progress("clips", len(clips)) as bar:
            for batch in self._batches(clips):
                readable = [clip for _, clip in batch if not clip.windows.problem]
                with (
                    tempfile.TemporaryDirectory(prefix="mvemo-") as work,
                    told_as_parts(len(batch), titles, bar.ahead, times),
                ):
                    embedded = self._embed(readable, Path(work)) if readable else iter(())
                    done = ((row, c if c.windows.problem else next(embedded)) for row, c in batch)
                    size = 1 if self._one_by_one else len(batch)
                    while found := list(islice(done, size)):
                        bar.step(len(found), failed=sum(not clip.vectors for _, clip in found))
                        seconds, start = time.monotonic() - start, time.monotonic()
                        each = seconds / len(found)
                        yield [(row, replace(clip, seconds=each)) for row, clip in found]
                # Inputs of different lengths fragment the GPU's memory.
                devices.return_freed_memory()

    def _batches(self, clips: Mapping[int, NewClip]) -> Iterator[Batch]:
        batch: Batch = []
        # A small first batch gives an early estimate of the remaining time.
        n, most = 0, min(FEW if len(clips) > BATCH else BATCH, BATCH)
        for row, clip in clips.items():
            windows = windows_of(clip, self.window)
            if batch and n + len(windows.stretches) > most:
                yield batch
                batch, n, most = [], 0, BATCH
            unread = EmbeddedClip(clip, windows, problem=windows.problem, passing=windows.passing)
            batch.append((row, unread))
            n += len(windows.stretches)
        if batch:
            yield batch

    def embed(self, spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]) -> dict[int, F64]:
        """Return the vector of each row if it is finite; all rows must have the spec's input."""
        vectors = {}
        if not is_net(spec):
            for row in rows:
                clip_id = media.manifest.clip_ids[row]
                sequences = [media.sequence(clip_id, name) for name in spec.params["order"]]
                vectors[row] = statistics_vector(spec, sequences)
        elif rows:
            net = self.maker.net(spec)
            batches = embedding.embed_rows(
                net,
                media.batches(net, plan_of(spec).view),
                rows,
                batch_size=self.maker.settings.extract.embed_batch,
                device=devices.pick_device(self.maker.options.device),
                precision=spec.params["precision"],
            )
            with Progress(spec.label, len(rows)) as bar:
                for batch, values in batches:
                    vectors.update(zip(batch, values.astype(np.float64), strict=True))
                    bar.step(len(batch))
        return {row: vector for row, vector in vectors.items() if np.isfinite(vector).all()}

    def _embed(self, clips: Sequence[EmbeddedClip], work: Path) -> Iterator[EmbeddedClip]:
        """Decode the clips' windows, choose a predictor for each clip, and compute its vectors."""
        stretches: list[Clip] = []
        rows = []
        for clip in clips:
            first, path = len(stretches), str(clip.clip.path.absolute())
            for number, window in enumerate(clip.windows.stretches, first):
                stretches.append(Clip(str(number), path, (), str(number), *window))
            rows.append(range(first, len(stretches)))
        model, settings = self.maker.model, self.maker.settings
        workers = 1 if len(stretches) < FEW else min(cores(), MOST_WORKERS)
        extract = replace(settings.extract, workers=workers)
        media = ClipMedia(
            Manifest("predict", "multilabel", (), tuple(stretches), Path()),
            replace(settings, extract=extract),
            work,
            plans=list(self._plans.values()),
            descriptors=self._descriptors,
            require_any=False,
        )
        usable = {
            name: media.usable(self._plans[name]) if name in self._plans else media.described
            for name in self.features
        }
        needed = []
        for of in rows:
            best = model.best_of({name for name in usable if usable[name][of].any()})
            needed.append(best.features if best else ())
        whole = range(len(clips))
        for group in ([i] for i in whole) if self._one_by_one else [whole]:
            found: dict[FeatureKey, dict[int, F64]] = {}
            for spec in self.maker.specs(self.features):
                wanted = [row for i in group if spec.name in needed[i] for row in rows[i]]
                read = [row for row in wanted if usable[spec.name][row]]
                found[spec.name, spec.fold] = self.embed(spec, media, read)
            for i in group:
                yield self._embedded(clips[i], media, rows[i], needed[i], found)

    def _embedded(
        self,
        clip: EmbeddedClip,
        media: ClipMedia,
        rows: range,
        needed: Sequence[str],
        found: Mapping[FeatureKey, Mapping[int, F64]],
    ) -> EmbeddedClip:
        """Return a clip with its vectors: means over its windows, which have these `rows`."""
        vectors = {}
        for key, of_row in found.items():
            if values := [of_row[row] for row in rows if row in of_row]:
                mean = np.mean(values, axis=0).astype(np.float32)
                vectors[key] = mean.astype(np.float64)
        ids, front = [*map(str, rows)], f"{clip.clip.path.absolute()}: "
        variants = self.maker.model.variants
        absent = [n for n in needed if any((n, s.fold) not in vectors for s in variants(n))]
        return replace(
            clip,
            content=media.digests[ids[0]],
            vectors=vectors,
            reasons={m: media.reason(ids[0], m).removeprefix(front) for m in media.modalities},
            problem=f"its {absent[0]} features are not finite" if absent else "",
            passing=any(map(media.passing, ids)),
            date=datetime.now(timezone.utc),
        )
