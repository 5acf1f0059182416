"""Intervals of scores, and comparisons of models: paired differences and corrected tests.

A difference, its interval and its p-value all refer to the clips that both models predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import ndtri, stdtr

from mvemo.fuse.bootstrap import LEVEL, Resamples, percentile_interval, resample_groups
from mvemo.fuse.numeric import F64, Bools, Ints, Labels, complete, mean_finite, mean_of_finite
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Outcome, Task

# Largest difference between outputs of two heads of the same features, fitted in another order.
SAME = 1e-4
NAN = np.nan


@dataclass(frozen=True)
class FoldedOutputs:
    """Out-of-fold outputs of models on one set of folds."""

    task: Task
    y_true: Labels
    folds: Ints  # int64 (clips,): -1 for clips that no fold tests
    k: int  # number of folds
    # Model name to float64 (clips, outputs); NaN rows for clips without a prediction.
    outputs: Mapping[str, F64]


@dataclass(frozen=True)
class Comparison:
    """Comparison of a model with a reference model, on the clips that both predicted."""

    model: str
    reference: str
    n_clips: int  # number of clips that both predicted (in the first repeat)
    # float64 (folds of all repeats,): gain in the primary metric, in folds where it is defined.
    differences: F64
    mean: float  # mean of `differences`: positive if the model is better
    # 95 % interval from resampled groups, or NaN; for regression, of the pooled metric.
    interval: tuple[float, float]
    # Nadeau and Bengio's statistic and two-sided p-value; NaN for one fold or equal predictions.
    t: float
    p: float
    same: bool  # True if both models make the same predictions
    p_holm: float = NAN  # `p` corrected for `n_tests` (Holm)
    n_tests: int = 0  # number of different tests in the table

    @property
    def significant(self) -> bool | None:
        """Return True if the difference is significant at 5 %, None if not tested."""
        if self.same:
            return False
        if np.isfinite(self.p_holm):
            return bool(self.p_holm < 0.05)
        if np.isfinite(self.interval).all():
            return bool(self.interval[0] > 0 or self.interval[1] < 0)
        return None

    def reversed(self) -> Comparison:
        """Return the comparison of the reference with the model."""
        low, high = self.interval
        return replace(
            self,
            model=self.reference,
            reference=self.model,
            differences=-self.differences,
            mean=-self.mean,
            interval=(-high, -low),
            t=-self.t,
        )


def compare_models(
    repeats: Sequence[FoldedOutputs],
    pairs: Sequence[tuple[str, str]],
    resamples: Resamples | None = None,
) -> list[Comparison]:
    """Test pairs of models; models with equal predictions count as one test."""
    rows = [_compare(repeats, model, reference, resamples) for model, reference in pairs]
    representative = _representatives(repeats, {name for pair in pairs for name in pair})
    first: dict[tuple[str, str], int] = {}
    test = [
        first.setdefault((representative[r.model], representative[r.reference]), i)
        for i, r in enumerate(rows)
    ]
    tests = sorted({i for i in test if np.isfinite(rows[i].p)})
    corrected = dict(zip(tests, holm([rows[i].p for i in tests]), strict=True))
    return [
        replace(row, p_holm=float(corrected.get(i, NAN)), n_tests=len(tests))
        for row, i in zip(rows, test, strict=True)
    ]


def compare_results(
    repeats: Sequence[Results], resamples: Resamples | None = None
) -> list[Comparison]:
    """Test each fusion against its best single feature, or all pairs if no model has features."""
    models = repeats[0].models
    outputs = [
        FoldedOutputs(
            one.task, one.y_true, one.folds, one.k, {m.name: m.outputs for m in one.models}
        )
        for one in repeats
    ]
    if not any(model.features for model in models):
        names = [model.name for model in models]
        return compare_models(outputs, list(combinations(names, 2)), resamples)
    return compare_models(outputs, _fusions_and_singles(outputs, models), resamples)


def _fusions_and_singles(
    repeats: Sequence[FoldedOutputs], models: Sequence[ModelResult]
) -> list[tuple[str, str]]:
    """Return pairs of each fusion and the best single feature that it combines."""
    singles = {
        model.features[0]: model.name for model in reversed(models) if len(model.features) == 1
    }
    pairs = []
    for model in models:
        rivals = [singles[name] for name in model.features if name in singles]
        if model.name in rivals or not rivals:
            continue
        # Mean score of each single feature, over the folds where both scores are defined.
        means = [mean_of_finite(_paired_scores(repeats, model.name, r)[1]) for r in rivals]
        best = int(np.argmax(np.nan_to_num(means, nan=-np.inf)))
        pairs.append((model.name, rivals[best]))
    return pairs


def _compare(
    repeats: Sequence[FoldedOutputs], model: str, reference: str, resamples: Resamples | None
) -> Comparison:
    """Compare one pair, without the correction for several tests."""
    a, b, ratio = _paired_scores(repeats, model, reference)
    both = [_shared(one, model, reference) for one in repeats]
    same = all(np.array_equal(p, q, equal_nan=True) for p, q in both)
    if np.isfinite(ratio) and not same:
        mean, t, p = nadeau_bengio(a - b, ratio)
    else:
        # Equal predictions need no test, and must not weaken the correction of other tests.
        mean, t, p = mean_of_finite(a - b), NAN, NAN
    interval = (NAN, NAN)
    if resamples is not None:
        values = np.stack(
            [
                one.task.resample_primary(one.y_true, outputs, one.folds, one.k, resamples)
                for one, outputs in zip(repeats, both, strict=True)
            ]
        )
        low, high = percentile_interval(np.subtract(*mean_finite(values, axis=0))).tolist()
        interval = low, high
    n_clips = int(complete(both[0][0]).sum())
    return Comparison(model, reference, n_clips, a - b, mean, interval, t, p, same)


def _shared(one: FoldedOutputs, model: str, reference: str) -> F64:
    """Return both models' outputs, float64 (2, clips, outputs); NaN rows if one is missing."""
    both = np.stack([one.outputs[model], one.outputs[reference]])
    both[:, ~complete(both).all(axis=0)] = np.nan
    return both


