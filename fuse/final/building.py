"""Building of a final model from an evaluation whose heads were refitted on all clips.

The product of all single features works with any subset of them. Clips without pictures, or
machines without a net's weights, have only a subset; such subsets are scored here out of fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.crossval.saving import SavedHeads, saved_heads
from mvemo.fuse.crossval.second_layers import late_bases, late_inner
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import PLAIN, Clips, Features, FeatureSettings
from mvemo.fuse.final.model import (
    HEAD_DTYPES,
    INTERVAL_SHARE,
    FinalModel,
    Predictor,
    Reference,
    short_keys,
    stored_as,
)
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.metrics.calibration import fit_temperature, log_probabilities
from mvemo.fuse.models import LATE, SECOND_LAYERS, Model, modalities_of, parts_of
from mvemo.fuse.results import ModelResult, Results, score_model
from mvemo.fuse.scaling import fit_scaling, rows_of

# Up to this number of features all subsets are scored; otherwise those of a modality, and those
# without one feature.
MOST_BASES = 5


def build_model(
    cache: Cache,
    results: Results,
    settings: FeatureSettings = PLAIN,
    preferred: str | None = None,
) -> FinalModel:
    """Build a model from an evaluation with ``refit=True``; `preferred` names its first model."""
    if results.permuted:
        raise BadFeatures("the labels are shuffled: to build a model, leave out --permute-labels")
    heads = tuple(head for head in results.heads if head.fold is None)
    if not heads:
        raise BadFeatures(f"{cache.path}: no head could be fitted on all clips")
    saved = saved_heads(replace(results, heads=heads))
    features = Features(cache, settings)
    imported = {
        name
        for name in features.modality
        if any(spec.protocol == "imported" for spec in features.variants(name))
    }
    ranked = _predictors(results, saved, features.modality)
    ranked.sort(key=lambda p: p.name != preferred)
    predictors = _reachable(p for p in ranked if not imported & set(p.features))
    if not predictors:
        raise BadFeatures(
            f"{cache.path}: every model needs imported features ({', '.join(sorted(imported))}), "
            "which 'mvemo predict' cannot compute for new clips"
        )
    used = dict.fromkeys(name for predictor in predictors for name in predictor.features)
    specs = tuple(replace(s, trained_on=()) for name in used for s in features.variants(name))
    # The nets of all folds read the same clips, so the keys of one fold are enough.
    keys = [cache.keys(*stored) for stored in {stored_as(s)[0]: s.fold for s in specs}.items()]
    return FinalModel(
        name=results.name,
        task=results.task.name,
        heads=_needed(saved, predictors),
        specs=specs,
        predictors=predictors,
        reference={(s.name, s.fold): _reference(features, s) for s in specs},
        scale=results.task.label_scale(results.classes, results.y_true),
        facts=_facts(cache, results, sorted(imported)),
        training_keys=short_keys(np.concatenate(keys).tolist()),
    )


def _predictors(
    results: Results, saved: SavedHeads, modality: Mapping[str, str]
) -> list[Predictor]:
    """Return evaluated models and products, best first, then the fallbacks of fusions."""
    layers = {head.model for head in saved.heads}.intersection(SECOND_LAYERS)
    evaluated = [
        m
        for m in results.models
        if m.valid.any()
        and (m.name in layers if m.name in SECOND_LAYERS else saved.select_features(m.features))
    ]
    predictors = [predictor_of(results, model) for model in evaluated]
    if LATE in layers:
        predictors += [predictor_of(results, m, m.features) for m in part_products(results)]
    # If scores are equal, the predictor that reads the most features comes first.
    predictors.sort(
        key=lambda p: (
            -np.inf if p.expected["mean"] is None else p.expected["mean"],
            len(p.features),
        ),
        reverse=True,
    )
    covered = {predictor.modalities for predictor in predictors}
    names = [m.name for m in evaluated if m.name not in SECOND_LAYERS]
    fusions = [model for model in saved.models if model.name in names]
    for parts in parts_of(fusions, modality).values():
        for part in parts.values():
            if part.modalities not in covered and saved.select_features(part.features):
                expected = {"metric": results.task.primary_metric, "mean": None}
                predictors.append(Predictor(part.name, part.features, part.modalities, expected))
    return predictors


def _reachable(predictors: Iterable[Predictor]) -> tuple[Predictor, ...]:
    """Leave out a predictor if a better one needs no feature that it does not need."""
    reachable: list[Predictor] = []
    for predictor in predictors:
        if not any(set(better.features) <= set(predictor.features) for better in reachable):
            reachable.append(predictor)
    return tuple(reachable)


def _needed(saved: SavedHeads, predictors: Sequence[Predictor]) -> SavedHeads:
    """Return the heads that the predictors need, in the precision of the model's file."""
    features_of = {model.name: model.features for model in saved.models}
    names, needed = set(), {p.features for p in predictors if not p.bases}
    for predictor in predictors:
        layer = LATE if predictor.bases else predictor.name
        if layer not in SECOND_LAYERS:
            continue
        names.add(layer)
        for head in saved.select(layer):
            needed |= {features_of[base] for base in head.features}
    heads = []
    for head in saved.heads:
        if head.model in names or (head.model not in SECOND_LAYERS and head.features in needed):
            arrays = {name: (getattr(head, name), dtype) for name, dtype in HEAD_DTYPES.items()}
            rounded = {name: x.astype(dtype).astype(x.dtype) for name, (x, dtype) in arrays.items()}
            heads.append(replace(head, **rounded))
    return replace(saved, heads=tuple(heads))


