"""Is a fusion better than its best single modality? Corrected tests over folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.results import ModelResult, Results

F64 = NDArray[np.float64]
Score = Callable[[NDArray[Any], F64], float]
# Two heads of the same features, fitted in another order, differ by less than this.
SAME = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One fusion against the best of the single features that it combines.

    Parameters
    ----------
    model, single
        Names of the fusion and of its best single-feature model.
    differences
        float64 (folds of all repeats,): score of the fusion minus that of the single, on
        the clips of a fold that both predicted; folds without such clips, or where either
        score is not defined, are left out.
    mean
        Their mean.
    t, p
        Nadeau and Bengio's corrected statistic and its two-sided p-value.
    p_holm
        `p` corrected for the number of different comparisons in the table.
    compared
        That number.
    interval
        95 % group-bootstrap interval of the difference of the primary metrics, on the same draws;
        NaN where none was asked for. Of clips that either lacks, the other's count.
    """

    model: str
    single: str
    differences: F64
    mean: float
    t: float
    p: float
    p_holm: float
    compared: int = 1
    interval: tuple[float, float] = (float("nan"), float("nan"))


def nadeau_bengio(
    differences: ArrayLike, n_train: float, n_test: float
) -> tuple[float, float, float]:
    """Corrected resampled t-test of score differences over folds (and repeats).

    Nadeau & Bengio 2003, "Inference for the generalization error", section 5.4: training
    sets overlap, so the variance of the mean of J differences is taken as
    (1 / J + n_test / n_train) times their sample variance, with J - 1 degrees of freedom.

    Parameters
    ----------
    differences
        (J,): one number a fold, or a fold and repeat; NaN are left out.
    n_train, n_test
        Clips (or mean number of clips) trained on and tested in a fold; only the ratio
        counts.

    Returns
    -------
    The mean, t, and the two-sided p. With fewer than two differences t and p are NaN. Equal
    differences give t = 0, p = 1 where they are 0, else an infinite t and p = 0.

    Raises
    ------
    ValueError
        `n_train` or `n_test` is not above 0.
    """
    if not (n_train > 0 and n_test > 0):
        raise ValueError(f"n_train {n_train} and n_test {n_test} must be above 0")
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2:
        return mean, float("nan"), float("nan")
    # Equal numbers have a variance of rounding errors only.
    variance = 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))
    if variance == 0:
        return (mean, 0.0, 1.0) if mean == 0 else (mean, float(np.copysign(np.inf, mean)), 0.0)
    t = mean / float(np.sqrt((1 / count + n_test / n_train) * variance))
    return mean, t, float(2 * student_t.sf(abs(t), count - 1))


def holm(p_values: ArrayLike) -> F64:
    """Holm's step-down correction (Holm 1979), float64 of the same length.

    The i-th smallest of m is multiplied by m - i + 1, made monotone and cut at 1. NaN stay
    NaN and are not counted in m.
    """
    p = np.asarray(p_values, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    there = np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return result


def compare_fusions(
    results: Results | Sequence[Results], *, score: Score | None = None
) -> list[Comparison]:
    """Test every fusion model against its best single modality on the same folds.

    Parameters
    ----------
    results
        One evaluation, or its repeats with other folds.
    score
        Of labels and predictions of a fold's clips; higher is better. None for the task's
        primary metric.

    Returns
    -------
    One row for each model of two or more features of which at least one is also evaluated
    alone, in the order of report. The best single is the one with the highest mean score on
    these folds: its choice favours the single, never the fusion.

    Raises
    ------
    BadFeatures
        The repeats hold different models.
    """
    repeats = [results] if isinstance(results, Results) else list(results)
    score = score or repeats[0].task.primary
    names = [model.name for model in repeats[0].models]
    for other in repeats[1:]:
        if [model.name for model in other.models] != names:
            raise BadFeatures(f"{other.name}: its repeats hold different models")
    models = repeats[0].models
    singles = {
        model.features[0]: i for i, model in reversed(list(enumerate(models))) if _is_single(model)
    }
    rows = []
    for i, model in enumerate(models):
        rivals = [singles[name] for name in model.features if name in singles]
        if _is_single(model) or not rivals:
            continue
        pairs = [_paired(repeats, i, rival, score) for rival in rivals]
        # The single's own mean score, on the folds where it can be compared.
        best = int(np.argmax([np.nan_to_num(mean_of_finite(s), nan=-np.inf) for _, s, _ in pairs]))
        mine, theirs, ratio = pairs[best]
        if len(mine):
            mean, t, p = nadeau_bengio(mine - theirs, 1.0, ratio)
        else:
            mean, t, p = (float("nan"),) * 3
        rows.append((model.name, models[rivals[best]].name, mine - theirs, mean, t, p))
    # The same predictions under two names, as of the one pair and of all features where these
    # are two, are one comparison.
    first = [
        next(
            j
            for j in range(i + 1)
            if rows[j][1] == row[1]
            and rows[j][2].shape == row[2].shape
            and _same_predictions(repeats, rows[j][0], row[0])
        )
        for i, row in enumerate(rows)
    ]
    counted = sorted(set(first))
    corrected = dict(zip(counted, holm([rows[i][-1] for i in counted]), strict=True))
    return [
        Comparison(*row, float(corrected[i]), len(counted))
        for row, i in zip(rows, first, strict=True)
    ]


def _same_predictions(repeats: Sequence[Results], a: str, b: str) -> bool:
    for results in repeats:
        by_name = {model.name: model.outputs for model in results.models}
        if not np.allclose(by_name[a], by_name[b], atol=SAME, equal_nan=True):
            return False
    return True


def _is_single(model: ModelResult) -> bool:
    return len(model.features) == 1


def _paired(
    repeats: Sequence[Results], model: int, rival: int, score: Score
) -> tuple[F64, F64, float]:
    """Both models' scores in each fold, on common clips, and the mean of n_test / n_train."""
    mine, theirs, ratios = [], [], []
    for results in repeats:
        p, q = results.models[model].outputs, results.models[rival].outputs
        there = np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1)
        for fold in range(results.k):
            rows = there & (results.folds == fold)
            n_test, n_train = int(rows.sum()), int((there & ~rows).sum())
            if not (n_test and n_train):
                continue
            pair = score(results.y_true[rows], p[rows]), score(results.y_true[rows], q[rows])
            if np.isfinite(pair).all():
                mine.append(pair[0])
                theirs.append(pair[1])
                ratios.append(n_test / n_train)
    return np.array(mine), np.array(theirs), float(np.mean(ratios)) if ratios else float("nan")
