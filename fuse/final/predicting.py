"""Outputs, decisions and distances of new clips, computed by a model's heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.late import late_part
from mvemo.fuse.links import decision_inputs
from mvemo.fuse.matrices.scaling import Scaling, standardise_within
from mvemo.fuse.metrics.averages import complete, mean_finite
from mvemo.fuse.metrics.calibration import apply_temperature
from mvemo.fuse.models import LATE, SECOND_LAYERS
from mvemo.fuse.tasks import task_of

Vectors = Mapping[FeatureKey, F64]


def predict_clips(model: FinalModel, predictor: Predictor, vectors: Vectors) -> F64:
    """Return calibrated probabilities of classes or tags, or values, float64 (clips, outputs).

    `vectors` maps each feature and net of the predictor to float (clips, dim). If each fold has a
    net, the outputs are the mean over nets.
    """
    layer = second_layer(model, predictor)
    if layer is None:
        outputs = _concatenated(model, predictor.features, vectors)
    else:
        features = {m.name: m.features for m in model.heads.models}
        bases = [_concatenated(model, features[base], vectors) for base in layer.features]
        x = [decision_inputs(values, layer.link) for values in bases]
        outputs = layer.predict(np.concatenate(x, axis=1))
    if task_of(model.task).fits_temperature:
        return apply_temperature(outputs, predictor.temperature)
    return outputs


def second_layer(model: FinalModel, predictor: Predictor) -> Head | None:
    """Return a predictor's head over other heads' outputs; None if it reads features."""
    if predictor.bases:
        (product,) = model.heads.select(LATE)
        return late_part(product, predictor.bases)
    if predictor.name in SECOND_LAYERS:
        (head,) = model.heads.select(predictor.name)
        return head
    return None


def standardise_folders(model: FinalModel, vectors: Vectors, groups: Sequence[str]) -> Vectors:
    """Standardise vectors within groups, if the model's heads read them so.

    Vectors are float (clips, dim), NaN rows where missing. `groups` names the group of each clip,
    such as its singer or artist.
    """
    if not model.within_groups:
        return vectors
    scaled = {}
    for key, values in vectors.items():
        present = complete(values)
        others = Scaling(model.reference[key].mean, model.reference[key].scale)
        x = np.where(present[:, None], values, 0.0).astype(np.float32)
        within, _ = standardise_within(x, present, groups, others)
        scaled[key] = np.where(present[:, None], within, np.nan)
    return scaled


def distances(model: FinalModel, predictor: Predictor, vectors: Vectors) -> dict[str, F64]:
    """Return each feature's distance from the training clips over its threshold, (clips,).

    A clip with a value above 1 is unlike the clips that the model was made of.
    """
    ratios = {}
    for name in predictor.features:
        of_nets = [
            model.reference[name, spec.fold].distance(vectors[name, spec.fold])
            / model.reference[name, spec.fold].threshold
            for spec in model.variants(name)
        ]
        ratios[name] = mean_finite(np.stack(of_nets), axis=0)
    return ratios


def tag_thresholds(model: FinalModel, predictor: Predictor) -> F64:
    """Return the smallest probability of a decision, float64 (tags,); 0.5 if none was fitted."""
    layer = second_layer(model, predictor)
    heads = model.heads.select_features(predictor.features) if layer is None else (layer,)
    fitted = [head.thresholds for head in heads if head.thresholds is not None]
    if not fitted:
        return np.full(len(model.classes), 0.5)
    return np.asarray(np.mean(fitted, axis=0), dtype=np.float64)


def _concatenated(model: FinalModel, features: tuple[str, ...], vectors: Vectors) -> F64:
    """Return the mean outputs over the nets, by the heads that concatenate these features."""
    heads = model.heads.select_features(features)
    if not heads:
        raise BadFeatures(f"the model has no head of {', '.join(features)}")
    outputs = []
    for head in heads:
        keys = [(name, head.net_fold) for name in features]
        x = [vectors[key] if key in vectors else vectors[key[0], None] for key in keys]
        outputs.append(head.predict(np.concatenate(x, axis=1, dtype=np.float64)))
    return np.asarray(np.mean(outputs, axis=0), dtype=np.float64)