def predictor_of(results: Results, model: ModelResult, bases: tuple[str, ...] = ()) -> Predictor:
    """Return the predictor of an evaluated model, with its expected scores and calibration."""
    task, valid = results.task, model.valid
    y_true, outputs = results.y_true[valid], model.outputs[valid]
    temperature = 1.0
    if task.fits_temperature:
        temperature = fit_temperature(log_probabilities(outputs), y_true)
    interval = model.intervals.get("primary")
    expected = {
        "metric": task.primary_metric,
        "mean": _finite(results.primary_mean(model)),
        "interval": None if interval is None else [_finite(end) for end in interval],
        "scores": {name: _finite(value) for name, value in model.scores.items()},
        "per_output": {
            output: {name: _finite(values[i]) for name, values in model.per_output.items()}
            for i, output in enumerate(results.classes)
        },
    }
    return Predictor(
        model.name,
        model.features,
        model.modalities,
        expected,
        temperature,
        task.residual_ends(y_true, outputs, INTERVAL_SHARE),
        bases,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _reference(features: Features, spec: FeatureSpec) -> Reference:
    # Cached values are used, because small groups are also standardised by this reference.
    matrix = features.raw_matrix(spec.name, spec.fold)
    scaling, far = fit_scaling(matrix.values, matrix.present)
    rows = matrix.present & ~far
    reference = Reference(scaling.shift, scaling.scale, np.inf, int(rows.sum()))
    if reference.compared < 2:
        return reference
    blocks = rows_of(matrix.values).blocks()
    distances = [reference.distance_from_others(block[rows[some]]) for some, block in blocks]
    largest = float(np.sort(np.concatenate(distances))[reference.rank - 1])
    # If all clips are equal, usual distances are unknown.
    return replace(reference, threshold=largest or np.inf)


def _facts(cache: Cache, results: Results, imported: list[str]) -> dict[str, Any]:
    notes = []
    if results.leaky:
        notes.append("scores are optimistic: a net was trained on the scored clips")
    if results.synthetic:
        notes.append("trained on generated data: do not use it for real music")
    if results.predicted_by:
        notes.append(f"its labels were predicted by {results.predicted_by}, not given by people")
    if imported:
        notes.append(f"models that need imported features are left out: {', '.join(imported)}")
    nested, task = None, results.task
    if results.choice is not None:
        # Scores to expect, including the cost of choosing a model.
        scored = results.choice.nested
        key, of = task.primary_interval
        nested = {
            "model": results.choice.model,
            "metric": task.primary_metric,
            "mean": _finite(results.primary_mean(scored)),
            "interval": scored.intervals.get(key),
            "interval_of": of,
        }
    return {
        "nested": nested,
        "within_groups": results.provenance.get("within_groups"),
        "n_clips": len(results.clip_ids),
        "n_groups": len(set(results.groups)),
        "folds": results.k,
        "protocol": results.protocol,
        "features_digest": cache.digest(),
        "manifest_digest": cache.table.digest,
        "notes": notes,
        "provenance": dict(results.provenance),
    }


def part_products(results: Results) -> list[ModelResult]:
    """Score out of fold the products of two or more, but not all, single features."""
    models = {
        m.name: m for m in results.models if len(m.features) == 1 and not m.by_net and m.valid.any()
    }
    bases = late_bases([Model(m.name, m.features, m.modalities) for m in models.values()])
    clips = Clips(results.task, results.y_true, results.groups, results.folds, len(results.classes))
    products = []
    for part in _parts(bases):
        outputs = np.stack([models[base.name].outputs for base in part])
        fused = late_inner(clips, outputs, results.folds)
        # The product is used for clips that have all of these features.
        fused[~complete(outputs).all(axis=0)] = np.nan
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
