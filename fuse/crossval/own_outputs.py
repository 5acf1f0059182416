"""Scores of the nets' own last layers, next to those of heads on their embeddings.

The tables of J22 and L17, and PL20's Table 2, are of nets as they were trained, not of heads
fitted anew. A clip's outputs are those of the net that never saw its fold, and the leak guard
applies as for heads. Nothing is fitted here.
"""

from __future__ import annotations

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.links import apply_link
from mvemo.fuse.models import Model
from mvemo.fuse.results import ModelResult, score_model


def score_nets(prepared: Preparation, clips: Clips) -> tuple[ModelResult, ...]:
    """Score every net that predicts by itself.

    Tags are decided at a probability of 0.5: thresholds fitted on clips that the net was trained
    on would suit only those clips.
    """
    return tuple(_score_net(prepared, clips, model) for model in prepared.nets)


def _score_net(prepared: Preparation, clips: Clips, model: Model) -> ModelResult:
    outputs = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    for fold in range(prepared.k):
        rows = clips.folds == fold
        outputs[rows] = _outputs_of(prepared, model, fold, clips)[rows]
    return score_model(clips.task, model, outputs, clips.y_true, clips.folds, prepared.k)


def _outputs_of(prepared: Preparation, model: Model, fold: int, clips: Clips) -> F64:
    """Return outputs, float64 (clips, outputs), of a fold's net; NaN rows where missing."""
    values, present = prepared.features.own_outputs(model.name, fold)
    if values.shape[1] != clips.n_outputs:
        raise BadFeatures(
            f"{model.name}: {values.shape[1]} outputs of a net, but {clips.n_outputs} classes, "
            "tags or targets: run 'mvemo extract' again"
        )
    outputs = np.full(values.shape, np.nan)
    outputs[present] = apply_link(values[present].astype(np.float64), clips.task.link)
    return outputs
