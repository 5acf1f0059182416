"""Clips to label next: uncertain under a model of the labelled clips, and unlike each other.

Uncertain clips alone are often near copies of each other; each choice therefore also counts the
distance to the labelled clips and to those chosen before (greedy k-centre: Sener and Savarese
2018, "Active learning for convolutional neural networks: a core-set approach").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_argmin_min

from mvemo.cache import Cache
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import complete
from mvemo.fuse.scaling import fit_scaling
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64

# Inverse strength of the penalty, as the heads' default.
STRENGTH = 0.01
FIELDS = ("clip_id", "path", "label", "uncertainty")


@dataclass(frozen=True)
class NextLabel:
    """Clip to label: id, path or group, predicted label, uncertainty in 0..1."""

    clip_id: str
    path: str
    label: str
    uncertainty: float


def next_labels(labelled: Cache, unlabelled: Cache, n: int | None = None) -> list[NextLabel]:
    """Rank clips of another feature file, such as a catalogue, by the use of labelling them.

    Parameters
    ----------
    labelled
        Features with labels.
    unlabelled
        Features of other clips; those that both files have, by name and size, are compared.
    n
        Number of clips; None for all.

    Raises
    ------
    BadFeatures
        The files share no feature, or no clip has all shared features.
    """
    names = [name for name in labelled.names() if _form(labelled, name) == _form(unlabelled, name)]
    names = [name for name in names if _form(labelled, name)]
    if not names:
        raise BadFeatures(
            f"{labelled.path} ({', '.join(labelled.names()) or 'no features'}) and "
            f"{unlabelled.path} ({', '.join(unlabelled.names()) or 'no features'}) share no "
            "feature: embed both with the same nets"
        )
    known, new = (np.hstack([c.vectors(f)[0] for f in names]) for c in (labelled, unlabelled))
    seen = complete(known.astype(np.float64))
    rows = np.flatnonzero(complete(new.astype(np.float64)))
    if not len(rows) or not seen.any():
        path = unlabelled.path if seen.any() else labelled.path
        raise BadFeatures(f"{path}: no clip has all of the features {', '.join(names)}")
    scaling, _ = fit_scaling(known[seen], np.ones(int(seen.sum()), np.bool_))
    x, z = (scaling.apply(each).astype(np.float64) for each in (known[seen], new[rows]))
    uncertainty, predicted = _uncertainty(labelled, x, seen, z)
    chosen = _k_centre(x, z, uncertainty, len(rows) if n is None else min(n, len(rows)))
    table = unlabelled.table
    return [
        NextLabel(
            table.clip_ids[rows[i]], table.groups[rows[i]], predicted[i], float(uncertainty[i])
        )
        for i in chosen
    ]


def _form(cache: Cache, name: str) -> tuple[Any, ...]:
    """Return what must match of a feature; () if it is a sequence, or of several nets."""
    found = [spec for spec in cache.specs if spec.name == name]
    if len(found) != 1 or found[0].kind != "vector":
        return ()
    return found[0].modality, found[0].dim


def _uncertainty(cache: Cache, x: F64, seen: Any, z: F64) -> tuple[F64, list[str]]:
    """Return the entropy of the predictions in 0..1, and the predicted labels; 1 for ratings."""
    table, link = cache.table, task_of(cache.table.task).link
    labels = np.asarray(table.labels)[seen]
    if link == "identity":
        return np.ones(len(z)), [""] * len(z)
    if link == "softmax":
        proba = _proba(x, labels, z)
        predicted = [table.classes[c] for c in np.unique(labels)[proba.argmax(axis=1)]]
        if proba.shape[1] == 1:
            return np.ones(len(z)), predicted
        bits = -np.sum(proba * np.log(np.maximum(proba, 1e-12)), axis=1)
        return bits / np.log(proba.shape[1]), predicted
    tags = [
        _proba(x, y, z)[:, 1] if 0 < y.sum() < len(y) else np.full(len(z), y.mean())
        for y in labels.T
    ]
    p = np.clip(np.column_stack(tags), 1e-12, 1 - 1e-12)
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(axis=1)
    names = np.array(table.classes)
    return bits, [";".join(names[row > 0.5]) for row in p]


def _proba(x: F64, y: Any, z: F64) -> F64:
    if len(np.unique(y)) == 1:
        return np.ones((len(z), 1))
    return LogisticRegression(C=STRENGTH, max_iter=500).fit(x, y).predict_proba(z)


def _k_centre(x: F64, z: F64, weight: F64, n: int) -> list[int]:
    """Choose rows of `z` one by one, by weight times distance to `x` and to earlier choices."""
    nearest = pairwise_distances_argmin_min(z, x)[1]
    chosen = list[int]()
    for _ in range(n):
        score = weight * nearest
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return chosen
