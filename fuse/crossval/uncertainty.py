"""Intervals of an evaluation's figures, and tests between its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.metrics.averages import mean_finite
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.statistics.model_tests import compare_fusions
from mvemo.fuse.statistics.resamples import Resamples, percentile_interval, resample_groups


def with_uncertainty(results: Results, *, n_resamples: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals to every model, and tests of the fusions.

    Intervals are of the out-of-fold predictions; with repeats a resample's score is the
    mean over them. The test is Nadeau and Bengio's, corrected by Holm, on the primary
    metric in each fold. Neither covers the choice of the best among many models.

    Parameters
    ----------
    results
        An evaluation, with its repeats in `repeats`.
    n_resamples
        Of groups; 0 for no intervals.
    seed
        Of the resamples.
    """
    every: Sequence[Results] = results.repeats or (results,)
    compared = compare_fusions(every) if results.k > 1 else []
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compared))
    resamples = resample_groups(results.groups, n_resamples, seed)
    # One at a time: shuffled labels differ between repeats.
    by_repeat = [resampled_scores(one, resamples) for one in every]
    drawn = {
        score: mean_finite(np.stack([one[score] for one in by_repeat]), axis=0)
        for score in by_repeat[0]
    }
    row = {model.name: i for i, model in enumerate(results.models)}
    primary = drawn["primary"]
    compared = [
        replace(
            c, interval=_ends(percentile_interval(primary[row[c.model]] - primary[row[c.single]]))
        )
        for c in compared
    ]
    ends = {score: percentile_interval(values) for score, values in drawn.items()}
    *of_models, of_baseline = (
        replace(model, intervals=_intervals(results, model, ends, i))
        for i, model in enumerate((*results.models, results.baseline))
    )
    return replace(
        results,
        models=tuple(of_models),
        baseline=of_baseline,
        comparisons=tuple(compared),
        provenance={**results.provenance, "n_resamples": n_resamples},
    )


def resampled_scores(results: Results, resamples: Resamples) -> dict[str, F64]:
    """Score name to float64 (models, resamples), the baseline last: see `Task.resample`.

    Parameters
    ----------
    results
        One evaluation, without its repeats.
    resamples
        Of the clips' groups.
    """
    models = (*results.models, results.baseline)
    return results.task.resample(
        results.y_true,
        np.stack([model.outputs for model in models]),
        np.stack([model.y_pred for model in models]),
        results.folds,
        results.k,
        resamples,
    )


def _intervals(
    results: Results, model: ModelResult, ends: Mapping[str, F64], row: int
) -> dict[str, tuple[float, float]]:
    """`ends`: score name to float64 (models, 2).

    Empty where the clips are of one group: resamples of it are all the same, and say nothing
    of others.
    """
    valid = [group for group, there in zip(results.groups, model.valid, strict=True) if there]
    if len(set(valid)) < 2:
        return {}
    return {score: _ends(values[row]) for score, values in ends.items()}


def _ends(interval: F64) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])
