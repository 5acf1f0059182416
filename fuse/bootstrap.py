"""The group bootstrap: resamples of groups of clips, scores in each resample, and intervals.

Whole groups are drawn with replacement, as many as there are, because clips of one song
or film are not independent (Efron & Tibshirani 1993, sections 8.3 and 13.3). A resample is
kept as the number of times that each group was drawn, not as a list of clips: every score here
is a function of weighted sums over the clips, and the sums of all resamples are one product
with the matrix of counts.

Two models that are scored on the same resamples can be compared.

The standard error of a score is its standard deviation over resamples of groups
times sqrt(G / (G - 1)) for G groups. It is multiplied by Student's t
with G' - 1 degrees of freedom, where G' = (sum n)^2 / sum n^2 is the effective number of groups of
n clips (Kish 1965, section 11.7). With few groups, percentiles of the resamples are too narrow:
`docs/calibration.md` has the measured coverage of both.

The interval is computed on a scale on which a score's error hardly depends on its value. A score
between two ends (accuracy, F1, AUC; kappa, MCC, r, CCC) has Wilson's interval (Wilson 1927) for
as many independent clips as its standard error corresponds to; 1 - R2 and errors (RMSE, MAE, log
loss) are taken as logarithms. Differences are used as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy  # imports scipy.sparse at its first use: predicting does not need it
from numpy.typing import NDArray

from mvemo.fuse.metrics.scores import decision_scores, kappa_of_counts, mcc_of_counts, mcc_of_tags
from mvemo.fuse.numeric import complete, mean_finite, ratio
from mvemo.manifests.array_types import F32, F64, Bools, Ints

N_RESAMPLES = 2000
# Usual and minimum number of resamples per block: a row of 256 float32 sums fits in the fastest CPU
# cache. Blocks are smaller if there are very many groups; below 32, matrix products become slow.
CHUNK, LEAST_CHUNK = 256, 32
# Memory of a block of resamples, enough for 50,000 groups (51 MB). Parts, such as folds, have
# fewer groups, so more resamples fit.
BLOCK_BYTES = 1 << 26
# Two matrices that count, per score level, the positive and the negative clips of a resample.
Sides: TypeAlias = "tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]"


@dataclass(frozen=True)
class Resamples:
    """Resamples: groups drawn with replacement, many times."""

    codes: Ints  # int64 (clips,): index of each clip's group
    # uint8 (resamples, groups): how often each group was drawn; rows sum to the number of groups.
    # More than 255 draws of one group have a probability below 1e-500.
    counts: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, rows: Bools | Ints) -> Resamples:
        """Return the same resamples for the clips in `rows`: a mask, or indices that may repeat."""
        return Resamples(self.codes[rows], self.counts)

    def sums(self, values: F64) -> F64:
        """Sum `values` (clips, columns) over each resample: float64 (resamples, columns)."""
        n_clips, n_groups = len(self.codes), self.counts.shape[1]
        places = self.codes, np.arange(n_clips)
        membership = scipy.sparse.csr_matrix((np.ones(n_clips), places), shape=(n_groups, n_clips))
        per_group = membership @ values
        result, chunk = np.empty((len(self), values.shape[1])), _chunk(8 * n_groups)
        for start in range(0, len(self), chunk):
            block = self.counts[start : start + chunk].astype(np.float64)
            np.matmul(block, per_group, out=result[start : start + chunk])
        return result

    def shares(self, correct: Bools, mask: Bools) -> F64:
        """Return the share of correct clips in each row of `mask`, float64 (rows, resamples)."""
        sums = self.sums(np.concatenate([correct & mask, mask]).T.astype(np.float64)).T
        return ratio(*np.split(sums, 2))


def _chunk(row_bytes: int) -> int:
    """Return the number of resamples per block, if a resample takes `row_bytes` bytes."""
    return max(LEAST_CHUNK, min(CHUNK, BLOCK_BYTES // row_bytes))


def resample_groups(
    groups: Sequence[object], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Resamples:
    """Draw groups with replacement; the same groups and seed give the same resamples.

    The first of `n_resamples` + 1 rows has each group once: its scores are those of the clips.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(names)
    rng = np.random.default_rng(seed)
    counts, chunk = np.ones((n_resamples + 1, n), dtype=np.uint8), _chunk(8 * n)
    for block in np.split(counts[1:], range(chunk, n_resamples, chunk)):
        drawn = rng.integers(n, size=block.shape) + n * np.arange(len(block))[:, None]
        block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    return Resamples(codes, counts)


