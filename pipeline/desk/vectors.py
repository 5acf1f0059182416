"""Vectors of clips, one per clip or one per window, by the nets of a model or by chosen nets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.training.protocols import frozen_net
from mvemo.fuse.crossval.saving import SavedHeads
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.prediction.embedding import BatchReader
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import (
    EmbeddedClip,
    NewClip,
    PredictSettings,
    clip_seconds,
    clips_and_settings,
    find_clips,
    modalities_of,
)
from mvemo.pipeline.prediction.request import MODALITIES, PredictRequest
from mvemo.pipeline.prediction.windows import Span, WindowPlan
from mvemo.pipeline.settings_files import Override, load_settings
from mvemo.pipeline.starting_weights import fetch_missing_weights, refuse_missing_weights

# A clip, a time range of its file in seconds, its vector, float32 (dim,), or why there is none.
ClipVector = tuple[NewClip, Span, F32 | None, str]


class ChosenNets(FeatureMaker):
    """Features of pretrained nets, without a model that reads them.

    BadOption is raised for an unknown net, and for one without weights.
    """

    def __init__(self, names: str, settings: PredictSettings) -> None:
        listed = [name.strip() for name in names.split(",")]
        overrides = [
            Override(f"extract.nets={json.dumps(listed)}", f"--nets {names}"),
            Override(f"extract.device={settings.device}", f"--device {settings.device}"),
        ]
        for net, file in settings.weights.items():
            given = f"--weights {net}={file}"
            overrides.append(Override(f"nets.{net}.weights='''{file}'''", given))
        stage_one = load_settings("pretrained", overrides)
        run = stage_one.extract.run
        plans = [with_fetched_weights(stage_one.nets[name], run) for name in listed]
        refuse_missing_weights(plans, stage_one)
        plans, left_out = fetch_missing_weights(plans, stage_one)
        if left_out:
            raise BadOption(f"--nets {names}: {left_out[0]}")
        trained = [frozen_net(plan, 0, run) for plan in plans]
        specs = tuple(net.spec for net in trained)
        modalities = tuple(sorted({spec.modality for spec in specs}))
        predictor = Predictor(names, tuple(s.name for s in specs), modalities, {})
        heads = SavedHeads((), (), (), {})
        self.model: FinalModel = FinalModel(names, "multilabel", heads, specs, (predictor,), {})
        self.folder: Path = Path(names)
        self.options = settings
        self.unavailable: dict[str, str] = {}
        self._descriptors = stage_one.descriptors
        self._nets = {t.spec.digest: optimized(t.net, run.precision) for t in trained}


def clips_and_maker(
    request: PredictRequest, nets: str | None
) -> tuple[list[NewClip], FeatureMaker | None]:
    """Return the clips, and the features of a model or of nets; None if no clip can be read."""
    if nets is None:
        clips, folder, settings = clips_and_settings(request)
        return clips, None if all(c.problem for c in clips) else FeatureMaker(folder, settings)
    clips, modality = find_clips(request.inputs, request.columns), request.modality
    read = modalities_of(clips) if modality == "both" else MODALITIES[modality]
    settings = PredictSettings(read, request.weights, request.device)
    return clips, None if all(c.problem for c in clips) else ChosenNets(nets, settings)


def joined_features(maker: FeatureMaker) -> dict[FeatureKey, int]:
    """Return the features that make up a vector, in order, with their sizes.

    These are the features of the model's best predictor for the settings' modalities.
    """
    maker.features()
    best = maker.model.best(maker.options.modalities, maker.unavailable)
    assert best is not None  # `features` raised an error otherwise
    return {(name, s.fold): s.dim for name in best.features for s in maker.model.variants(name)}


def joined_vector(keys: Sequence[FeatureKey], clip: EmbeddedClip) -> tuple[F32 | None, str]:
    """Return the joined vector of a clip, float32 (dim,), or None and the reason."""
    if all(key in clip.vectors for key in keys):
        return np.concatenate([clip.vectors[key] for key in keys], dtype=np.float32), ""
    reasons = [f"{modality}: {reason}" for modality, reason in clip.reasons.items() if reason]
    return None, clip.problem or "; ".join(reasons) or "the clip lacks what the nets read"


def embed_clips(maker: FeatureMaker, clips: Sequence[NewClip]) -> Iterator[ClipVector]:
    """Yield one vector per clip, of the windows that `mvemo predict` reads."""
    keys = [*joined_features(maker)]
    for batch in BatchReader(maker).read(dict(enumerate(clips))):
        for _, found in batch:
            vector, problem = joined_vector(keys, found)
            span = found.clip.start, found.clip.start + found.windows.length
            yield found.clip, span, vector, problem


def embed_windows(
    maker: FeatureMaker, clips: Sequence[NewClip], hop: float, window: float
) -> Iterator[ClipVector]:
    """Yield the vectors of windows of `window` seconds that begin every `hop` seconds.

    A clip is decoded once, and what windows share is embedded once.
    """
    keys = [*joined_features(maker)]
    for clip in clips:
        try:
            seconds = clip_seconds(clip)
            starts = np.arange(0.0, max(seconds - window / 2, hop / 2), hop).tolist()
            spans = tuple((start, min(start + window, seconds)) for start in starts)
            plan = WindowPlan(seconds, spans, view_step=hop, piece_step=hop)
            with maker.open(clip, plan, lambda share: None) as read:
                present, problem = {*keys} & {*read.features}, "no window has all features"
                for start, end in spans:
                    vectors = read.vectors((start, end), keys=present)
                    if len(vectors) == len(keys):
                        problem = ""
                        joined = np.concatenate([vectors[key] for key in keys], dtype=np.float32)
                        yield clip, (clip.start + start, clip.start + end), joined, ""
                if problem:
                    listed = [f"{modality}: {why}" for modality, why in read.problems.items()]
                    yield clip, (0.0, 0.0), None, "; ".join(listed) or problem
        except MvemoError as error:
            yield clip, (0.0, 0.0), None, str(error).removeprefix(f"{clip.path}: ")
