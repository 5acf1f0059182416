"""How sure an evaluation's figures are: intervals, tests, repeats, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.cache import Cache
from mvemo.fuse.bootstrap import bootstrap_scores
from mvemo.fuse.compare import compare_fusions
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Fit, fit_heads
from mvemo.fuse.learning_curve import learning_curve_masks
from mvemo.fuse.models import Model
from mvemo.fuse.results import Results
from mvemo.fuse.stacking import STACKED

FRACTIONS = (0.1, 0.2, 0.4, 0.7)


def with_uncertainty(results: Results, *, draws: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals to every model, and tests of the fusions.

    Intervals are of the pooled out-of-fold predictions (of all repeats); the test is
    Nadeau and Bengio's, corrected by Holm, on fold accuracies. Neither covers the choice of
    the best among many models.

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
    probabilities = np.stack([np.stack([m.probabilities for m in r.models]) for r in every])
    found = bootstrap_scores(
        results.labels, probabilities, results.groups, draws=draws, seed=seed
    ).intervals()
    models = [
        replace(
            model,
            intervals={
                score: (float(bounds[i, 0]), float(bounds[i, 1])) for score, bounds in found.items()
            },
        )
        for i, model in enumerate(results.models)
    ]
    return replace(results, models=tuple(models))


def with_repeats(results: Results, repeats: Sequence[Results]) -> Results:
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
    return replace(results, repeats=tuple(replace(r, heads=()) for r in repeats))


def with_learning_curve(
    cache: Cache,
    results: Results,
    head: HeadSettings,
    fractions: Sequence[float] = FRACTIONS,
) -> Results:
    """Add the accuracy of every model with fewer training clips, whole groups at a time.

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
    models = [Model(m.name, m.features, m.modalities) for m in results.models if m.name != STACKED]
    names = list(dict.fromkeys(name for model in models for name in model.features))
    # Clips that one split never tests are trained on all the same: a fold of their own.
    folds = np.where(results.folds < 0, results.k, results.folds)
    masks = learning_curve_masks(
        folds, results.groups, fractions, results.seed, labels=results.labels
    )[: results.k]
    right: dict[tuple[str, int], list[float]] = {}
    crossfit = any(features.crossfit(name) for name in names)
    views = [(f, [f]) for f in range(results.k)] if crossfit else [(None, list(range(results.k)))]
    for net_fold, tested in views:
        matrices = {name: features.matrix(name, net_fold) for name in names}
        fits = [
            Fit(model, fold, masks[fold, i], head.C)
            for fold in tested
            for i in range(len(fractions))
            for model in models
            # Too few clips for two classes make no head.
            if len(np.unique(results.labels[masks[fold, i]])) > 1
        ]
        index = [
            i
            for fold in tested
            for i in range(len(fractions))
            for _ in models
            if len(np.unique(results.labels[masks[fold, i]])) > 1
        ]
        _, outputs = fit_heads(
            fits, matrices, results.labels, len(results.classes), head, results.groups
        )
        for fit, i, output in zip(fits, index, outputs, strict=True):
            rows = (results.folds == fit.fold) & np.isfinite(output[:, 0])
            if rows.any():
                hits = output[rows].argmax(axis=1) == results.labels[rows]
                right.setdefault((fit.model.name, i), []).append(float(hits.mean()))
    counts = masks.sum(axis=2).mean(axis=0)
    full = np.mean([(results.folds != f).sum() for f in range(results.k)])
    curves = {}
    for model, scored in zip(models, [m for m in results.models if m.name != STACKED], strict=True):
        points = [
            (float(fraction), float(counts[i]), float(np.mean(right[model.name, i])))
            for i, fraction in enumerate(fractions)
            if (model.name, i) in right
        ]
        last = float(np.nanmean(scored.accuracy_per_fold))
        curves[model.name] = (*sorted(points), (1.0, float(full), last))
    return replace(results, learning_curve=curves)
