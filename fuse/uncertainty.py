"""How sure an evaluation's figures are: intervals, tests, repeats, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.bootstrap import bootstrap_counts, bootstrap_scores, percentile_interval
from mvemo.fuse.clips import Clips
from mvemo.fuse.compare import compare_fusions
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.fitting import Fit, fit_heads
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.headline import mean_of_held
from mvemo.fuse.learning_curve import learning_curve_masks
from mvemo.fuse.models import Model
from mvemo.fuse.outputs import OutputResults
from mvemo.fuse.outputs_scores import output_draws
from mvemo.fuse.results import Results
from mvemo.fuse.stacking import STACKED

R = TypeVar("R", bound=Results | OutputResults)
F64 = NDArray[np.float64]

FRACTIONS = (0.1, 0.2, 0.4, 0.7)


def with_uncertainty(results: R, *, draws: int = 1000, seed: int = 0) -> R:
    """Add group-bootstrap intervals to every model, and tests of the fusions.

    Intervals are of the out-of-fold predictions; with repeats a draw's score is the mean
    over them. The test is Nadeau and Bengio's, corrected by Holm, on fold accuracies (the
    task's headline). Neither covers the choice of the best among many models.

    Parameters
    ----------
    results
        An evaluation, with its repeats in `repeats`.
    draws
        Resamples of groups; 0 for no intervals.
    seed
        Of the resamples.
    """
    every = [results, *results.repeats]
    if results.k > 1:
        results = replace(results, comparisons=tuple(compare_fusions(every)))
    if not draws or not results.models:
        return results
    counts = bootstrap_counts(results.groups, draws, seed)
    # One at a time: shuffled labels differ between repeats.
    drawn = [
        output_draws(one, counts)
        if isinstance(one, OutputResults)
        else bootstrap_scores(
            one.labels,
            np.stack([model.probabilities for model in one.models]),
            one.groups,
            counts=counts,
        ).draws
        for one in every
    ]
    ends = {
        score: percentile_interval(_mean_over([one[score] for one in drawn])) for score in drawn[0]
    }
    return _with_intervals(
        replace(results, provenance={**results.provenance, "bootstrap_draws": draws}), ends
    )


def _mean_over(draws: Sequence[F64]) -> F64:
    """(models, draws): mean over repeats of those that are defined."""
    if len(draws) == 1:
        return draws[0]
    held = np.stack(draws)
    there = np.isfinite(held)
    count = there.sum(axis=0)
    total = np.where(there, held, 0.0).sum(axis=0)
    result: F64 = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _with_intervals(results: R, ends: Mapping[str, F64]) -> R:
    """`ends`: score name to (models, and the baseline where there is one, 2)."""

    def of(i: int) -> dict[str, tuple[float, float]]:
        return {score: (float(held[i, 0]), float(held[i, 1])) for score, held in ends.items()}

    if isinstance(results, OutputResults):
        return replace(
            results,
            models=tuple(replace(m, intervals=of(i)) for i, m in enumerate(results.models)),
            baseline=replace(results.baseline, intervals=of(len(results.models))),
        )
    return replace(
        results, models=tuple(replace(m, intervals=of(i)) for i, m in enumerate(results.models))
    )


def with_repeats(results: R, repeats: Sequence[R]) -> R:
    """Add evaluations of the same models on other folds.

    Raises
    ------
    BadFeatures
        They are of other clips or models.
    """
    for other in repeats:
        if other.clip_ids != results.clip_ids or [m.name for m in other.models] != [
            m.name for m in results.models
        ]:
            raise BadFeatures(f"{other.name}: a repeat is of other clips or models")
    lighter: Any = tuple(replace(r, heads=()) for r in repeats)
    return replace(results, repeats=lighter)


def with_learning_curve(
    cache: Cache,
    results: R,
    head: HeadSettings,
    fractions: Sequence[float] = FRACTIONS,
) -> R:
    """Add the headline of every model with fewer training clips, whole groups at a time.

    Under ``crossfit`` only the heads see fewer clips; the nets saw all of the training
    folds.

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
    evaluated = [m for m in results.models if m.name != STACKED]
    models = [Model(m.name, m.features, m.modalities) for m in evaluated]
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
    masks = learning_curve_masks(
        folds,
        results.groups,
        fractions,
        results.seed,
        labels=results.labels.astype(np.int64) if classes else None,
    )[: results.k]

    def enough(mask: NDArray[np.bool_]) -> bool:
        # Too few clips, or of one class, make no head.
        return bool((len(np.unique(results.labels[mask])) if classes else mask.sum()) > 1)

    scores: dict[tuple[str, int], list[float]] = {}
    crossfit = any(features.crossfit(name) for name in names)
    views = [(f, [f]) for f in range(results.k)] if crossfit else [(None, list(range(results.k)))]
    for net_fold, tested in views:
        matrices = {name: features.matrix(name, net_fold) for name in names}
        index, fits = [], []
        for fold in tested:
            for i in range(len(fractions)):
                if enough(masks[fold, i]):
                    index += [i] * len(models)
                    fits += [Fit(model, fold, masks[fold, i], head.C) for model in models]
        _, outputs = fit_heads(fits, matrices, clips, head)
        for fit, i, output in zip(fits, index, outputs, strict=True):
            score = clips.score(results.folds == fit.fold, output)
            if np.isfinite(score):
                scores.setdefault((fit.model.name, i), []).append(score)
    counts = masks.sum(axis=2).mean(axis=0)
    full = np.mean([(results.folds != f).sum() for f in range(results.k)])
    curves: dict[str, tuple[tuple[float, float, float], ...]] = {}
    for model in evaluated:
        points = [
            (float(fraction), float(counts[i]), float(np.mean(scores[model.name, i])))
            for i, fraction in enumerate(fractions)
            if (model.name, i) in scores
        ]
        last = mean_of_held(model.headline_per_fold)
        curves[model.name] = (*sorted(points), (1.0, float(full), last))
    return replace(results, learning_curve=curves)
