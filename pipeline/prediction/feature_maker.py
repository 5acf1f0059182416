"""Features that a model reads, computed for new clips by its nets and descriptors.

PyTorch is imported only when a net is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.cache import FeatureSpec, in_half_precision
from mvemo.extract.descriptors import DescriptorSettings, descriptor_spec
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.encoder_names import of_encoder
from mvemo.fuse.features import sequence_statistics, statistics_of
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests.array_types import F32, F64
from mvemo.manifests.errors import BadOption
from mvemo.pipeline import model_nets, settings_files
from mvemo.pipeline.models.boxed import in_words
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings

if TYPE_CHECKING:
    from mvemo.extract.nets import Net
    from mvemo.pipeline.prediction.windows import ClipWindows, Progress, WindowPlan
    from mvemo.pipeline.settings import Settings


class FeatureMaker:
    """Features of a model folder, computed for new clips by its nets and descriptors."""

    def __init__(self, folder: Path, settings: PredictSettings) -> None:
        self.folder = folder
        self.options = settings
        self.model = load_model(folder, settings.coverage)
        # Features that cannot be computed here, with the reason, such as missing weights.
        self.unavailable: dict[str, str] = {}
        self._nets: dict[str, Net] = {}
        stage_one = self.model.facts.get("provenance", {}).get("stage_one", {})
        stated = stage_one.get("settings", {}).get("descriptors", {})
        # If the version of the model had other settings, the digests below differ.
        known = {f.name: stated[f.name] for f in fields(DescriptorSettings) if f.name in stated}
        self._descriptors = descriptors = DescriptorSettings(**known)
        for spec in self.model.specs:
            level = spec.params.get("level")
            if is_net(spec) and spec.modality == "audio" and level != descriptors.level:
                raise BadOption(
                    f"{self.folder}: its net {spec.name} read sound that was not brought to "
                    f"{descriptors.level:g} LUFS (an earlier version): train the model again"
                )
            for name, digest in spec.params.get("descriptors", {}).items():
                current = descriptor_spec(name, descriptors)
                # Frames may be stored in half precision, which hardly changes their statistics.
                if digest not in (current.digest, in_half_precision(current).digest):
                    raise BadOption(
                        f"{self.folder}: its descriptor {name!r} was computed by another version "
                        "or with unknown settings: train the model again"
                    )

    @cached_property
    def settings(self) -> Settings:
        """Settings of reading clips."""
        return replace(settings_files.load_settings("paper"), descriptors=self._descriptors)

    def wanted(self) -> tuple[str, ...]:
        """Return the features of the best predictor for each set of modalities; load no net."""
        modalities = self.options.modalities
        sets = [*((modality,) for modality in modalities), modalities]
        best = [self.model.best(s, self.unavailable) for s in sets]
        return tuple(dict.fromkeys(name for p in best if p is not None for name in p.features))

    def specs(self, names: Iterable[str]) -> list[FeatureSpec]:
        """Return the specs of features, one for each net of a fold."""
        return [spec for name in names for spec in self.model.variants(name)]

    def features(self) -> tuple[str, ...]:
        """Load the best predictor for each set of modalities; return the features they read.

        Raise `BadOption` if there are none.
        """
        missing = True
        # If a feature cannot be computed, the best of the other predictors are used.
        while missing:
            names, missing = self.wanted(), False
            for spec in filter(is_net, self.specs(names)):
                try:
                    self.net(spec)
                except (BadOption, BadWeights) as error:
                    if of_encoder(self.options.weights, spec.name):
                        raise
                    self.unavailable.setdefault(spec.name, str(error))
                    missing = True
        if not names and self.unavailable:
            raise BadOption(next(iter(self.unavailable.values())))
        if not names:
            needed = dict.fromkeys(m for p in self.model.predictors for m in p.modalities)
            raise BadOption(
                f"{self.folder}: the model cannot predict from {in_words(self.options.modalities)} "
                f"only: it needs {in_words(needed)}"
            )
        return names

    def open(
        self, clip: NewClip, plan: WindowPlan, progress: Progress
    ) -> AbstractContextManager[ClipWindows]:
        """Read a clip, to compute the features of its windows within a context."""
        from mvemo.pipeline.prediction import windows

        features = {
            (s.name, s.fold): windows.feature_of(s, self.net(s) if is_net(s) else None, plan)
            for s in self.specs(self.features())
        }
        modalities = self.options.modalities
        return windows.read_windows(clip, plan, features, self._descriptors, modalities, progress)

    def net(self, spec: FeatureSpec) -> Net:
        """Return the net of a feature, loaded once and optimised for embedding."""
        if spec.digest not in self._nets:
            from mvemo.extract.nets.parts.fast_conv import optimized
            from mvemo.extract.training import devices

            device = devices.pick_device(self.options.device)
            # Most tensors are small: waking a second thread takes longer than copying a tensor.
            with threadpool_limits(1, "openmp"):
                net = model_nets.load_net(
                    spec, len(self.model.classes), self.folder, self.options.weights
                )
                net = devices.place(net, device).eval()
            precision = devices.resolve_precision(spec.params["precision"], device)
            self._nets[spec.digest] = optimized(net, precision)
        return self._nets[spec.digest]


def statistics_vector(spec: FeatureSpec, sequences: Sequence[F32]) -> F64:
    """Return the statistics of descriptors, float64 (dim,)."""
    statistics = statistics_of(spec)
    of_each = [sequence_statistics(sequence, statistics) for sequence in sequences]
    return np.concatenate(of_each).astype(np.float64)


def is_net(spec: FeatureSpec) -> bool:
    """Return True for a net's embedding, False for statistics of descriptors."""
    return spec.extractor.startswith(model_nets.NET_PREFIX)
