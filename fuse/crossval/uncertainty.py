"""Intervals of an evaluation's scores, and tests between its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.comparisons import compare_results
from mvemo.fuse.metrics.averages import mean_finite
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.statistics.intervals import score_intervals
from mvemo.fuse.statistics.resamples import Resamples, resample_groups


def with_uncertainty(results: Results, *, n_resamples: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals to every model, and tests of models against others.

    Intervals refer to the out-of-fold predictions; with repeats, a resample's score is the mean
    over them. The test is Nadeau and Bengio's, corrected by Holm, on the primary metric in each
    fold. Neither covers the choice of the best among many models. With `n_resamples` 0 there are
    no intervals.
    """
    evaluations: Sequence[Results] = results.repeats or (results,)
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compare_results(evaluations)))
    resamples = resample_groups(results.groups, n_resamples, seed)
    # One at a time, because shuffled labels differ between repeats.
    by_repeat = [resampled_scores(one, resamples) for one in evaluations]
    values = {
        score: mean_finite(np.stack([one[score] for one in by_repeat]), axis=0)
        for score in by_repeat[0]
    }
    choice = results.choice
    if choice is not None:
        alone = [
            resampled_scores(replace(one, models=(one.choice.nested,)), resamples)
            for one in evaluations
            if one.choice is not None
        ]
        of_choice = {
            score: mean_finite(np.stack([one[score] for one in alone]), axis=0)[0]
            for score in alone[0]
        }
        nested = _with_intervals(results, choice.nested, of_choice)
        choice = replace(choice, nested=nested)
    *models, baseline = (
        _with_intervals(results, model, {name: scores[row] for name, scores in values.items()})
        for row, model in enumerate((*results.models, results.baseline))
    )
    return replace(
        results,
        models=tuple(models),
        baseline=baseline,
        choice=choice,
        comparisons=tuple(compare_results(evaluations, resamples)),
        provenance={**results.provenance, "n_resamples": n_resamples},
    )


def _with_intervals(results: Results, model: ModelResult, scores: Mapping[str, F64]) -> ModelResult:
    """Add the intervals of a model's resampled scores, float64 (resamples,) each."""
    masks = results.task.share_masks(
        results.y_true, model.y_pred, model.valid, len(results.classes)
    )
    return replace(model, intervals=score_intervals(scores, masks, results.groups))


def resampled_scores(results: Results, resamples: Resamples) -> dict[str, F64]:
    """Return each score, float64 (models, resamples), the baseline last (`Task.resample`)."""
    models = (*results.models, results.baseline)
    return results.task.resample(
        results.y_true,
        np.stack([model.outputs for model in models]),
        np.stack([model.y_pred for model in models]),
        results.folds,
        results.k,
        resamples,
    )
