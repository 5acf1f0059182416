"""Preparation of an evaluation: models, folds, leak guard and provenance.

The leak guard refuses to score a clip with a net that was trained on it, or on its group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mvemo.cache import TEST, ClipTable
from mvemo.fuse import numeric, scaling
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures, LeakError
from mvemo.fuse.features import Clips, Features
from mvemo.fuse.models import (
    AUDIO,
    BEST_LAYER,
    NAMED,
    VIDEO,
    WEIGHTED,
    Model,
    chosen_models,
    in_order,
)
from mvemo.fuse.stores import FeatureStore
from mvemo.fuse.tasks import task_of
from mvemo.manifests import Folds, make_folds
from mvemo.manifests.array_types import Ints
from mvemo.manifests.labels import Task

DEFAULT_FOLDS = 6
# Pairs: the fold whose nets made the features (or None), and the folds tested with them.
Passes = tuple[tuple[int | None, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Preparation:
    """Models and folds of one evaluation, checked by the leak guard."""

    features: Features
    models: tuple[Model, ...]  # in the order of reports
    nets: tuple[Model, ...]  # nets whose own outputs are scored, without a head
    names: tuple[str, ...]  # features that `models` use
    used: tuple[str, ...]  # features that `models` and `nets` use
    # With one split, the fold is 0 for its test clips and -1 for all others.
    clips: Clips
    k: int  # number of folds
    leaky: bool  # True if a net scores clips that it saw, which was allowed
    # Passes over the features: features that all folds share are read once.
    passes: Passes


def prepare(
    store: FeatureStore, settings: EvaluationSettings, y_true: numeric.Labels | None = None
) -> Preparation:
    """Choose models and folds; raise `LeakError` if a net would score clips that it saw."""
    table = store.table
    features = Features(store, settings)
    chosen = settings.models
    if chosen is not None:
        # A model over the layers of a feature comes with the model of the feature.
        plain = [name.removesuffix(WEIGHTED).removesuffix(BEST_LAYER) for name in chosen]
        chosen = tuple(name for name in dict.fromkeys(plain) if name not in NAMED)
        chosen = tuple(name for name in chosen if name not in features.outputs) or chosen
    # By default, features that very few clips have are left out.
    few = features.rare if chosen is None and len(features.rare) < len(features.modality) else {}
    models = chosen_models(
        {name: kind for name, kind in features.modality.items() if name not in few}, chosen
    )
    outputs = in_order(features.outputs, [f"{net}-outputs" for net in (*AUDIO, *VIDEO)])
    nets = tuple(
        Model(name, (name,), (features.outputs[name],), by_net=True)
        for name in outputs
        if settings.models is None or name in settings.models
    )
    names = tuple(dict.fromkeys(name for model in (*models, *nets) for name in model.features))
    crossfit = [name for name in names if features.crossfit(name)]
    held_out = [
        name
        for name in names
        if any(spec.protocol == "holdout" for spec in features.variants[name])
    ]
    folds, k = _folds(store, settings, crossfit, held_out)
    leaks = _leaks(features, names, table, folds)
    if leaks and not settings.allow_leak:
        raise _leak_error(leaks, folds, store)
    passes: Passes = tuple((fold, (fold,)) for fold in range(k))
    if not crossfit:
        passes = ((None, tuple(range(k))),)
    of_heads = tuple(name for name in names if name not in features.outputs)
    clips = _clips(store, settings, folds, y_true)
    return Preparation(features, models, nets, of_heads, names, clips, k, bool(leaks), passes)


def _clips(
    store: FeatureStore, settings: EvaluationSettings, folds: Ints, y_true: numeric.Labels | None
) -> Clips:
    table, seed, task = store.table, settings.seed or 0, task_of(store.table.task)
    labels = task.read_labels(table.labels)
    task = task.for_labels(table.classes, labels, settings.scale or table.scale)
    y_true = labels if y_true is None else y_true
    return Clips(task, y_true, table.groups, folds, len(table.classes), seed)


def _leaks(
    features: Features, names: Sequence[str], table: ClipTable, folds: Ints
) -> list[tuple[str, int, int]]:
    """Return (feature, fold, number of the fold's clips that the net saw by clip or group)."""
    row = {clip: i for i, clip in enumerate(table.clip_ids)}
    group = numeric.codes_of(table.groups)
    leaks = []
    for name in names:
        for fold in np.unique(folds[folds >= 0]).tolist():
            seen = [row[c] for c in features.spec(name, fold).trained_on if c in row]
            count = int(np.isin(group[folds == fold], group[seen]).sum()) if seen else 0
            if count:
                leaks.append((name, fold, count))
    return leaks


def _leak_error(
    leaks: Sequence[tuple[str, int, int]], folds: Ints, store: FeatureStore
) -> LeakError:
    name, fold, count = leaks[0]
    tested = int((folds == fold).sum())
    split = bool((folds < 0).any())
    part, honest = ("the test split", "holdout") if split else (f"fold {fold}", "crossfit")
    more = f" (and {len(leaks) - 1} more such cases)" if len(leaks) > 1 else ""
    return LeakError(
        f"{store.path}: the net of {name} was trained on {count} of the {tested} clips of "
        f"{part}, or on clips of their groups{more}: its scores would be too high. Extract "
        f"with --protocol {honest}, or accept optimistic scores with --protocol shared"
    )


def provenance_of(prepared: Preparation, settings: EvaluationSettings) -> dict[str, Any]:
    """Return facts on how the scores were made, as JSON values."""
    within, store = {}, prepared.features.store
    if settings.within_groups:
        groups = store.table.groups
        rows = scaling.groups_within(np.ones(len(groups), bool), groups)
        members = {groups[i] for i in np.flatnonzero(rows).tolist()}
        within = {
            "within_groups": {
                "clips": int(rows.sum()),
                "groups": len(members),
                "of_clips": len(groups),
                "of_groups": len(set(groups)),
                "min_clips": scaling.MIN_CLIPS,
            }
        }
    return {
        **within,
        "prediction_notes": [
            f"{name} is left out: only {n} of {len(store.table)} clips have it."
            for name, n in prepared.features.rare.items()
            if name not in prepared.names
        ],
        "features_digest": store.digest(),
        "manifest_digest": store.table.digest,
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
                for spec in prepared.features.variants[name]
            ]
            for name in prepared.used
        },
    }


