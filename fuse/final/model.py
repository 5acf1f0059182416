"""A model for new clips: heads fitted on all clips, and what is known of how far they go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.saving import SavedHeads, saved_heads
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import PLAIN, Features, FeatureSettings
from mvemo.fuse.final.products import part_products
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.calibration import fit_temperature, log_probabilities
from mvemo.fuse.models import LATE, SECOND_LAYERS, parts_of
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.rows import rows_of
from mvemo.fuse.scaling import fit_scaling
from mvemo.manifests.text_table import listed

# A clip is unlike the training clips that lies farther from their mean than this share of them.
TYPICAL_SHARE = 0.99
# Of training residuals, between the ends of the interval of a predicted value.
INTERVAL_SHARE = 0.9

# What a head's arrays are written in: a few hundred kB for some thousand numbers a clip.
HEAD_DTYPES: dict[str, type[np.floating]] = {
    "coef": np.float16,
    "mean": np.float32,
    "scale": np.float32,
}

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
        Those it needs.
    expected
        JSON values: ``metric``, its mean over folds of the cross-validation (``mean``, None
        where it was not evaluated), its 95 % ``interval``, all ``scores`` and those of each
        output (``per_output``).
    temperature
        Of its probabilities, fitted on out-of-fold predictions; 1 where none was fitted.
    residuals
        Values alone: (low, high) of each target, quantiles of out-of-fold residuals between
        which `INTERVAL_SHARE` of them lie; empty where there are none.
    bases
        Of a product of some of the model's single features (`mvemo.fuse.final.products`):
        their names; else empty.
    """

    name: str
    features: tuple[str, ...]
    modalities: tuple[str, ...]
    expected: Mapping[str, Any]
    temperature: float = 1.0
    residuals: tuple[tuple[float, float], ...] = ()
    bases: tuple[str, ...] = ()


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
        Best first, by the mean of the primary metric over folds; each predicts clips that
        lack something that all before it need.
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

    def __repr__(self) -> str:
        """One line."""
        names = listed([predictor.name for predictor in self.predictors])
        return f"<FinalModel {self.name!r}, {self.task}: {listed(self.classes)}; by {names}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self.heads.classes

    @property
    def within_groups(self) -> bool:
        """Whether features are standardised within groups before heads read them."""
        return bool(self.facts.get("within_groups"))

    def best(self, modalities: tuple[str, ...], without: Collection[str] = ()) -> Predictor | None:
        """The best predictor that needs no more than these modalities; None for none.

        Parameters
        ----------
        modalities
            That a clip has.
        without
            Features that are not to be had.
        """
        for predictor in self.predictors:
            readable = set(predictor.modalities) <= set(modalities)
            if readable and not set(predictor.features) & set(without):
                return predictor
        return None

    def best_of(self, features: Collection[str]) -> Predictor | None:
        """The best predictor that needs no more than these features; None for none."""
        return next((p for p in self.predictors if set(p.features) <= set(features)), None)

    def variants(self, feature: str) -> tuple[FeatureSpec, ...]:
        """Specs of a feature: one, or one for each fold's net."""
        return tuple(spec for spec in self.specs if spec.name == feature)


def build_model(
    cache: Cache,
    results: Results,
    settings: FeatureSettings = PLAIN,
    preferred: str | None = None,
) -> FinalModel:
    """A model of an evaluation whose heads were also fitted on all clips.

    Parameters
    ----------
    cache
        Open; the one that was evaluated.
    results
        Of `mvemo.fuse.evaluate` with ``refit=True``, of clips and not of whole songs.
    settings
        As in the settings of the evaluation.
    preferred
        Name of the model that predicts where a clip has all that it needs; None for the one
        with the best mean score.

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
            "which 'mvemo predict' cannot make of new clips"
        )
    used = dict.fromkeys(name for predictor in predictors for name in predictor.features)
    specs = tuple(replace(s, trained_on=()) for name in used for s in features.variants(name))
    return FinalModel(
        name=results.name,
        task=results.task.name,
        heads=_needed(saved, predictors),
        specs=specs,
        predictors=predictors,
        reference={(s.name, s.fold): _reference(features, s) for s in specs},
        scale=results.task.label_scale(results.classes, results.y_true),
        facts=_facts(cache, results, sorted(imported)),
    )


def _predictors(
    results: Results, saved: SavedHeads, modality: Mapping[str, str]
) -> list[Predictor]:
    """All that can predict, best first: evaluated models, products of some of the features.

    Then what remains of fusions with a modality missing, where nothing evaluated needs as
    little.
    """
    evaluated = [m for m in results.models if m.valid.any()]
    evaluated = [m for m in evaluated if any(_is_of(h, m.name, m.features) for h in saved.heads)]
    predictors = [predictor_of(results, model) for model in evaluated]
    if any(head.model == LATE for head in saved.heads):
        predictors += [predictor_of(results, m, m.features) for m in part_products(results)]
    # Of equal scores that which reads most.
    predictors.sort(key=lambda p: (_rank(p), len(p.features)), reverse=True)
    covered = {predictor.modalities for predictor in predictors}
    names = [m.name for m in evaluated if m.name not in SECOND_LAYERS]
    fusions = [model for model in saved.models if model.name in names]
    for parts in parts_of(fusions, modality).values():
        for part in parts.values():
            if part.modalities not in covered and saved.select_features(part.features):
                expected = {"metric": results.task.primary_metric, "mean": None}
                predictors.append(Predictor(part.name, part.features, part.modalities, expected))
    return predictors


def _rank(predictor: Predictor) -> float:
    mean = predictor.expected["mean"]
    return -np.inf if mean is None else float(mean)


def _is_of(head: Head, name: str, features: tuple[str, ...]) -> bool:
    """Whether a head is a model's."""
    if name in SECOND_LAYERS:
        return head.model == name
    return head.model not in SECOND_LAYERS and head.features == features


