"""Features of new clips, from a model's nets and descriptors, in batches as in stage one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mvemo.cache import FeatureSpec, in_half_precision
from mvemo.extract.descriptors import DescriptorSettings, descriptor_spec
from mvemo.extract.errors import BadWeights
from mvemo.extract.media.request import IN_WORDS
from mvemo.extract.nets.parts import base, cards, registry
from mvemo.extract.settings import NetSettings
from mvemo.extract.training import devices, embedding
from mvemo.extract.workers.pool import cores
from mvemo.fuse.features import sequence_statistics, statistics_of
from mvemo.fuse.final import model
from mvemo.fuse.numeric import F64
from mvemo.manifests.model import Clip, Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import Progress, told_as_parts
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.model_nets import NET_PREFIX, load_net, plan_of
from mvemo.pipeline.prediction import passes, streams
from mvemo.pipeline.prediction.new_clips import NewClip, Windows, windows_of
from mvemo.pipeline.settings_files import load_settings

# Largest number of windows whose decoded media are on the disk at a time.
BATCH = 24
# Workers start slowly and need much memory: fewer than `FEW` windows use only one worker.
FEW, MOST_WORKERS = 8, 4
# Length of a window in seconds if no net reads sound.
DEFAULT_SECONDS = 30.0


@dataclass(frozen=True)
class PredictSettings:
    """Settings of predictions."""

    modalities: tuple[str, ...] = ("audio", "video")  # read from files that have them
    # Files of pretrained weights by net; other nets use downloaded weights.
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"


class FeatureMaker:
    """Features of a model folder, computed for new clips by its nets and descriptors."""

    def __init__(self, folder: Path, settings: PredictSettings) -> None:
        self.folder, self.options = folder, settings
        self.model: model.FinalModel = model.load_model(folder)
        # Reasons by feature why it cannot be computed here, such as missing weights.
        self.unavailable: dict[str, str] = {}
        self._nets: dict[str, base.Net] = {}
        stage_one = self.model.facts.get("provenance", {}).get("stage_one", {})
        stated = stage_one.get("settings", {}).get("descriptors", {})
        # The digests below differ if another version had further settings.
        known = {f.name: stated[f.name] for f in fields(DescriptorSettings) if f.name in stated}
        descriptors = DescriptorSettings(**known)
        self.settings = replace(load_settings("paper"), descriptors=descriptors)
        for spec in self.model.specs:
            for name, digest in spec.params.get("descriptors", {}).items():
                current = descriptor_spec(name, descriptors)
                # Half precision of stored frames hardly changes their statistics.
                if digest not in (current.digest, in_half_precision(current).digest):
                    raise BadOption(
                        f"{self.folder}: its descriptor {name!r} was computed by another version "
                        "or with unknown settings: train the model again"
                    )

    def predictors(self, modalities: Sequence[str]) -> list[model.Predictor]:
        """Load the best predictor for each set of modalities; raise BadOption if none works."""
        sets = [(m,) for m in modalities] + ([tuple(modalities)] if len(modalities) > 1 else [])
        while True:
            best = [self.model.best(s, self.unavailable) for s in sets]
            found = [predictor for predictor in best if predictor is not None]
            names = dict.fromkeys(name for p in found for name in p.features)
            missing = [name for name in names if not self._load(name)]
            if not missing:
                break
        if not found and self.unavailable:
            raise BadOption(next(iter(self.unavailable.values())))
        return list({predictor.name: predictor for predictor in found}.values())

    def features(self) -> tuple[str, ...]:
        """Return the features that the predictors of the settings' modalities read."""
        found = self.predictors(self.options.modalities)
        if not found:
            wanted = " and ".join(IN_WORDS[m] for m in self.options.modalities)
            needed = dict.fromkeys(IN_WORDS[m] for p in self.model.predictors for m in p.modalities)
            raise BadOption(
                f"{self.folder}: the model cannot predict from {wanted} only: it needs "
                f"{' and '.join(needed)}"
            )
        return tuple(dict.fromkeys(name for predictor in found for name in predictor.features))

    def _load(self, feature: str) -> bool:
        """Load the nets of a feature; return False if the feature cannot be computed here."""
        try:
            for spec in self.model.variants(feature):
                if is_net(spec):
                    self.net(spec)
        except (BadOption, BadWeights) as error:
            if feature in self.options.weights:
                raise
            self.unavailable[feature] = str(error)
            return False
        return True

    def open(
        self, clip: NewClip, modalities: tuple[str, ...], plan: streams.StreamPlan
    ) -> passes.ClipPass:
        """Return a pass over a clip that computes the features of its windows."""
        found: dict[model.FeatureKey, streams.FeatureStream] = {}
        names = dict.fromkeys(n for p in self.predictors(modalities) for n in p.features)
        descriptors = self.settings.descriptors
        for spec in (spec for name in names for spec in self.model.variants(name)):
            stream: streams.FeatureStream
            if is_net(spec):
                view = plan_of(spec).view
                stream = streams.net_stream(self.net(spec), view, plan, descriptors)
            else:
                stream = streams.Descriptors(spec.params["order"], descriptors)
            found[spec.name, spec.fold] = stream
        return passes.ClipPass(clip, plan, found, modalities)

    def net(self, spec: FeatureSpec) -> base.Net:
        """Return the net of a feature, loaded once."""
        if spec.digest not in self._nets:
            n_outputs, weights = len(self.model.classes), self.options.weights
            net = load_net(spec, n_outputs, self.folder, weights)
            self._nets[spec.digest] = devices.place(
                net, devices.pick_device(self.options.device)
            ).eval()
        return self._nets[spec.digest]


