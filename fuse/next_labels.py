"""Clips to label next: uncertain under a model of the labelled clips, and unlike each other.

The most uncertain clips are often near copies of each other; each choice therefore also counts the
distance to the labelled clips and to those chosen before (greedy k-centre: Sener and Savarese
2018, "Active learning for convolutional neural networks: a core-set approach").
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from mvemo.cache import TEST, TRAIN
from mvemo.fuse.crossval.evaluation import evaluate_once
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import models_of
from mvemo.fuse.scaling import fit_scaling
from mvemo.fuse.stores import FeatureStore, MemoryStore, joined, selected
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64

FIELDS = ("clip_id", "path", "label", "uncertainty")


@dataclass(frozen=True)
class NextLabel:
    """Clip to label: id, path or group, predicted label, uncertainty in 0..1."""

    clip_id: str
    path: str
    label: str
    uncertainty: float


def next_labels(
    labelled: FeatureStore, unlabelled: FeatureStore, n: int | None = None
) -> list[NextLabel]:
    """Rank unlabelled clips, such as those of a catalogue, by the use of labelling them.

    Features that both have, by name and size, are compared. `n` is the number of clips.
    """
    known, new = _common(labelled, unlabelled)
    names, link, table = np.array(known.table.classes), task_of(known.table.task).link, new.table
    uncertainty, predicted = np.ones(len(table)), [""] * len(table)
    if link != "identity":
        p = np.clip(_outputs(known, new), 1e-12, 1 - 1e-12)
        if link == "softmax":
            predicted = names[p.argmax(axis=1)].tolist()
            uncertainty = -np.sum(p * np.log(p), axis=1) / np.log(len(names))
        else:
            predicted = [";".join(names[row > 0.5]) for row in p]
            uncertainty = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(axis=1)
    return [
        NextLabel(table.clip_ids[i], table.groups[i], predicted[i], float(uncertainty[i]))
        for i in _k_centre(*_standardised(known, new), uncertainty, n)
    ]


def _common(labelled: FeatureStore, unlabelled: FeatureStore) -> tuple[MemoryStore, MemoryStore]:
    """Return the clips of both that have all features that both have."""
    stores = labelled, unlabelled
    forms = [{(s.name, s.kind, s.fold, s.modality, s.dim) for s in of.specs} for of in stores]
    both = {
        name for name, kind, fold, *_ in forms[0] & forms[1] if (kind, fold) == ("vector", None)
    }
    if not both:
        first, second = (
            f"{of.path} ({', '.join(spec.name for spec in of.specs) or 'no features'})"
            for of in stores
        )
        raise BadFeatures(f"{first} and {second} share no feature: embed both with the same nets")
    parts = []
    for of in stores:
        specs = [spec for spec in of.specs if spec.name in both]
        rows = np.logical_and.reduce([of.present(spec.name) for spec in specs])
        if not rows.any():
            listing = ", ".join(sorted(both))
            raise BadFeatures(f"{of.path}: no clip has all of the features {listing}")
        parts.append(selected(of, specs, np.flatnonzero(rows)))
    return parts[0], parts[1]


def _outputs(known: MemoryStore, new: MemoryStore) -> F64:
    """Return the outputs for new clips of a head over all features of the labelled clips."""
    table, n = known.table, len(new.table)
    (*_, model) = models_of({spec.name: spec.modality for spec in known.specs})
    settings = EvaluationSettings(
        models=(model.name,), choose_model=False, temperature=False, missing_modality=False
    )
    # The labels of tested clips are not read, so any will do.
    unknown = np.zeros((n, *table.labels.shape[1:]), table.labels.dtype)
    facts = {"task": table.task, "classes": table.classes, "labels": unknown}
    parts = [known, selected(new, new.specs, np.arange(n), **facts)]
    (result,) = evaluate_once(joined(parts, (TRAIN, TEST)), settings).models
    return result.outputs[len(table) :]


def _standardised(known: MemoryStore, new: MemoryStore) -> tuple[F64, F64]:
    """Return all features of the labelled and of the new clips, float64 (clips, dim)."""
    x, z = (np.hstack([of.vectors(spec.name)[0] for spec in of.specs]) for of in (known, new))
    scaling, _ = fit_scaling(x, np.ones(len(x), np.bool_))
    return scaling.apply(x).astype(np.float64), scaling.apply(z).astype(np.float64)


def _k_centre(x: F64, z: F64, weight: F64, n: int | None) -> list[int]:
    """Choose rows of `z` one by one, by weight times distance to `x` and to earlier choices."""
    nearest = pairwise_distances_argmin_min(z, x)[1]
    chosen = list[int]()
    for _ in range(len(z) if n is None else min(n, len(z))):
        score = weight * nearest
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return chosen