def _folds(
    store: FeatureStore,
    settings: EvaluationSettings,
    crossfit: Sequence[str],
    held_out: Sequence[str],
) -> tuple[Ints, int]:
    """Return the fold that tests each clip, int64 (clips,), and the number of folds."""
    table, folds, seed = store.table, settings.folds, settings.seed
    if held_out and (folds is not None or table.splits is None):
        advice = "leave out --folds" if table.splits is not None else "extract again"
        raise BadFeatures(
            f"{store.path}: the nets of {', '.join(held_out)} were trained for one split of the "
            f"clips (holdout), not for folds: {advice}"
        )
    if held_out and crossfit:
        raise BadFeatures(
            f"{store.path}: the nets of {', '.join(held_out)} were trained for one split "
            f"(holdout), those of {', '.join(crossfit)} for folds: name only one kind with --models"
        )
    if table.splits is not None and folds is None and not crossfit:
        return np.where(table.splits == TEST, 0, -1).astype(np.int64), 1
    if isinstance(folds, Folds):
        if folds.clip_ids != table.clip_ids:
            raise BadFeatures(
                f"{store.path}: the folds are not in the order of its clips: read them with "
                "read_folds(file, store.table)"
            )
        if crossfit and not np.array_equal(folds.assignment, table.folds):
            raise BadFeatures(
                f"{store.path}: the nets of {', '.join(crossfit)} were trained for other folds "
                "than those of the file: leave out --folds, or extract with --folds FILE"
            )
        return folds.assignment, folds.k
    k = folds or table.k or DEFAULT_FOLDS
    if crossfit and k != table.k:
        raise BadFeatures(
            f"{store.path}: the nets of {', '.join(crossfit)} were trained for {table.k} "
            f"folds, not {k}: give --folds {table.k}, or extract with --folds {k}"
        )
    # Prescribed folds have seed -1: an explicit seed does not change them.
    if crossfit or (k == table.k and (seed is None or table.fold_seed in (-1, seed))):
        return table.folds, k
    return make_folds(table.labels, table.groups, k, seed or 0, cast(Task, table.task)), k
