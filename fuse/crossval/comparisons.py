"""Intervals of scores, and comparisons of models: paired differences and corrected tests.

A difference, its interval and its p-value all refer to the clips that both models predicted. With
four folds or more, the differences of the folds are tested by the corrected resampled t (Nadeau &
Bengio 2003). With fewer folds, or equal differences in all folds, this statistic is meaningless;
the models' predictions are then exchanged, group by group (Pitman 1937).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import stdtr

from mvemo.fuse.bootstrap import (
    BLOCK_BYTES,
    UNKNOWN,
    Interval,
    Resamples,
    new_training,
    resample_groups,
    score_interval,
)
from mvemo.fuse.numeric import Labels, best_index, complete, mean_finite, mean_of_finite
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Outcome, Task
from mvemo.manifests.array_types import F64, Bools, Ints

# Largest difference between outputs of models that make the same predictions.
SAME = 1e-4
# Differences in two folds that are closer than this differ only by rounding.
TINY = 1e-12
NAN = np.nan
# Minimum number of folds for a t-test; with fewer, predictions are exchanged.
MIN_FOLDS = 4
# If the models differ on at most this many groups, all possible exchanges are tried.
EXHAUSTIVE = 12
N_EXCHANGES = 9999


@dataclass(frozen=True)
class FoldedOutputs:
    """Out-of-fold outputs of models on one set of folds."""

    task: Task
    y_true: Labels
    groups: Sequence[str]  # group of each clip
    folds: Ints  # int64 (clips,): -1 for clips that no fold tests
    k: int  # number of folds
    # Model name to float64 (clips, outputs); NaN rows for clips without a prediction.
    outputs: Mapping[str, F64]

    def pair(self, model: str, reference: str) -> F64:
        """Return both models' outputs, float64 (2, clips, outputs); NaN rows if one is missing."""
        both = np.stack([self.outputs[model], self.outputs[reference]])
        both[:, ~complete(both).all(axis=0)] = np.nan
        return both


@dataclass(frozen=True)
class Comparison:
    """Comparison of a model with a reference model, on the clips that both predicted."""

    model: str
    reference: str
    n_clips: int  # number of clips that both predicted (in the first repeat)
    # float64 (folds of all repeats,): gain in the primary metric, in folds where it is defined.
    differences: F64
    mean: float  # mean of `differences`: positive if the model is better
    # 95 % interval over groups, or NaN; for regression, of the pooled metric.
    interval: Interval
    # Nadeau and Bengio's statistic; NaN if predictions were exchanged instead (`exchange_test`).
    t: float
    p: float  # two-sided p-value; NaN for equal predictions
    same: bool  # True if both models make the same predictions
    p_holm: float = NAN  # `p` corrected for `n_tests` (Holm)
    n_tests: int = 0  # number of different tests in the table
    # The same pair by MCC or r (`Task.by_field_score`), with a correction of its own.
    by_field: Comparison | None = None

    @property
    def significant(self) -> bool | None:
        """Return True if the difference is significant at 5 %, None if not tested."""
        if self.same:
            return False
        return bool(self.p_holm < 0.05) if np.isfinite(self.p_holm) else None

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
            by_field=self.by_field and self.by_field.reversed(),
        )


def names_of_tests(comparisons: Sequence[Comparison]) -> str:
    """Return the name of the test, or of both tests, that these comparisons used."""
    by_t = [np.isfinite(c.t) for c in comparisons if np.isfinite(c.p)]
    names = ["corrected t-test over folds"] * any(by_t)
    names += ["exchange of predictions in whole groups"] * (not all(by_t))
    return " or ".join(names) or "no test"


def by_scores(task: Task, comparisons: Sequence[Comparison]) -> list[tuple[Task, Comparison]]:
    """Return (task, comparison): comparisons by the primary metric, then those by MCC or r."""
    by_field = [(task.by_field_score, c.by_field) for c in comparisons]
    return [(of, c) for of, c in [*((task, c) for c in comparisons), *by_field] if of and c]