def _reachable(predictors: Iterable[Predictor]) -> tuple[Predictor, ...]:
    """Those that some clip is predicted by: none before them needs as little."""
    reachable: list[Predictor] = []
    for predictor in predictors:
        if not any(set(better.features) <= set(predictor.features) for better in reachable):
            reachable.append(predictor)
    return tuple(reachable)


def _needed(saved: SavedHeads, predictors: Sequence[Predictor]) -> SavedHeads:
    """The heads that the predictors need, in the precision in which they are written."""
    features_of = {model.name: model.features for model in saved.models}
    names, needed = set(), {p.features for p in predictors if not p.bases}
    for predictor in predictors:
        layer = LATE if predictor.bases else predictor.name
        if layer not in SECOND_LAYERS:
            continue
        names.add(layer)
        for head in saved.select(layer):
            needed |= {features_of[base] for base in head.features}
    heads = tuple(
        _rounded(head)
        for head in saved.heads
        if head.model in names or (head.model not in SECOND_LAYERS and head.features in needed)
    )
    return replace(saved, heads=heads)


def _rounded(head: Head) -> Head:
    """What is left of a head's figures in a model's file (`HEAD_DTYPES`)."""
    arrays = {name: getattr(head, name) for name in HEAD_DTYPES}
    return replace(
        head,
        **{
            name: values.astype(HEAD_DTYPES[name]).astype(values.dtype)
            for name, values in arrays.items()
        },
    )


def predictor_of(results: Results, model: ModelResult, bases: tuple[str, ...] = ()) -> Predictor:
    """A predictor by an evaluated model: what it may promise, calibrated out of fold."""
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
    # As cached: groups of few clips are standardised by it, too.
    matrix = features.raw_matrix(spec.name, spec.fold)
    scaling, _ = fit_scaling(matrix.values, matrix.present)
    reference = Reference(scaling.shift, scaling.scale, 0.0)
    distances = np.concatenate(
        [
            reference.distance(block[matrix.present[rows]])
            for rows, block in rows_of(matrix.values).blocks()
        ]
    )
    n = len(distances)
    threshold = float(np.quantile(distances, TYPICAL_SHARE, method="higher")) if n else 0.0
    # Of one clip, or of equal ones, nothing is known of how far others may lie.
    return replace(reference, threshold=threshold or np.inf)


def _facts(cache: Cache, results: Results, imported: list[str]) -> dict[str, Any]:
    notes = []
    if results.leaky:
        notes.append("scores are of clips that a net was trained on: they are optimistic")
    if results.synthetic:
        notes.append("made of generated data: of no use for real music")
    if imported:
        notes.append(f"models of imported features are left out: {', '.join(imported)}")
    return {
        "nested": _nested(results),
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


def _nested(results: Results) -> dict[str, Any] | None:
    """What to expect of the choice of a model; None where none was made."""
    choice, task = results.choice, results.task
    if choice is None:
        return None
    key, of = task.primary_interval
    return {
        "model": choice.model,
        "metric": task.primary_metric,
        "mean": _finite(results.primary_mean(choice.nested)),
        "interval": choice.nested.intervals.get(key),
        "interval_of": of,
    }
