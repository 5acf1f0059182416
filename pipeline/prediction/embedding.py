"""Features of new clips, made by the nets and descriptors of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from mvemo.cache import FeatureSpec, in_half_precision
from mvemo.extract.descriptors import DescriptorSettings, descriptor_spec
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import AudioInput, Net, SequenceInput
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import pick_device, place
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.views import ViewSettings
from mvemo.fuse.descriptor_statistics import sequence_statistics, statistics_of
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.numeric import F64
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.model_nets import NET_PREFIX, load_net, plan_of
from mvemo.pipeline.prediction.streams import (
    Descriptors,
    FeatureStream,
    PicturePieces,
    Sequences,
    SoundPieces,
    StreamPlan,
    WholePictures,
    WholeSound,
)
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.settings_files import load_settings


@dataclass
class FeatureMaker:
    """Maker of a model's features for new clips."""

    model: FinalModel
    folder: Path  # folder of the model
    # Files of pretrained weights by net; other nets use fetched ones.
    weights: Mapping[str, Path]
    device: str = "auto"  # ``auto``, ``cpu`` or ``cuda``
    # Reasons why requested features cannot be made here, as missing weights, by feature.
    unavailable: dict[str, str] = field(default_factory=dict, init=False)
    _nets: dict[str, Net] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        settings = load_settings("paper")
        stage_one = self.model.facts.get("provenance", {}).get("stage_one", {})
        stated = stage_one.get("settings", {}).get("descriptors", {})
        # The digests below reveal settings of another version.
        known = {f.name: stated[f.name] for f in fields(DescriptorSettings) if f.name in stated}
        descriptors = DescriptorSettings(**known)
        self.settings: Settings = replace(settings, descriptors=descriptors)
        for spec in self.model.specs:
            for name, digest in spec.params.get("descriptors", {}).items():
                current = descriptor_spec(name, descriptors)
                # The precision of stored frames hardly changes their statistics.
                if digest not in (current.digest, in_half_precision(current).digest):
                    raise BadOption(
                        f"{self.folder}: its descriptor {name!r} was made by another version or "
                        "with settings that it does not state: make the model again"
                    )

    def predictors(self, modalities: Sequence[str]) -> list[Predictor]:
        """Return the best available predictor for each set of modalities of a clip.

        The nets of these predictors are loaded. Features that cannot be made are added to
        `unavailable`. Raises `BadOption` if no predictor is left, and for wrong weights that the
        user named.
        """
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

    def _load(self, feature: str) -> bool:
        """Load the nets of a feature; return False if it cannot be made here."""
        try:
            for spec in self.model.variants(feature):
                if _is_net(spec):
                    self._net(spec)
        except (BadOption, BadWeights) as error:
            if feature in self.weights:
                raise
            self.unavailable[feature] = str(error)
            return False
        return True

    def plans(self, features: Sequence[str]) -> list[NetSettings]:
        """Return the nets of these features, one for each: the nets of all folds read the same."""
        specs = [self.model.variants(name)[0] for name in features]
        return [plan_of(spec) for spec in specs if _is_net(spec)]

    def descriptors(self, features: Sequence[str]) -> list[str]:
        """Return the descriptors of these features."""
        specs = [self.model.variants(name)[0] for name in features]
        return [name for spec in specs if not _is_net(spec) for name in spec.params["order"]]

    def has(self, feature: str, media: ClipMedia) -> list[int]:
        """Return the rows of the clips that have the input of a feature."""
        spec = self.model.variants(feature)[0]
        usable = media.usable(plan_of(spec)) if _is_net(spec) else media.described
        return [int(row) for row in np.flatnonzero(usable)]

    def embed(self, spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]) -> dict[int, F64]:
        """Return float64 (dim,) for each row with finite values; `rows` are some of `has`."""
        if not rows:
            return {}
        of_spec = self._vectors if _is_net(spec) else _statistics
        vectors = of_spec(spec, media, rows)
        return {row: vector for row, vector in vectors.items() if np.isfinite(vector).all()}

    def streams(
        self, modalities: Sequence[str], plan: StreamPlan
    ) -> dict[FeatureKey, FeatureStream]:
        """Return the streams that make the features of one clip, by feature and net."""
        names = dict.fromkeys(n for p in self.predictors(modalities) for n in p.features)
        streams: dict[FeatureKey, FeatureStream] = {}
        for name in names:
            for spec in self.model.variants(name):
                if _is_net(spec):
                    net = optimized(self._net(spec))
                    view = plan_of(spec).view
                    stream = net_stream(net, view, plan, self.settings.descriptors)
                else:
                    stream = Descriptors(spec.params["order"], self.settings.descriptors)
                streams[name, spec.fold] = stream
        return streams

    def _net(self, spec: FeatureSpec) -> Net:
        if spec.digest not in self._nets:
            net = load_net(spec, len(self.model.classes), self.folder, self.weights)
            self._nets[spec.digest] = place(net, pick_device(self.device)).eval()
        return self._nets[spec.digest]

    def _vectors(self, spec: FeatureSpec, media: ClipMedia, rows: Sequence[int]) -> dict[int, F64]:
        vectors: dict[int, F64] = {}
        net = self._net(spec)
        batches = embed_rows(
            net,
            media.batches(net, plan_of(spec).view),
            rows,
            batch_size=self.settings.extract.embed_batch,
            device=pick_device(self.device),
            precision=spec.params["precision"],
        )
        with Progress(spec.name, len(rows)) as bar:
            for batch, values in batches:
                vectors.update(zip(batch, values.astype(np.float64), strict=True))
                bar.step(len(batch))
        return vectors


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


def _is_net(spec: FeatureSpec) -> bool:
    return spec.extractor.startswith(NET_PREFIX)


def net_stream(
    net: Net, view: ViewSettings, plan: StreamPlan, settings: DescriptorSettings
) -> FeatureStream:
    """Return the stream of a net: by pieces if the net has pieces, otherwise by windows."""
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
