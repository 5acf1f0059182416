"""A model for new clips: heads fitted on all clips, and what is known of how far they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.saving import SavedHeads, saved_heads
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.metrics.calibration import fit_temperature, log_probabilities
from mvemo.fuse.models import SECOND_LAYERS, parts_of
from mvemo.fuse.results import ModelResult, Results

# A clip is unlike the training clips that lies farther from their mean than this share of them.
TYPICAL_SHARE = 0.99
# Of training residuals, between the ends of the interval of a predicted value.
INTERVAL_SHARE = 0.9

# A feature's name, and the fold whose net made it; None where all folds share one.
FeatureKey = tuple[str, int | None]


@dataclass(frozen=True)
class Predictor:
    """One of a model's ways to predict a clip: by some of its features.

    Parameters
    ----------
    name
        Of the evaluated model, or that with a modality missing.
    features
        Cached features that it needs.
    modalities
        Of ``audio`` and ``video``, those it needs.
    expected
        JSON values: ``metric``, its mean over folds of the cross-validation (``mean``, None
        where it was not evaluated), its 95 % ``interval`` and all ``scores``.
    temperature
        Of its probabilities, fitted on out-of-fold predictions; 1 where none was fitted.
    residuals
        Values alone: (low, high) of each target, quantiles of out-of-fold residuals between
        which `INTERVAL_SHARE` of them lie; empty where there are none.
    """

    name: str
    features: tuple[str, ...]
    modalities: tuple[str, ...]
    expected: Mapping[str, Any]
    temperature: float = 1.0
    residuals: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Reference:
    """Where the training clips lie in one feature.

    Parameters
    ----------
    mean, scale
        float64 (dim,): of the training clips.
    threshold
        `TYPICAL_SHARE` of the training clips have a `distance` of at most this; infinite
        where they are all equal.
    """

    mean: F64
    scale: F64
    threshold: float

    def distance(self, x: NDArray[np.floating]) -> F64:
        """Root mean square of standardised coordinates, float64 (clips,), of (clips, dim)."""
        z = (x - self.mean) / self.scale
        return np.asarray(np.sqrt(np.mean(z * z, axis=1)), dtype=np.float64)


@dataclass(frozen=True)
class FinalModel:
    """All that a prediction of new clips needs, but for the nets themselves.

    Parameters
    ----------
    name
        Of the data set.
    task
        ``multiclass``, ``multilabel`` or ``regression``.
    heads
        Those fitted on all clips.
    specs
        What made each feature, as in the cache, without the clips it was trained on.
    predictors
        Best first, by the mean of the primary metric over folds.
    reference
        By feature and net.
    scale
        Values alone: target to ``minimum``, ``maximum``, ``mean`` and ``deviation`` of its
        labels.
    facts
        JSON values: number of clips and groups, protocol, digests, settings, what stage one
        stated, remarks (``notes``).

    See Also
    --------
    mvemo.fuse.final.files.load_model : read one.
    """

    name: str
    task: str
    heads: SavedHeads
    specs: tuple[FeatureSpec, ...]
    predictors: tuple[Predictor, ...]
    reference: Mapping[FeatureKey, Reference]
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self.heads.classes

    def best(self, modalities: tuple[str, ...]) -> Predictor | None:
        """The best predictor that needs no more than these modalities; None for none."""
        fits = (p for p in self.predictors if set(p.modalities) <= set(modalities))
        return next(fits, None)

    def variants(self, feature: str) -> tuple[FeatureSpec, ...]:
        """Specs of a feature: one, or one for each fold's net."""
        return tuple(spec for spec in self.specs if spec.name == feature)


