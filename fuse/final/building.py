"""Building of a final model from an evaluation whose heads were refitted on all clips.

The product of all single features works with any subset of them. Clips without pictures, or
machines without a net's weights, have only a subset; such subsets are scored here out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from mvemo.fuse import models, numeric, stores
from mvemo.fuse.crossval import saving, second_layers
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import PLAIN, Clips, Features, FeatureSettings
from mvemo.fuse.final.expected_scores import finite_or_none, predictor_of
from mvemo.fuse.final.model import FinalModel, Predictor, short_keys, stored_as
from mvemo.fuse.final.reference import fit_references
from mvemo.fuse.results import ModelResult, Results, score_model

# With more features than this, not all subsets are scored, but only the features of each modality
# and all features except one.
MOST_BASES = 5


def build_model(
    store: stores.FeatureStore,
    results: Results,
    settings: FeatureSettings = PLAIN,
    preferred: str | None = None,
    degraded: stores.FeatureStore | None = None,
) -> FinalModel:
    """Build a model from an evaluation with ``refit=True``.

    `preferred` names its first model. `degraded` has features of changed copies of the clips, named
    CLIP@DEGRADATION, on which the alarms shall not sound.
    """
    if results.permuted:
        raise BadFeatures("the labels are shuffled: to build a model, leave out --permute-labels")
    heads = tuple(head for head in results.heads if head.fold is None)
    if not heads:
        raise BadFeatures(f"{store.path}: no head could be fitted on all clips")
    saved = saving.saved_heads(replace(results, heads=heads))
    features = Features(store, settings)
    variants = [spec for name in features.modality for spec in features.variants[name]]
    imported = {spec.name for spec in variants if spec.protocol == "imported"}
    ranked = _ranked_predictors(results, saved, features.modality)
    ranked.sort(key=lambda p: p.name != preferred)
    predictors: list[Predictor] = []
    for predictor in ranked:
        needs = set(predictor.features)
        # A predictor is left out if a better one needs only some of its features. A kernel head
        # never replaces a linear head, because only linear heads learn from corrections.
        is_linear = predictor.name not in models.WITH_KERNEL
        others = [p for p in predictors if not (is_linear and p.name in models.WITH_KERNEL)]
        if not imported & needs and not any(needs.issuperset(p.features) for p in others):
            predictors.append(predictor)
    if not predictors:
        raise BadFeatures(
            f"{store.path}: every model needs imported features ({', '.join(sorted(imported))}), "
            "which 'mvemo predict' cannot compute for new clips"
        )
    used = dict.fromkeys(name for predictor in predictors for name in predictor.features)
    specs = tuple(replace(s, trained_on=()) for name in used for s in variants if s.name == name)
    # The nets of all folds read the same clips, so the keys of one fold are enough.
    stored = {stored_as(s)[0]: s.fold for s in specs}
    keys = [store.keys(name, fold) for name, fold in stored.items()]
    copies = None if degraded is None else Features(degraded, settings)
    reference, alarm = fit_references(features, specs, predictors, copies)
    return FinalModel(
        name=results.name,
        task=results.task.name,
        heads=_needed(saved, predictors),
        specs=specs,
        predictors=tuple(predictors),
        reference=reference,
        scale=results.task.label_scale(results.classes, results.y_true),
        facts={**_facts(store, results, sorted(imported)), "alarm": alarm},
        training_keys=short_keys(np.concatenate(keys).tolist()),
    )


def _ranked_predictors(
    results: Results, saved: saving.SavedHeads, modality: Mapping[str, str]
) -> list[Predictor]:
    """Return evaluated models and products, highest score first, then the fallbacks of fusions."""
    layers = {head.model for head in saved.heads if models.is_named(head.model)}
    evaluated = [
        m
        for m in results.models
        if m.valid.any()
        and (m.name in layers if models.is_named(m.name) else saved.select_features(m.features))
    ]
    predictors = [predictor_of(results, model) for model in evaluated]
    if models.LATE in layers:
        predictors += [predictor_of(results, m, m.features) for m in part_products(results)]
    # Among predictors with equal scores, the one that reads the most features comes first.
    predictors.sort(
        key=lambda p: (
            -np.inf if p.expected["mean"] is None else p.expected["mean"],
            len(p.features),
        ),
        reverse=True,
    )
    covered = {predictor.modalities for predictor in predictors}
    names = {m.name for m in evaluated if not models.is_named(m.name)}
    fusions = [model for model in saved.models if model.name in names]
    for parts in models.parts_of(fusions, modality).values():
        for part in parts.values():
            if part.modalities not in covered and saved.select_features(part.features):
                expected = {"metric": results.task.primary_metric, "mean": None}
                predictors.append(Predictor(part.name, part.features, part.modalities, expected))
    return predictors


def _needed(saved: saving.SavedHeads, predictors: Sequence[Predictor]) -> saving.SavedHeads:
    """Return the heads that the predictors use, in the precision of the model's file."""
    features_of = {model.name: model.features for model in saved.models}
    layers = {*filter(models.is_named, (models.LATE if p.bases else p.name for p in predictors))}
    needed = {p.features for p in predictors if not p.bases}
    for name in models.SECOND_LAYERS:
        if name in layers:
            bases = {base for head in saved.select(name) for base in head.features}
            layers |= bases.intersection(models.NAMED)
            needed |= {features_of[base] for base in bases.difference(models.NAMED)}
    heads = []
    for head in saved.heads:
        if head.model in layers or (not models.is_named(head.model) and head.features in needed):
            heads.append(saving.in_small_types(head))
    return replace(saved, heads=tuple(heads))