def compare_models(
    repeats: Sequence[FoldedOutputs],
    pairs: Sequence[tuple[str, str]],
    resamples: Resamples | None = None,
) -> list[Comparison]:
    """Test pairs of models, also by MCC or r; models with equal predictions count as one test."""
    by_field: Sequence[Comparison | None] = [None] * len(pairs)
    if (task := repeats[0].task.by_field_score) is not None:
        by_field = compare_models([replace(one, task=task) for one in repeats], pairs, resamples)
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
        replace(row, p_holm=float(corrected.get(i, NAN)), n_tests=len(tests), by_field=other)
        for row, i, other in zip(rows, test, by_field, strict=True)
    ]


def folded(results: Results, outputs: Mapping[str, F64]) -> FoldedOutputs:
    """Return outputs of models, by name, on the clips and folds of an evaluation."""
    return FoldedOutputs(
        results.task, results.y_true, results.groups, results.folds, results.k, outputs
    )


def compare_results(
    repeats: Sequence[Results], resamples: Resamples | None = None
) -> list[Comparison]:
    """Test each fusion against its best single feature, or all pairs if no model has features."""
    models = repeats[0].models
    outputs = [folded(one, {m.name: m.outputs for m in one.models}) for one in repeats]
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
        pairs.append((model.name, rivals[best_index(means)]))
    return pairs


def _compare(
    repeats: Sequence[FoldedOutputs], model: str, reference: str, resamples: Resamples | None
) -> Comparison:
    """Compare one pair, without the correction for several tests."""
    a, b, ratio = _paired_scores(repeats, model, reference)
    differences = a - b
    both = [one.pair(model, reference) for one in repeats]
    t, p, interval = NAN, NAN, UNKNOWN
    # Equal predictions need no test, and must not weaken the correction of other tests.
    same = all(_equal(p, q) for p, q in both)
    if not same and len(differences) >= MIN_FOLDS and np.ptp(differences) > TINY:
        t, p = nadeau_bengio(differences, ratio)
    elif not same and len(differences):
        p = exchange_test(repeats, model, reference)
    if resamples is not None:
        interval = difference_interval(repeats, model, reference, resamples)
    n_clips = int(complete(both[0][0]).sum())
    mean = mean_of_finite(differences)
    return Comparison(model, reference, n_clips, differences, mean, interval, t, p, same)


def difference_interval(
    repeats: Sequence[FoldedOutputs], model: str, reference: str, resamples: Resamples
) -> Interval:
    """Return the 95 % interval of a model's gain in the primary metric, from resampled groups."""
    both = [one.pair(model, reference) for one in repeats]
    drawn = [
        one.task.resample_primary(one.y_true, outputs, one.folds, one.k, resamples)
        for one, outputs in zip(repeats, both, strict=True)
    ]
    difference = np.subtract(*mean_finite(np.stack(drawn), axis=0))
    valid = complete(both[0][0]) & (repeats[0].folds >= 0)
    return score_interval("difference", difference, resamples, valid)


def _paired_scores(
    repeats: Sequence[FoldedOutputs], model: str, reference: str
) -> tuple[F64, F64, float]:
    """Return both models' scores per fold on common clips, and the mean n_test / n_train."""
    scores, ratios = [], []
    for one in repeats:
        p, q = one.pair(model, reference)
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


