"""Preparation of an evaluation: models, folds, leak guard and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import TEST, Cache
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.leakage import find_leaks, refuse_leaks
from mvemo.fuse.matrices.scaling import MIN_CLIPS, groups_within
from mvemo.fuse.models import AUDIO, SECOND_LAYERS, VIDEO, Model, chosen_models, in_order
from mvemo.manifests import Folds, make_folds
from mvemo.manifests.labels import Task

DEFAULT_FOLDS = 6
# Pairs of the fold whose nets made the features (or None) and the folds tested with them.
Passes = tuple[tuple[int | None, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Preparation:
    """Models and folds of one evaluation, past the leak guard."""

    features: Features
    models: tuple[Model, ...]  # in the order of reports
    nets: tuple[Model, ...]  # outputs of nets themselves, which need no head
    names: tuple[str, ...]  # features that `models` use
    # int64 (clips,): the fold that tests each clip. With one split, 0 for its test clips and -1
    # for all others, which heads are trained on.
    folds: NDArray[np.int64]
    k: int
    leaky: bool  # True if a net saw clips that it scores, and that was allowed
    # Passes over the features: features that all folds share are read once.
    passes: Passes


def prepare(cache: Cache, settings: EvaluationSettings) -> Preparation:
    """Choose models and folds; raise `LeakError` if a net saw the clips that it would score."""
    table = cache.table
    features = Features(cache, settings.features)
    chosen = settings.models
    if chosen is not None:
        chosen = tuple(name for name in chosen if name not in SECOND_LAYERS)
        chosen = tuple(name for name in chosen if name not in features.outputs) or chosen
    # By default, features that hardly any clip has are left out.
    few = features.rare if chosen is None and len(features.rare) < len(features.modality) else {}
    models = chosen_models(
        {name: kind for name, kind in features.modality.items() if name not in few}, chosen
    )
    nets = _net_models(features, settings.models)
    used = [name for model in (*models, *nets) for name in model.features]
    names = tuple(dict.fromkeys(used))
    crossfit = [name for name in names if features.crossfit(name)]
    held_out = [name for name in names if features.held_out(name)]
    tested = _test_split(cache, settings, crossfit, held_out)
    folds, k = _folds(cache, settings, crossfit) if tested is None else (tested, 1)
    leaks = find_leaks(features, names, table, folds)
    if not settings.allow_leak:
        refuse_leaks(leaks, folds, str(cache.path))
    passes = passes_over(k, crossfit=bool(crossfit))
    of_heads = tuple(name for name in names if name not in features.outputs)
    return Preparation(features, models, nets, of_heads, folds, k, bool(leaks), passes)


def _net_models(features: Features, names: Sequence[str] | None) -> tuple[Model, ...]:
    """Return the models of the nets' own outputs: all by default, or those that are named."""
    return tuple(
        Model(name, (name,), (features.outputs[name],), by_net=True)
        for name in in_order(features.outputs, [f"{net}-outputs" for net in (*AUDIO, *VIDEO)])
        if names is None or name in names
    )


def passes_over(k: int, *, crossfit: bool) -> Passes:
    """Return `Preparation.passes` for `k` folds."""
    folds = tuple(range(k))
    return tuple((fold, (fold,)) for fold in folds) if crossfit else ((None, folds),)


def permute(labels: NDArray[Any], seed: int | None) -> NDArray[Any]:
    """Shuffle labels over the clips, in whole rows, so that a clip's tags stay together."""
    return np.random.default_rng([0 if seed is None else seed, 1]).permutation(labels)