def is_net(spec: FeatureSpec) -> bool:
    """Return True for a net's embedding, False for statistics of descriptors."""
    return spec.extractor.startswith(NET_PREFIX)


# --- batches


@dataclass(frozen=True)
class EmbeddedClip:
    """Features of one clip, the input of a model's heads."""

    clip: NewClip
    windows: Windows  # windows that were read
    content: str = ""  # digest of the file's bytes; empty if the file cannot be read
    # float64 (dim,) by feature and fold, rounded to float32.
    vectors: Mapping[model.FeatureKey, F64] = field(default_factory=dict)
    # Reason why the clip lacks a modality; empty if it has the modality.
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""  # reason why the clip cannot be predicted
    passing: bool = False  # True if a failure may be temporary
    seconds: float = 0.0  # time that reading took
    # Time at which the clip was read.
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class BatchReader:
    """Reader of new clips that computes the features that a model's predictors need."""

    def __init__(self, maker: FeatureMaker) -> None:
        self.maker, self.features = maker, maker.features()
        # One spec of each feature is enough: the nets of all folds read the same input.
        specs = [maker.model.variants(name)[0] for name in self.features]
        self._plans = [self._plan(spec) for spec in specs if is_net(spec)]
        described = [spec for spec in specs if not is_net(spec)]
        self._descriptors = [name for spec in described for name in spec.params["order"]]
        # Length of the windows in seconds: the longest input among the audio nets.
        inputs = map(registry.input_of, self._plans)
        lengths = [i.seconds for i in inputs if isinstance(i, cards.AudioInput)]
        self.window = max(lengths, default=DEFAULT_SECONDS)

    def _plan(self, spec: FeatureSpec) -> NetSettings:
        # A net from a local folder has a name that includes the folder.
        return plan_of(spec, name=self.maker.net(spec).name)

    def read(self, clips: Mapping[int, NewClip]) -> Generator[list[tuple[int, EmbeddedClip]]]:
        """Yield batches of (key, clip), in order."""
        if not clips:
            return
        start = time.monotonic()
        # Decoding is one part; each net, or all descriptors together, is another.
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
        """Return the vector of each row if it is finite; all rows must have the spec's input."""
        vectors: dict[int, F64] = {}
        if not is_net(spec):
            statistics = statistics_of(spec)
            for row in rows:
                clip_id = media.manifest.clip_ids[row]
                sequences = (media.sequence(clip_id, name) for name in spec.params["order"])
                parts = [sequence_statistics(values, statistics) for values in sequences]
                vectors[row] = np.concatenate(parts).astype(np.float64)
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
            with Progress(spec.name, len(rows)) as bar:
                for batch, values in batches:
                    vectors.update(zip(batch, values.astype(np.float64), strict=True))
                    bar.step(len(batch))
        return {row: vector for row, vector in vectors.items() if np.isfinite(vector).all()}

    def _embed(self, clips: Sequence[EmbeddedClip], work: Path) -> list[EmbeddedClip]:
        """Decode the clips' windows, choose a predictor for each clip, and compute its vectors."""
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
            plans=self._plans,
            descriptors=self._descriptors,
            require_any=False,
        )
        usable: dict[str, set[int]] = {}
        for name in self.features:
            spec = maker.model.variants(name)[0]
            has = media.usable(self._plan(spec)) if is_net(spec) else media.described
            usable[name] = set(np.flatnonzero(has).tolist())
        chosen = [
            maker.model.best_of({name for name in self.features if usable[name].intersection(of)})
            for of in rows
        ]
        # Vectors are means over the windows of a clip.
        vectors: list[dict[model.FeatureKey, F64]] = [{} for _ in rows]
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
        predictor: model.Predictor | None,
        vectors: dict[model.FeatureKey, F64],
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
            problem=f"its {absent[0]} features are not finite" if absent else "",
            passing=any(map(media.passing, names)),
            date=datetime.now(timezone.utc),
        )