def bootstrap_multiclass(
    y_true: Ints, proba: F64, resamples: Resamples, folds: Ints | None = None
) -> dict[str, F64]:
    """Compute each score of `proba` (models, clips, classes) in resamples: (models, resamples)."""
    mask = complete(proba)
    classes = np.arange(proba.shape[2])
    positive = y_true[:, None] == classes
    true, chosen, correct = class_counts(y_true, proba, resamples)
    scores = decision_scores(true, chosen, correct)
    result = {f"{name}:{c}": values[:, :, c] for name, values in scores.items() for c in classes}
    result["accuracy"] = ratio(correct.sum(axis=2), true.sum(axis=2))
    result["f1_macro"] = mean_finite(scores["f1"], axis=2)
    result["balanced_accuracy"] = mean_finite(ratio(correct, true), axis=2)
    result["cohen_kappa"] = kappa_of_counts(true, chosen, correct)
    result["mcc"] = mcc_of_counts(true, chosen, correct)
    pooled = areas(positive, proba, mask, resamples)
    result["roc_auc_macro_ovr_pooled"] = mean_finite(pooled, axis=1)
    if folds is not None:
        in_fold = np.stack([mask & (folds == fold) for fold in range(int(folds.max()) + 1)])
        per_fold = mean_finite(areas(positive, proba, in_fold, resamples), axis=2)
        result["roc_auc_macro_ovr"] = mean_finite(per_fold, axis=0)
    return result


def class_counts(y_true: Ints, proba: F64, resamples: Resamples) -> tuple[F64, ...]:
    """Return the numbers of true, predicted and correct clips: (models, resamples, classes)."""
    classes = np.arange(proba.shape[2])
    y_pred = np.nan_to_num(proba).argmax(axis=2)[:, :, None] == classes
    return _counts(y_true[:, None] == classes, y_pred, complete(proba), resamples)


def bootstrap_multilabel(
    y_true: Ints, proba: F64, decisions: Bools, resamples: Resamples
) -> dict[str, F64]:
    """Compute each score of `proba` (models, clips, tags) in resamples: (models, resamples)."""
    mask = complete(proba)
    positive = y_true.astype(np.bool_)
    n_tags = positive.shape[1]
    result: dict[str, F64] = {}
    true, chosen, correct = _counts(positive, decisions, mask, resamples)
    n = np.stack([resamples.sums(rows[:, None].astype(np.float64)) for rows in mask])
    per_tag = decision_scores(true, chosen, correct)
    per_tag["mcc"] = mcc_of_tags(true, chosen, correct, n)
    for name, values in per_tag.items():
        result |= {f"{name}:{t}": values[:, :, t] for t in range(n_tags)}
        result[f"{name}_macro"] = mean_finite(values, axis=2)
    true, chosen, correct = (count.sum(axis=2) for count in (true, chosen, correct))
    result["precision_micro"] = ratio(correct, chosen)
    result["recall_micro"] = ratio(correct, true)
    result["f1_micro"] = ratio(2 * correct, chosen + true)
    result["mcc_micro"] = mcc_of_tags(true, chosen, correct, n_tags * n[:, :, 0])
    # Treat all pairs of clip and tag as one column.
    pairs = resamples.select(np.repeat(np.arange(len(positive)), n_tags))
    flat = proba.reshape(len(proba), -1, 1)
    flat_mask = np.repeat(mask, n_tags, axis=1)
    for name, score in (("roc_auc", areas), ("average_precision", average_precisions)):
        by_tag = score(positive, proba, mask, resamples)
        result[f"{name}_macro"] = mean_finite(by_tag, axis=1)
        result |= {f"{name}:{t}": by_tag[:, t] for t in range(n_tags)}
        result[f"{name}_micro"] = score(positive.reshape(-1, 1), flat, flat_mask, pairs)[:, 0]
    return result


def _counts(y_true: Bools, y_pred: Bools, mask: Bools, resamples: Resamples) -> tuple[F64, ...]:
    """Return the numbers of true, predicted and correct clips: (models, resamples, columns)."""
    sums = []
    for decided, rows in zip(y_pred, mask[:, :, None], strict=True):
        columns = [y_true & rows, decided & rows, y_true & decided & rows]
        sums.append(resamples.sums(np.concatenate(columns, axis=1).astype(np.float64)))
    return tuple(np.split(np.stack(sums), 3, axis=2))


