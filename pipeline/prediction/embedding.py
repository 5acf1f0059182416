"""Features of new clips, made by the nets and descriptors of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from mvemo.cache.spec import FeatureSpec, in_half_precision
from mvemo.extract.descriptors import DescriptorSettings, descriptor_spec
from mvemo.extract.errors import BadWeights
from mvemo.extract.media.request import IN_WORDS
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.training import devices
from mvemo.fuse.final import model
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.model_nets import NET_PREFIX, load_net, plan_of
from mvemo.pipeline.prediction import new_clips, passes, streams
from mvemo.pipeline.settings_files import load_settings


@dataclass(frozen=True)
class PredictSettings:
    """Settings of predictions."""

    modalities: tuple[str, ...] = ("audio", "video")  # read from files that have them
    # Files of pretrained weights by net; other nets use fetched ones.
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"


class FeatureMaker:
    """Maker of the features of a model folder for new clips."""

    def __init__(self, folder: Path, settings: PredictSettings) -> None:
        self.folder, self.options = folder, settings
        self.model: model.FinalModel = model.load_model(folder)
        # Reasons why requested features cannot be made here, as missing weights, by feature.
        self.unavailable: dict[str, str] = {}
        self._nets: dict[str, Net] = {}
        stage_one = self.model.facts.get("provenance", {}).get("stage_one", {})
        stated = stage_one.get("settings", {}).get("descriptors", {})
        # The digests below reveal settings of another version.
        known = {f.name: stated[f.name] for f in fields(DescriptorSettings) if f.name in stated}
        descriptors = DescriptorSettings(**known)
        self.settings = replace(load_settings("paper"), descriptors=descriptors)
        for spec in self.model.specs:
            for name, digest in spec.params.get("descriptors", {}).items():
                current = descriptor_spec(name, descriptors)
                # The precision of stored frames hardly changes their statistics.
                if digest not in (current.digest, in_half_precision(current).digest):
                    raise BadOption(
                        f"{self.folder}: its descriptor {name!r} was made by another version or "
                        "with settings that it does not state: make the model again"
                    )

    def predictors(self, modalities: Sequence[str]) -> list[model.Predictor]:
        """Load the best predictor for each set of modalities; BadOption if none is left."""
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
        """Return the features of the predictors for the settings' modalities; raise if none."""
        found = self.predictors(self.options.modalities)
        if not found:
            wanted = " and ".join(IN_WORDS[m] for m in self.options.modalities)
            needed = dict.fromkeys(IN_WORDS[m] for p in self.model.predictors for m in p.modalities)
            raise BadOption(
                f"{self.folder}: cannot predict from {wanted} alone: it needs "
                f"{' and '.join(needed)}"
            )
        return tuple(dict.fromkeys(name for predictor in found for name in predictor.features))

    def _load(self, feature: str) -> bool:
        """Load the nets of a feature; return False if it cannot be made here."""
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
        self, clip: new_clips.NewClip, modalities: tuple[str, ...], plan: streams.StreamPlan
    ) -> passes.ClipPass:
        """Return a pass over a clip with the features of its windows."""
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

    def net(self, spec: FeatureSpec) -> Net:
        """Return the net of a feature, loaded once."""
        if spec.digest not in self._nets:
            n_outputs, weights = len(self.model.classes), self.options.weights
            net = load_net(spec, n_outputs, self.folder, weights)
            self._nets[spec.digest] = devices.place(
                net, devices.pick_device(self.options.device)
            ).eval()
        return self._nets[spec.digest]


def is_net(spec: FeatureSpec) -> bool:
    """Return True for the embedding of a net, False for statistics of descriptors."""
    return spec.extractor.startswith(NET_PREFIX)
