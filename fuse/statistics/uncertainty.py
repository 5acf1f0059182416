"""How sure an evaluation's figures are: intervals, tests, repeats, learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.clips import Clips, partition
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.heads.fitting import Fit, fit_heads, fits_with_clips
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.metrics.multiclass import mean_held
from mvemo.fuse.models import STACKED, Model
from mvemo.fuse.outputs import OutputResult, OutputResults
from mvemo.fuse.preparation import views_of
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.statistics.intervals import difference, resampled_scores
from mvemo.fuse.statistics.learning_curve import learning_curve_masks
from mvemo.fuse.statistics.model_tests import compare_fusions
from mvemo.fuse.statistics.resamples import percentile_interval, resample_groups

R = TypeVar("R", bound=Results | OutputResults)
F64 = NDArray[np.float64]

FRACTIONS = (0.1, 0.2, 0.4, 0.7)


def with_uncertainty(results: R, *, n_resamples: int = 1000, seed: int = 0) -> R:
    """Add group-bootstrap intervals to every model, and tests of the fusions.

    Intervals are of the out-of-fold predictions; with repeats a resample's score is the mean
    over them. The test is Nadeau and Bengio's, corrected by Holm, on fold accuracies (the
    task's headline). Neither covers the choice of the best among many models.

    Parameters
    ----------
    results
        An evaluation, with its repeats in `repeats`.
    n_resamples
        Resamples of groups; 0 for no intervals.
    seed
        Of the resamples.
    """
    every: Sequence[Any] = results.repeats or (results,)
    compared = compare_fusions(every) if results.k > 1 else []
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compared))
    resamples = resample_groups(results.groups, n_resamples, seed)
    # One at a time: shuffled labels differ between repeats.
    by_repeat = [resampled_scores(one, resamples) for one in every]
    drawn = {
        score: mean_held(np.stack([one[score] for one in by_repeat]), axis=0)
        for score in by_repeat[0]
    }
    models: Sequence[ModelResult | OutputResult] = results.models
    at = {model.name: i for i, model in enumerate(models)}
    compared = [
        replace(
            c, interval=_ends(percentile_interval(difference(drawn, at[c.model], at[c.single])))
        )
        for c in compared
    ]
    results = replace(
        results,
        comparisons=tuple(compared),
        provenance={**results.provenance, "n_resamples": n_resamples},
    )
    return _with_intervals(results, {score: percentile_interval(of) for score, of in drawn.items()})


def _ends(interval: F64) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])


def _with_intervals(results: R, ends: Mapping[str, F64]) -> R:
    """`ends`: score name to (models, and the baseline where there is one, 2)."""

    def of(i: int) -> dict[str, tuple[float, float]]:
        return {score: _ends(held[i]) for score, held in ends.items() if len(held) > i}

    if isinstance(results, OutputResults):
        return replace(
            results,
            models=tuple(replace(m, intervals=of(i)) for i, m in enumerate(results.models)),
            baseline=replace(results.baseline, intervals=of(len(results.models))),
        )
    return replace(
        results,
        models=tuple(replace(m, intervals=of(i)) for i, m in enumerate(results.models)),
        majority_interval=_ends(ends["majority"][0]),
    )


def with_repeats(results: R, repeats: Sequence[R]) -> R:
    """Add evaluations of the same models on other folds.

    Scores of folds are then those of all evaluations in turn, and all other scores means
    over them; predictions, confusion matrices and thresholds stay those of the first.

    Raises
    ------
    BadFeatures
        They are of other clips or models, or two are on the same folds.
    """
    if len({partition(one.folds).tobytes() for one in (results, *repeats)}) <= len(repeats):
        raise BadFeatures(
            f"{results.name}: two of its repeats are on the same folds, which says nothing new"
        )
    for other in repeats:
        if other.clip_ids != results.clip_ids or [m.name for m in other.models] != [
            m.name for m in results.models
        ]:
            raise BadFeatures(f"{other.name}: a repeat is of other clips or models")
    alone: Any = {"heads": (), "repeats": ()}
    every: Any = tuple(replace(one, **alone) for one in (results, *repeats))
    models = [_over([one.models[i] for one in every]) for i in range(len(results.models))]
    whole: dict[str, Any] = {"repeats": every, "models": tuple(models)}
    if isinstance(results, OutputResults):
        whole["baseline"] = _over([one.baseline for one in every])
    else:
        whole["majority_per_fold"] = np.concatenate([one.majority_per_fold for one in every])
    return replace(results, **whole)


# Fields of a model's result that repeats lengthen, and those that they make means of.
_OF_FOLDS: tuple[str, ...] = (
    "accuracy_per_fold",
    "f1_macro_per_fold",
    "roc_auc_per_fold",
    "headline_per_fold",
    "per_fold",
    "quadrant_per_fold",
)
_MEANS: tuple[str, ...] = (
    "f1_macro",
    "roc_auc_macro_ovr",
    "roc_auc_macro_ovr_pooled",
    "without",
    "calibration",
    "pooled",
    "macro",
    "micro",
    "quadrant_accuracy",
)


def _over(models: Sequence[Any]) -> Any:
    """One model's results on different folds as one."""
    names = {field.name for field in fields(models[0])}
    held = {name: [getattr(model, name) for model in models] for name in names}
    joined = {name: _each(held[name], np.concatenate) for name in _OF_FOLDS if name in names}
    means = {name: _each(held[name], _mean) for name in _MEANS if name in names}
    return replace(models[0], **joined, **means)