def bootstrap_regression(y_true: F64, y_pred: F64, resamples: Resamples) -> dict[str, F64]:
    """Map each regression score to float64 (models, targets, resamples)."""
    by_model = []
    # Centring keeps the sums of squares precise; no score depends on the centre.
    centre = y_true.mean(axis=0)
    for predicted in y_pred:
        mask = complete(predicted)[:, None]
        y = np.where(mask, y_true - centre, 0.0)
        p = np.where(mask, predicted - centre, 0.0)
        columns = np.concatenate([y, p, y * y, p * p, (y - p) ** 2, np.abs(y - p), mask], axis=1)
        sums = resamples.sums(columns)
        mean = ratio(sums[:, :-1], sums[:, -1:])
        mean_y, mean_p, mean_yy, mean_pp, squared, absolute = np.split(mean, 6, axis=1)
        var_y = np.maximum(mean_yy - mean_y * mean_y, 0.0)
        var_p = np.maximum(mean_pp - mean_p * mean_p, 0.0)
        # E (y - p)^2 = var y + var p - 2 cov + (mean y - mean p)^2.
        spread = var_y + var_p + (mean_y - mean_p) ** 2
        # A variance below rounding error means the column is constant.
        tiny = 1e-12 * (mean_yy + mean_pp)
        scale = np.where((var_y > tiny) & (var_p > tiny), np.sqrt(var_y * var_p), 0.0)
        scores = {
            "r2": 1 - ratio(squared, var_y),
            "rmse": np.sqrt(squared),
            "ccc": ratio(spread - squared, spread),
            "pearson_r": ratio((var_y + var_p - squared + (mean_y - mean_p) ** 2) / 2, scale),
            "mae": absolute,
        }
        by_model.append(scores)
    return {name: np.stack([one[name].T for one in by_model]) for name in by_model[0]}


def areas(positive: Bools, scores: F64, mask: Bools, resamples: Resamples) -> F64:
    """Return ROC-AUC, float64 (models, columns, resamples); NaN if a resample has only one class.

    `positive` is (clips, columns), `scores` (models, clips, columns), `mask` (models, clips) or for
    several parts, such as folds, (parts, models, clips); the result then starts with a parts axis.
    """
    return _ranked(_area, ("left", "right"), positive, scores, mask, resamples)


def average_precisions(positive: Bools, scores: F64, mask: Bools, resamples: Resamples) -> F64:
    """Return the average precision without interpolation; shapes and NaN as in `areas`."""
    return _ranked(_average_precision, ("left",), positive, -scores, mask, resamples)