def provenance_of(
    cache: Cache, prepared: Preparation, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return the origin of the scores as JSON values."""
    within = {}
    if settings.within_groups:
        groups = cache.table.groups
        rows = groups_within(np.ones(len(groups), np.bool_), groups)
        members = {groups[i] for i in np.flatnonzero(rows).tolist()}
        within = {
            "within_groups": {
                "clips": int(rows.sum()),
                "groups": len(members),
                "of_clips": len(groups),
                "of_groups": len(set(groups)),
                "min_clips": MIN_CLIPS,
            }
        }
    return {
        **within,
        "prediction_notes": [
            f"{name} is left out: {n} of {len(cache.table)} clips have it."
            for name, n in prepared.features.rare.items()
            if name not in prepared.names
        ],
        "features_digest": cache.digest(),
        "manifest_digest": cache.table.digest,
        "settings": settings.record(),
        "features": {
            name: [
                {
                    "modality": spec.modality,
                    "digest": spec.digest,
                    "extractor": f"{spec.extractor} v{spec.version}",
                    "protocol": spec.protocol,
                    "fold": spec.fold,
                    "dim": spec.dim,
                    "width": spec.params.get("width"),
                    "weights": spec.weights,
                    "trained_on": len(spec.trained_on),
                }
                for spec in prepared.features.variants(name)
            ]
            for name in (*prepared.names, *(model.name for model in prepared.nets))
        },
    }


def _test_split(
    cache: Cache, settings: EvaluationSettings, crossfit: Sequence[str], held_out: Sequence[str]
) -> NDArray[np.int64] | None:
    """Return 0 for one split's test clips and -1 for others, int64; None if there are folds.

    Heads are trained on the training and the validation clips: the validation clips decide
    nothing about a head, which makes its choices on inner folds. Frozen features of clips with
    a split are also scored on it, unless folds are asked for.
    """
    table = cache.table
    if held_out and (settings.folds is not None or table.splits is None):
        advice = "leave --folds out" if table.splits is not None else "extract them again"
        raise BadFeatures(
            f"{cache.path}: the nets of {', '.join(held_out)} were trained for one split of the "
            f"clips (holdout), not for folds: {advice}"
        )
    if held_out and crossfit:
        raise BadFeatures(
            f"{cache.path}: the nets of {', '.join(held_out)} were trained for one split "
            f"(holdout), those of {', '.join(crossfit)} for folds: choose --models of one kind"
        )
    if table.splits is None or settings.folds is not None or crossfit:
        return None
    return np.where(table.splits == TEST, 0, -1).astype(np.int64)


def _folds(
    cache: Cache, settings: EvaluationSettings, crossfit: Sequence[str]
) -> tuple[NDArray[np.int64], int]:
    """Return the folds to test in, and their number."""
    table, seed = cache.table, settings.seed
    if isinstance(settings.folds, Folds):
        return _given_folds(cache, settings.folds, crossfit), settings.folds.k
    k = settings.folds or table.k or DEFAULT_FOLDS
    if crossfit:
        if k != table.k:
            raise BadFeatures(
                f"{cache.path}: the nets of {', '.join(crossfit)} were trained for {table.k} "
                f"folds, not {k}: give --folds {table.k}, or extract with --folds {k}"
            )
        return table.folds, k
    # Prescribed folds have seed -1: an explicit seed does not change them.
    if k == table.k and (seed is None or table.fold_seed in (-1, seed)):
        return table.folds, k
    task = cast(Task, table.task)
    return make_folds(table.labels, table.groups, k, seed or 0, task), k


def _given_folds(cache: Cache, folds: Folds, crossfit: Sequence[str]) -> NDArray[np.int64]:
    """Return the folds of a file; raise if nets were trained for other folds."""
    if folds.clip_ids != cache.table.clip_ids:
        raise BadFeatures(
            f"{cache.path}: the folds are not in the order of its clips: read them with "
            "read_folds(file, cache.table)"
        )
    if crossfit and not np.array_equal(folds.assignment, cache.table.folds):
        raise BadFeatures(
            f"{cache.path}: the nets of {', '.join(crossfit)} were trained for other folds than "
            "those of the file: leave --folds out, or extract with --folds FILE"
        )
    return folds.assignment
