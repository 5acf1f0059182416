"""Vectors of clips, one per clip or one per window, by the nets of a model or by chosen nets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

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
)
from mvemo.pipeline.prediction.windows import Span, WindowPlan
from mvemo.pipeline.settings_files import Override, load_settings
from mvemo.pipeline.starting_weights import fetch_missing_weights, refuse_missing_weights

# A clip, the spans of its vectors in seconds of the file, the vectors, float32 (dim,), and the
# reason why there are none.
ClipVectors = tuple[NewClip, Sequence[Span], Sequence[F32], str]


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
        self.model = FinalModel(names, "multilabel", heads, specs, (predictor,), {})
        self.folder, self.options, self.unavailable = Path(names), settings, {}
        self._descriptors = stage_one.descriptors
        self._nets = {each.spec.digest: each.net for each in trained}


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


def embed_clips(maker: FeatureMaker, clips: Sequence[NewClip]) -> Iterator[ClipVectors]:
    """Yield one vector per clip, of the windows that `mvemo predict` reads."""
    keys = [*joined_features(maker)]
    for batch in BatchReader(maker).read(dict(enumerate(clips))):
        for _, found in batch:
            vector, problem = joined_vector(keys, found)
            span = found.clip.start, found.clip.start + found.windows.length
            yield (found.clip, *(([], []) if vector is None else ([span], [vector])), problem)


def embed_windows(
    maker: FeatureMaker, clips: Sequence[NewClip], hop: float, window: float
) -> Iterator[ClipVectors]:
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
                present = {*keys} & {*read.features}
                found = [(span, read.vectors(span, keys=present)) for span in spans]
                reasons = [f"{modality}: {reason}" for modality, reason in read.problems.items()]
            found = [(span, vectors) for span, vectors in found if len(vectors) == len(keys)]
            joined = [np.concatenate([x[k] for k in keys], dtype=np.float32) for _, x in found]
            shifted = [(clip.start + start, clip.start + end) for (start, end), _ in found]
            problem = "" if found else "; ".join(reasons) or "no window has all features"
            yield clip, shifted, joined, problem
        except MvemoError as error:
            yield clip, [], [], str(error).removeprefix(f"{clip.path}: ")
