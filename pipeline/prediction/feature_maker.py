"""Features that a model reads, computed for new clips by its nets and descriptors.

PyTorch is imported only when a net is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from mvemo.cache import FeatureSpec
from mvemo.extract.errors import BadWeights
from mvemo.extract.media.request import in_words
from mvemo.extract.nets.parts.encoder_names import of_encoder
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests.errors import BadOption
from mvemo.pipeline import model_nets, settings_files
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
        self._descriptors = model_nets.descriptors_of(self.model, folder)

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
            for spec in filter(model_nets.is_net, self.specs(names)):
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
            (s.name, s.fold): windows.feature_of(
                s, self.net(s) if model_nets.is_net(s) else None, plan
            )
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
