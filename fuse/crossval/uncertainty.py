"""Intervals of an evaluation's scores, and tests between its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from mvemo.fuse.bootstrap import LEVEL, Resamples, percentile_interval, resample_groups
from mvemo.fuse.crossval.comparisons import compare_results
from mvemo.fuse.metrics.averages import mean_finite
from mvemo.fuse.numeric import F64, Bools
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Outcome

Interval = tuple[float, float]


def with_uncertainty(results: Results, *, n_resamples: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals (none for 0 resamples) and tests of models against others."""
    evaluations: Sequence[Results] = results.repeats or (results,)
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compare_results(evaluations)))
    resamples = resample_groups(results.groups, n_resamples, seed)
    choice = results.choice
    evaluated = [_all_models(one, nested=choice is not None) for one in evaluations]
    values = _resampled_scores(evaluations, evaluated, resamples)
    scored = [
        _with_intervals(results, model, {name: scores[row] for name, scores in values.items()})
        for row, model in enumerate(_all_models(results, nested=choice is not None))
    ]
    if choice is not None:
        choice = replace(choice, nested=scored.pop())
    *models, baseline = scored
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


def _all_models(results: Results, *, nested: bool) -> list[ModelResult]:
    """Return the models, the baseline and, if `nested`, the choice inside each fold."""
    chosen = [results.choice.nested] if nested and results.choice is not None else []
    return [*results.models, results.baseline, *chosen]


def _resampled_scores(
    evaluations: Sequence[Results], models: Sequence[list[ModelResult]], resamples: Resamples
) -> dict[str, F64]:
    """Return each score, float64 (models, resamples), the mean over repeats."""
    by_repeat = [
        # One at a time, because shuffled labels differ between repeats.
        one.task.resample(
            Outcome(
                one.y_true,
                np.stack([model.outputs for model in of_one]),
                np.stack([model.y_pred for model in of_one]),
                one.folds,
                one.k,
            ),
            resamples,
        )
        for one, of_one in zip(evaluations, models, strict=True)
    ]
    return {
        score: mean_finite(np.stack([one[score] for one in by_repeat]), axis=0)
        for score in by_repeat[0]
    }


def score_intervals(
    values: Mapping[str, F64], shares: Mapping[str, Bools], groups: Sequence[str]
) -> dict[str, Interval]:
    """Return the interval of each score of one model, float64 (resamples,), from its percentiles.

    If all clips of a small class are right, they are right in every resample, and a percentile
    interval of 1 to 1 would claim certainty. Such a share gets Wilson's interval (Wilson 1927),
    whose trials are the groups of the share's clips in `shares`; other scores get NaN.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    intervals = {}
    for name, resampled in values.items():
        low, high = (float(end) for end in percentile_interval(resampled))
        # Sums of the same values in another order differ in their last digits.
        if np.isclose(low, high, rtol=1e-9, atol=0.0):
            n_groups = len(np.unique(codes[shares[name]])) if name in shares else 0
            low, high = _of_constant(low, n_groups, f1=name.startswith("f1"))
        intervals[name] = (low, high)
    return intervals


def wilson_interval(n_right: int, n: int) -> Interval:
    """Return Wilson's 95 % interval of a share of `n` trials."""
    z, share = float(ndtri(0.5 + LEVEL / 2)), n_right / n
    centre = (2 * n_right + z**2) / (2 * (n + z**2))
    half = z * (4 * n_right * (1 - share) + z**2) ** 0.5 / (2 * (n + z**2))
    low, high = centre - half, centre + half
    return (low if n_right else 0.0), (high if n_right < n else 1.0)


def _of_constant(value: float, n_groups: int, *, f1: bool) -> Interval:
    """Return the interval of a share that all resamples agree on."""
    if value not in (0.0, 1.0) or not n_groups:
        return float("nan"), float("nan")
    low, high = wilson_interval(int(value) * n_groups, n_groups)
    if f1:
        # F1 = 2 J / (1 + J); J is the share of right clips among those that have the class or are
        # predicted to have it.
        low, high = (2 * end / (1 + end) for end in (low, high))
    return low, high