def _ranked(
    score: Callable[[F32, F32], F64],
    ties: tuple[Literal["left", "right"], ...],
    positive: Bools,
    scores: F64,
    mask: Bools,
    resamples: Resamples,
) -> F64:
    """Apply `score` to the counts from `_sides`, for each model, column and resample."""
    n_resamples, n_groups = resamples.counts.shape
    parts = mask if mask.ndim == 3 else mask[None]
    sides = []
    for part in parts:
        for model, rows in enumerate(part):
            codes, y_true, values = resamples.codes[rows], positive[rows], scores[model, rows]
            for column in range(scores.shape[2]):
                one = y_true[:, column], values[:, column], codes
                sides.append(_sides(*one, n_groups, ties))
    result = np.empty((len(sides), n_resamples))
    chunk = max(_chunk(4 * n_groups), min(CHUNK * len(parts), BLOCK_BYTES // (4 * n_groups)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, n_resamples, chunk):
            # Counts are small integers, which are exact in float32.
            block = np.ascontiguousarray(resamples.counts[start : start + chunk].T, np.float32)

            def score_block(pair: Sides, block: F32 = block) -> F64:
                return score(pair[0] @ block, pair[1] @ block)

            for i, values in enumerate(pool.map(score_block, sides)):
                result[i, start : start + chunk] = values
    return result.reshape(*mask.shape[:-1], scores.shape[2], n_resamples)


def _sides(
    positive: Bools,
    score: F64,
    codes: Ints,
    n_groups: int,
    ties: tuple[Literal["left", "right"], ...],
) -> Sides:
    """Return sparse float32 (levels, groups): the clips of each group at each level.

    Levels are the distinct scores of positive clips, ascending. A negative clip counts below the
    positive clips of an equal score (``left``), above them (``right``), or half each (both).
    """
    levels, level = np.unique(score[positive], return_inverse=True)
    rows = np.concatenate([np.searchsorted(levels, score[~positive], side) for side in ties])
    negative = rows, np.tile(codes[~positive], len(ties))
    sides = []
    shape = len(levels) + 1, n_groups
    for (at, groups), weight in (((level, codes[positive]), 1), (negative, 1 / len(ties))):
        data = np.full(len(at), weight, dtype=np.float32)
        # Sorted rows are converted several times as fast as unsorted ones.
        ends = np.cumsum(np.bincount(at + 1, minlength=shape[0] + 1)).astype(np.int32)
        columns = groups[np.argsort(at, kind="stable")].astype(np.int32)
        sides.append(scipy.sparse.csr_matrix((data, columns, ends), shape=shape))
    return sides[0], sides[1]


def _area(positive: F32, negative: F32) -> F64:
    """Return the share of (positive, negative) pairs in the correct order (Mann-Whitney)."""
    np.cumsum(negative, axis=0, out=negative)
    pairs = positive.sum(axis=0, dtype=np.float64) * negative[-1]
    return ratio(np.einsum("ld,ld->d", positive, negative, dtype=np.float64), pairs)


def _average_precision(positive: F32, negative: F32) -> F64:
    """Return the precision at each level, weighted by the gain in recall; best scores first."""
    hits = np.cumsum(positive, axis=0)
    above = np.cumsum(negative, axis=0) + hits
    precision = np.divide(hits, above, out=np.zeros(hits.shape), where=above > 0, dtype=np.float64)
    gained = np.einsum("ld,ld->d", positive, precision, dtype=np.float64)
    return ratio(gained, hits[-1].astype(np.float64))


# --- intervals

Interval = tuple[float, float]
LEVEL = 0.95
# With fewer groups than this, the variance of a score cannot be estimated.
MIN_GROUPS = 8
UNKNOWN: Interval = (float("nan"), float("nan"))
# Scores that range from -1 to 1, and errors from 0 up; all others but R2 range from 0 to 1.
_SIGNED = ("cohen_kappa", "mcc", "pearson_r", "ccc")
_ERRORS = ("rmse", "mae", "log_loss", "brier", "ece")


def score_interval(
    score: str,
    drawn: F64,
    resamples: Resamples,
    mask: Bools | None = None,
    inflation: float = 1.0,
) -> Interval:
    """Return the ends of the 95 % interval of a score; NaN for fewer than 8 groups.

    `score` is a name such as ``recall:2`` or ``r2_macro``, or ``difference``. `drawn` is the score
    of the original clips, followed by that of each resample; NaN where it is undefined. `mask`
    selects the clips that the score is computed from. `inflation` multiplies the standard error, to
    add variance that resamples lack (`new_training`).
    """
    codes = resamples.codes if mask is None else resamples.codes[mask]
    sizes = np.bincount(codes)[np.unique(codes)] if len(codes) else np.zeros(0)
    estimate, drawn = drawn[0], drawn[1:][np.isfinite(drawn[1:])]
    if len(sizes) < MIN_GROUPS or not np.isfinite(estimate) or len(drawn) < 2:
        return UNKNOWN
    n_effective = sizes.sum() ** 2 / np.square(sizes).sum()
    t = float(scipy.special.stdtrit(n_effective - 1, (1 + LEVEL) / 2))
    unbiased = inflation * np.sqrt(len(sizes) / (len(sizes) - 1))

    def around(forward: Callable[[F64], F64], back: Callable[[F64], F64]) -> Interval:
        centre, half = forward(estimate), t * unbiased * forward(drawn).std(ddof=1)
        low, high = np.sort(back(np.array([centre - half, centre + half]))).tolist()
        return low, high

    name = score.partition(":")[0].removesuffix("_macro").removesuffix("_micro")
    if name == "difference":
        return around(np.asarray, np.asarray)
    if name == "r2":
        # A perfect prediction has no logarithm.
        return around(lambda r2: np.log(np.maximum(1 - r2, 1e-12)), lambda x: 1 - np.exp(x))
    if name in _ERRORS:
        return around(lambda error: np.log(np.maximum(error, 1e-12)), np.exp)
    bottom, width = (-1.0, 2.0) if name in _SIGNED else (0.0, 1.0)
    share, error = (estimate - bottom) / width, unbiased * drawn.std(ddof=1) / width
    # If a share is the same in all resamples, the number of groups is its sample size.
    varies = error > 1e-9 and 0 < share < 1
    n = share * (1 - share) / error**2 if varies else float(len(sizes))
    low, high = wilson_interval(share, n, t)
    return float(bottom + width * low), float(bottom + width * high)


def new_training(k: int) -> float:
    """Return the factor by which training on other clips increases a standard error.

    Resamples keep the trained models. As in the test of Nadeau & Bengio (2003, section 5.4), the
    variance of the mean of k folds, 1 / k, grows by the ratio of test and training clips.
    """
    return float(np.sqrt(1 + k / (k - 1))) if k > 1 else 1.0


def wilson_interval(share: float, n: float, z: float) -> Interval:
    """Return Wilson's interval of a share of `n` clips, `z` standard errors to each side."""
    share = min(max(share, 0.0), 1.0)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)
