"""Products of some of the single features, for clips that lack the others.

The product of all single features (`mvemo.fuse.heads.late`) works with any subset of them. The
subsets that clips without pictures, or machines without a net's weights, are left with are
scored here out of fold, like all models.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mvemo.fuse.clips import Clips
from mvemo.fuse.heads.late import late_bases, late_inner
from mvemo.fuse.models import LATE, Model, modalities_of
from mvemo.fuse.results import ModelResult, Results, score_model

# Largest number of features whose subsets are all taken; of more features, only those of one
# modality and those that leave out one feature.
MOST_BASES = 5


def part_products(results: Results) -> list[ModelResult]:
    """Score the products of two or more single features, but not of all.

    A clip is predicted by weights that were fitted on other folds' clips.
    """
    models = {
        m.name: m for m in results.models if len(m.features) == 1 and not m.by_net and m.valid.any()
    }
    bases = late_bases([Model(m.name, m.features, m.modalities) for m in models.values()])
    clips = Clips(results.task, results.y_true, results.groups, results.folds, len(results.classes))
    products = []
    for part in _parts(bases):
        outputs = np.stack([models[base.name].outputs for base in part])
        fused = late_inner(clips, outputs, results.folds)
        # The product stands for clips that have all of these features.
        fused[~np.isfinite(outputs).all(axis=(0, 2))] = np.nan
        names = tuple(base.name for base in part)
        model = Model(f"{LATE}:{'+'.join(names)}", names, modalities_of(part))
        if np.isfinite(fused).any():
            scored = score_model(
                results.task, model, fused, results.y_true, results.folds, results.k
            )
            products.append(scored)
    return products


def _parts(bases: tuple[Model, ...]) -> list[tuple[Model, ...]]:
    """Return subsets of the bases, in their order, largest first."""
    if len(bases) <= MOST_BASES:
        sizes = range(len(bases) - 1, 1, -1)
        return [part for size in sizes for part in combinations(bases, size)]
    parts = dict.fromkeys(combinations(bases, len(bases) - 1))
    for modality in modalities_of(bases):
        part = tuple(base for base in bases if base.modalities == (modality,))
        if 1 < len(part) < len(bases):
            parts[part] = None
    return list(parts)