def _facts(store: stores.FeatureStore, results: Results, imported: list[str]) -> dict[str, Any]:
    notes = {
        "scores are optimistic: a net was trained on the scored clips": results.leaky,
        "trained on generated data: do not use it for real music": results.synthetic,
        f"its labels were predicted by {results.predicted_by}, not given by people": (
            results.predicted_by
        ),
        f"models that need imported features are left out: {', '.join(imported)}": imported,
    }
    nested, task = None, results.task
    choice = results.choice
    if choice is not None:
        # Scores to expect, including the cost of choosing a model.
        scored = choice.nested
        key, of = task.primary_interval
        nested = {
            "model": choice.model,
            "metric": task.primary_metric,
            "mean": finite_or_none(results.primary_mean(scored)),
            "interval": scored.intervals.get(key),
            "interval_of": of,
        }
    return {
        "nested": nested,
        "within_groups": results.provenance.get("within_groups"),
        "scale": results.provenance.get("settings", {}).get("scale") or store.table.scale,
        "n_clips": len(results.clip_ids),
        "n_groups": len(set(results.groups)),
        "folds": results.k,
        "protocol": results.protocol,
        "features_digest": store.digest(),
        "manifest_digest": store.table.digest,
        "notes": [note for note, applies in notes.items() if applies],
        "provenance": dict(results.provenance),
    }


def part_products(results: Results) -> list[ModelResult]:
    """Score products of two or more, but not all, single features on out-of-fold outputs."""
    singles = {
        m.name: m
        for m in results.models
        if len(m.features) == 1 and not m.by_net and not models.is_named(m.name) and m.valid.any()
    }
    bases = second_layers.Product.bases_of(
        [models.Model(m.name, m.features, m.modalities) for m in singles.values()]
    )
    clips = Clips(results.task, results.y_true, results.groups, results.folds, len(results.classes))
    products = []
    for part in _parts(bases):
        outputs = np.stack([singles[base.name].outputs for base in part])
        fused = second_layers.late_inner(clips, outputs, results.folds)
        # The product is used for clips that have all of these features.
        fused[~numeric.complete(outputs).all(axis=0)] = np.nan
        names = tuple(base.name for base in part)
        model = models.Model(f"{models.LATE}:{'+'.join(names)}", names, models.modalities_of(part))
        if np.isfinite(fused).any():
            of = results.y_true, results.folds, results.k
            products.append(score_model(results.task, model, fused, *of))
    return products


def _parts(bases: tuple[models.Model, ...]) -> list[tuple[models.Model, ...]]:
    """Return subsets of the bases, in their order, largest first."""
    if len(bases) <= MOST_BASES:
        sizes = range(len(bases) - 1, 1, -1)
        return [part for size in sizes for part in combinations(bases, size)]
    parts = dict.fromkeys(combinations(bases, len(bases) - 1))
    for modality in models.modalities_of(bases):
        part = tuple(base for base in bases if base.modalities == (modality,))
        if 1 < len(part) < len(bases):
            parts[part] = None
    return list(parts)