def _each(values: Sequence[Any], join: Callable[[Sequence[Any]], Any]) -> Any:
    """`join` of values, or of the first one's entries where they are mappings."""
    if values[0] is None:
        return None
    if isinstance(values[0], Mapping):
        # Temperatures are fitted once.
        return {key: join([v[key] for v in values if key in v]) for key in values[0]}
    return join(values)


def _mean(values: Sequence[Any]) -> Any:
    mean = mean_held(np.stack([np.asarray(v, dtype=np.float64) for v in values]), axis=0)
    return mean if mean.ndim else float(mean)


def with_learning_curve(
    cache: Cache,
    results: R,
    head: HeadSettings,
    fractions: Sequence[float] = FRACTIONS,
) -> R:
    """Add the headline of every model with fewer training clips, whole groups at a time.

    Under ``crossfit`` only the heads see fewer clips; the nets saw all of the training
    folds. A model is scored on clips that have its features, its penalty is not chosen
    anew, and a point that too few clips are left for is left out, as is a model without a
    point: the last point may differ from the evaluation's score.

    Parameters
    ----------
    cache
        That was evaluated.
    results
        Of that evaluation.
    head
        Settings of its heads.
    fractions
        Shares of the training clips, each above 0 and below 1.
    """
    features = Features(cache)
    models = [Model(m.name, m.features, m.modalities) for m in results.models if m.name != STACKED]
    names = list(dict.fromkeys(name for model in models for name in model.features))
    classes = results.task == "multiclass"
    clips = Clips(
        results.task,
        results.labels,
        results.groups,
        results.folds,
        len(results.classes),
        results.seed,
    )
    # Clips that one split never tests are trained on all the same: a fold of their own.
    folds = np.where(results.folds < 0, results.k, results.folds)
    shares = sorted({*fractions, 1.0})
    masks = learning_curve_masks(
        folds,
        results.groups,
        shares,
        results.seed,
        labels=results.labels.astype(np.int64) if classes else None,
    )[: results.k]

    # Of each fold: the score, and the clips that the head was trained on.
    scores: dict[tuple[str, int], list[tuple[float, int]]] = {}
    crossfit = any(features.crossfit(name) for name in names)
    for net_fold, tested in views_of(crossfit, results.k):
        matrices = {name: features.matrix(name, net_fold) for name in names}
        every = [
            (Fit(model, fold, masks[fold, i], head.C, wanted=results.folds == fold), i)
            for fold in tested
            for i in range(len(shares))
            for model in models
        ]
        at = {id(fit): i for fit, i in every}
        fits = fits_with_clips([fit for fit, _ in every], matrices, clips)
        _, outputs = fit_heads(fits, matrices, clips, head)
        for fit, output in zip(fits, outputs, strict=True):
            said = np.full((len(folds), output.shape[1]), np.nan)
            said[results.folds == fit.fold] = output
            score = clips.score(results.folds == fit.fold, said)
            if np.isfinite(score):
                there = [matrices[name].present for name in fit.model.features]
                clips_there = int(np.logical_and.reduce([fit.train, *there]).sum())
                scores.setdefault((fit.model.name, at[id(fit)]), []).append((score, clips_there))
    last = len(shares) - 1
    curves = {}
    for model in models:
        full = scores.get((model.name, last), [])
        points = []
        for i, share in enumerate(shares):
            held = scores.get((model.name, i), [])
            # Of fewer folds a mean could not be compared.
            if held and len(held) == len(full):
                score, trained_on = np.mean(held, axis=0)
                points.append((float(share), float(trained_on), float(score)))
        if points:
            curves[model.name] = tuple(points)
    return replace(results, learning_curve=curves)