def build_model(cache: Cache, results: Results, lld: tuple[str, ...] = ()) -> FinalModel:
    """A model of an evaluation whose heads were also fitted on all clips.

    Parameters
    ----------
    cache
        Open; the one that was evaluated.
    results
        Of `mvemo.fuse.evaluate` with ``refit=True``, of clips and not of whole songs.
    lld
        As in the settings of the evaluation.

    Raises
    ------
    BadFeatures
        Nothing can predict a new clip: labels were shuffled, or all models need imported
        features, which nothing here could make.
    """
    if results.permuted:
        raise BadFeatures("labels were shuffled: a model of them would predict nothing")
    heads = tuple(head for head in results.heads if head.fold is None)
    if not heads:
        raise BadFeatures(f"{cache.path}: no head could be fitted on all clips")
    features = Features(cache, lld)
    named = dict.fromkeys(name for model in results.models for name in model.features)
    specs = tuple(replace(s, trained_on=()) for name in named for s in features.variants(name))
    imported = {spec.name for spec in specs if spec.protocol == "imported"}
    predictors = tuple(
        p for p in _predictors(results, features.modality) if not imported & set(p.features)
    )
    if not predictors:
        raise BadFeatures(
            f"{cache.path}: every model needs imported features ({', '.join(sorted(imported))}), "
            "which 'mvemo predict' cannot make of new clips"
        )
    used = {name for predictor in predictors for name in predictor.features}
    specs = tuple(spec for spec in specs if spec.name in used)
    return FinalModel(
        name=results.name,
        task=results.task.name,
        heads=saved_heads(replace(results, heads=heads)),
        specs=specs,
        predictors=predictors,
        reference={(s.name, s.fold): _reference(features, s) for s in specs},
        scale=_scale(results),
        facts=_facts(cache, results, sorted(imported)),
    )


def _predictors(results: Results, modality: Mapping[str, str]) -> list[Predictor]:
    """All evaluated models, best first; then what remains of fusions with a modality missing.

    The latter only where no evaluated model needs as little.
    """

    def rank(model: ModelResult) -> float:
        mean = results.primary_mean(model)
        return mean if np.isfinite(mean) else -np.inf

    ranked = sorted((m for m in results.models if m.valid.any()), key=rank, reverse=True)
    predictors = [_predictor(results, model) for model in ranked]
    saved = saved_heads(results)
    covered = {predictor.modalities for predictor in predictors}
    names = [model.name for model in ranked if model.name not in SECOND_LAYERS]
    fusions = [model for model in saved.models if model.name in names]
    for parts in parts_of(fusions, modality).values():
        for part in parts.values():
            if part.modalities not in covered and saved.select_features(part.features):
                expected = {"metric": results.task.primary_metric, "mean": None}
                predictors.append(Predictor(part.name, part.features, part.modalities, expected))
    return predictors


def _predictor(results: Results, model: ModelResult) -> Predictor:
    task, valid = results.task, model.valid
    temperature = 1.0
    if task.fits_temperature:
        temperature = fit_temperature(
            log_probabilities(model.outputs[valid]), results.y_true[valid]
        )
    residuals: tuple[tuple[float, float], ...] = ()
    if task.name == "regression":
        tail = (1 - INTERVAL_SHARE) / 2
        errors = results.y_true[valid] - model.outputs[valid]
        ends = np.quantile(errors, [tail, 1 - tail], axis=0)
        residuals = tuple((float(low), float(high)) for low, high in ends.T)
    interval = model.intervals.get("primary")
    expected = {
        "metric": task.primary_metric,
        "mean": _finite(results.primary_mean(model)),
        "interval": None if interval is None else [_finite(end) for end in interval],
        "scores": {name: _finite(value) for name, value in model.scores.items()},
    }
    return Predictor(model.name, model.features, model.modalities, expected, temperature, residuals)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _reference(features: Features, spec: FeatureSpec) -> Reference:
    matrix = features.matrix(spec.name, spec.fold)
    reference = Reference(matrix.shift, matrix.spread, 0.0)
    # The matrix is standardised already.
    z = matrix.values[matrix.present].astype(np.float64)
    distances = np.sqrt(np.mean(z * z, axis=1))
    n = len(distances)
    threshold = float(np.quantile(distances, TYPICAL_SHARE, method="higher")) if n else 0.0
    # Of one clip, or of equal ones, nothing is known of how far others may lie.
    return replace(reference, threshold=threshold or np.inf)


def _scale(results: Results) -> dict[str, dict[str, float]]:
    if results.task.name != "regression":
        return {}
    return {
        name: {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "deviation": float(values.std()),
        }
        for name, values in zip(results.classes, results.y_true.T, strict=True)
    }


def _facts(cache: Cache, results: Results, imported: list[str]) -> dict[str, Any]:
    notes = []
    if results.leaky:
        notes.append("scores are of clips that a net was trained on: they are optimistic")
    if results.synthetic:
        notes.append("made of generated data: of no use for real music")
    if imported:
        notes.append(f"models of imported features are left out: {', '.join(imported)}")
    return {
        "n_clips": len(results.clip_ids),
        "n_groups": len(set(results.groups)),
        "folds": results.k,
        "protocol": results.protocol,
        "features_digest": cache.digest(),
        "manifest_digest": cache.table.digest,
        "notes": notes,
        "provenance": dict(results.provenance),
    }