def _paired_scores(
    repeats: Sequence[FoldedOutputs], model: str, reference: str
) -> tuple[F64, F64, float]:
    """Return both models' scores per fold on common clips, and the mean n_test / n_train."""
    scores, ratios = [], []
    for one in repeats:
        p, q = _shared(one, model, reference)
        valid = complete(p)
        for fold in range(one.k):
            rows = valid & (one.folds == fold)
            n_test, n_train = int(rows.sum()), int((valid & ~rows).sum())
            pair = [one.task.primary(one.y_true[rows], values[rows]) for values in (p, q)]
            if np.isfinite(pair).all():
                scores.append(pair)
                ratios += [n_test / n_train] if n_train else []
    a, b = np.array(scores, float).reshape(-1, 2).T
    return a, b, float(np.mean(ratios)) if ratios else NAN


def _representatives(repeats: Sequence[FoldedOutputs], names: set[str]) -> dict[str, str]:
    """Map each name to the first name with the same predictions."""
    result: dict[str, str] = {}
    for name in sorted(names, key=list(repeats[0].outputs).index):
        result[name] = next(
            (
                other
                for other in dict.fromkeys(result.values())
                if all(
                    np.allclose(one.outputs[name], one.outputs[other], atol=SAME, equal_nan=True)
                    for one in repeats
                )
            ),
            name,
        )
    return result


def nadeau_bengio(differences: F64, ratio: float) -> tuple[float, float, float]:
    """Return the mean difference, the corrected resampled t, and its two-sided p.

    `ratio` is the number of test clips per training clip.
    """
    count = len(differences)
    mean = mean_of_finite(differences)
    if count < 2:
        return mean, NAN, NAN
    # If all values are equal, a computed variance would be only rounding error.
    variance = 0.0 if np.ptp(differences) == 0 else float(differences.var(ddof=1))
    if variance == 0:
        return (mean, 0.0, 1.0) if mean == 0 else (mean, float(np.copysign(np.inf, mean)), 0.0)
    # Nadeau & Bengio 2003, section 5.4: training sets overlap, which the ratio corrects.
    t = mean / float(np.sqrt((1 / count + ratio) * variance))
    return mean, t, float(2 * stdtr(count - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> F64:
    """Correct p-values by Holm's step-down method (Holm 1979)."""
    p = np.array(p_values, float)
    order = np.argsort(p, kind="stable")
    p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return p


Interval = tuple[float, float]


def with_uncertainty(results: Results, *, n_resamples: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals (unless `n_resamples` is 0) and tests between models."""
    evaluations: Sequence[Results] = results.repeats or (results,)
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compare_results(evaluations)))
    resamples = resample_groups(results.groups, n_resamples, seed)
    choice = results.choice
    evaluated = [_all_models(one, nested=choice is not None) for one in evaluations]
    values = _resampled_scores(evaluations, evaluated, resamples)
    labels, n_outputs, scored = results.y_true, len(results.classes), []
    for row, model in enumerate(_all_models(results, nested=choice is not None)):
        of_model = {name: scores[row] for name, scores in values.items()}
        shares = results.task.share_masks(labels, model.y_pred, model.valid, n_outputs)
        intervals = score_intervals(of_model, shares, results.groups)
        scored.append(replace(model, intervals=intervals))
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


def _all_models(results: Results, *, nested: bool) -> list[ModelResult]:
    """Return the models, the baseline and, if `nested`, the result of the nested choice."""
    chosen = [results.choice.nested] if nested and results.choice is not None else []
    return [*results.models, results.baseline, *chosen]


def _resampled_scores(
    evaluations: Sequence[Results], models: Sequence[list[ModelResult]], resamples: Resamples
) -> dict[str, F64]:
    """Return the mean over repeats of each score, float64 (models, resamples)."""
    by_repeat = [
        # Repeats are resampled separately, because shuffled labels differ between them.
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
    """Return the percentile interval of each score, or Wilson's for a share that is constant."""
    codes = np.unique(groups, return_inverse=True)[1]
    intervals = {}
    for name, resampled in values.items():
        low, high = percentile_interval(resampled).tolist()
        # Sums of the same values in another order differ in their last digits.
        if np.isclose(low, high, rtol=1e-9, atol=0.0):
            value, n_groups = low, len(np.unique(codes[shares[name]])) if name in shares else 0
            low = high = NAN
            if value in (0.0, 1.0) and n_groups:
                low, high = wilson_interval(int(value) * n_groups, n_groups)
            if name.startswith("f1"):
                # F1 = 2 J / (1 + J); J is the share of correct clips among those that have
                # the class or are predicted to have it.
                low, high = (2 * end / (1 + end) for end in (low, high))
        intervals[name] = (low, high)
    return intervals


def wilson_interval(n_right: int, n: int) -> Interval:
    """Return Wilson's 95 % interval of the share `n_right` / `n`."""
    z, share = float(ndtri(0.5 + LEVEL / 2)), n_right / n
    centre = (2 * n_right + z**2) / (2 * (n + z**2))
    half = z * (4 * n_right * (1 - share) + z**2) ** 0.5 / (2 * (n + z**2))
    low, high = centre - half, centre + half
    return (low if n_right else 0.0), (high if n_right < n else 1.0)