def exchange_test(repeats: Sequence[FoldedOutputs], model: str, reference: str) -> float:
    """Return the two-sided p-value of exchanging both models' predictions in whole groups.

    The statistic is the difference of the primary metric on the clips that both predicted. The
    p-value is exact if the models differ in 12 groups or fewer, otherwise it is estimated from
    9,999 exchanges (fewer with very many groups).
    """
    names, codes = np.unique(np.asarray(repeats[0].groups), return_inverse=True)
    pairs = [one.pair(model, reference) for one in repeats]
    differ = [_differ(one.task, both) for one, both in zip(repeats, pairs, strict=True)]
    differing = np.unique(codes[np.logical_or.reduce(differ)])
    n = len(differing)
    if n <= EXHAUSTIVE:
        kept = 1 - (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        n_exchanges = min(N_EXCHANGES, max(999, BLOCK_BYTES // (2 * len(names))))
        kept = np.random.default_rng(0).integers(2, size=(n_exchanges + 1, n))
        kept[0] = 1
    first = np.ones((len(kept), len(names)), dtype=np.uint8)
    first[:, differing] = kept
    # The second model's copies of the clips follow the first model's, in separate groups.
    both_codes = np.concatenate([codes, codes + len(names)])
    sides = [
        Resamples(both_codes, np.hstack(side)) for side in ((first, 1 - first), (1 - first, first))
    ]
    drawn = []
    for one, both in zip(repeats, pairs, strict=True):
        y_true, folds = (np.concatenate([values, values]) for values in (one.y_true, one.folds))
        a, b = (
            one.task.resample_primary(y_true, np.concatenate(list(both))[None], folds, one.k, side)
            for side in sides
        )
        drawn.append(a[0] - b[0])
    differences = np.abs(mean_finite(np.stack(drawn), axis=0))
    # The margin allows for rounding, which depends on the order of a sum.
    return float(np.mean(differences >= differences[0] - 1e-9))


def _differ(task: Task, both: F64) -> Bools:
    """Return bool (clips,): True where exchanging the models may change the primary metric."""
    a, b = task.decide(both) if task.exclusive else both
    different = a.reshape(len(a), -1) != b.reshape(len(b), -1)
    return different.any(axis=1) & complete(both).all(axis=0)


def nadeau_bengio(differences: F64, ratio: float) -> tuple[float, float]:
    """Return the corrected t and its two-sided p; `ratio` is that of test to training clips."""
    count, variance = len(differences), float(differences.var(ddof=1))
    # Nadeau & Bengio 2003, section 5.4: training sets overlap, which the ratio corrects.
    t = mean_of_finite(differences) / float(np.sqrt((1 / count + ratio) * variance))
    return t, float(2 * stdtr(count - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> F64:
    """Correct p-values by Holm's step-down method (Holm 1979)."""
    p = np.array(p_values, float)
    order = np.argsort(p, kind="stable")
    p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return p


def _equal(a: F64, b: F64) -> bool:
    return np.allclose(a, b, atol=SAME, equal_nan=True)


def _representatives(repeats: Sequence[FoldedOutputs], names: set[str]) -> dict[str, str]:
    """Map each name to the first name with the same predictions."""
    result: dict[str, str] = {}
    for name in sorted(names, key=list(repeats[0].outputs).index):
        result[name] = next(
            (
                other
                for other in dict.fromkeys(result.values())
                if all(_equal(one.outputs[name], one.outputs[other]) for one in repeats)
            ),
            name,
        )
    return result


def with_uncertainty(results: Results, *, n_resamples: int = 1000) -> Results:
    """Add group-bootstrap intervals (unless `n_resamples` is 0) and tests between models."""
    evaluations: Sequence[Results] = results.evaluations
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compare_results(evaluations)))
    resamples = resample_groups(results.groups, n_resamples)
    choice = results.choice
    evaluated = [_all_models(one, nested=choice is not None) for one in evaluations]
    values = _resampled_scores(evaluations, evaluated, resamples)
    labels, n_outputs, scored = results.y_true, len(results.classes), []
    for row, model in enumerate(_all_models(results, nested=choice is not None)):
        valid = model.valid & results.tested
        masks = results.task.share_masks(labels, model.y_pred, valid, n_outputs)
        is_nested = choice is not None and model is choice.nested
        inflation = new_training(results.k) if is_nested else 1.0
        intervals = {}
        for name, scores in values.items():
            score = results.task.primary_metric if name == "primary" else name
            mask = masks.get(name, valid)
            intervals[name] = score_interval(score, scores[row], resamples, mask, inflation)
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


def with_primary_intervals(results: Results) -> Results:
    """Add only the interval of each model's primary metric; no tests."""
    resamples, evaluations = resample_groups(results.groups), results.evaluations
    by_repeat = [
        one.task.resample_primary(
            one.y_true, np.stack([m.outputs for m in one.models]), one.folds, one.k, resamples
        )
        for one in evaluations
    ]
    drawn, metric = mean_finite(np.stack(by_repeat), axis=0), results.task.primary_metric
    models = (
        replace(m, intervals={"primary": score_interval(metric, scores, resamples, m.valid)})
        for m, scores in zip(results.models, drawn, strict=True)
    )
    return replace(results, models=tuple(models))


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
