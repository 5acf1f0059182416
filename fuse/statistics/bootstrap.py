"""Group bootstrap: percentile intervals of scores of out-of-fold predictions.

Whole groups are drawn with replacement, as many as there are, because clips of one song
or film are not independent (Efron & Tibshirani 1993, sections 8.3 and 13.3). A draw is
kept as the number of times that each group came up, never as a list of clips: every score
here is a function of weighted sums over the clips, and those of all draws at once are one
product with the matrix of counts.

All models are scored on the same draws, so that differences between them are paired.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mvemo.fuse.metrics.multiclass import mean_held

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
Ints = NDArray[np.int64]

DRAWS = 2000
LEVEL = 0.95
# Draws held at once: a row of 256 float32 sums stays in the nearest cache, and a block of
# 50,000 groups is 51 MB. Parts, as folds, have shorter columns, and more draws at once.
CHUNK = 256
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Counts:
    """Resamples of groups.

    Parameters
    ----------
    codes
        int64 (clips,): index of each clip's group.
    counts
        uint16 (draws, groups): how often each draw holds each group; rows sum to the
        number of groups.
    """

    codes: Ints
    counts: NDArray[np.uint16]

    def clip_weights(self) -> NDArray[np.uint16]:
        """uint16 (draws, clips): how often each draw holds each clip."""
        return self.counts[:, self.codes]

    def sums(self, values: F64) -> F64:
        """float64 (draws, columns): sums of `values` (clips, columns) over each draw."""
        n_groups = self.counts.shape[1]
        member = csr_matrix(
            (np.ones(len(self.codes)), (self.codes, np.arange(len(self.codes)))),
            shape=(n_groups, len(self.codes)),
        )
        per_group = np.asarray(member @ values, dtype=np.float64)
        result = np.empty((len(self.counts), values.shape[1]))
        for start in range(0, len(self.counts), CHUNK):
            block = self.counts[start : start + CHUNK].astype(np.float64)
            np.matmul(block, per_group, out=result[start : start + CHUNK])
        return result

    def shares(self, right: NDArray[np.bool_], there: NDArray[np.bool_]) -> F64:
        """float64 (rows, draws): how many of the clips that are there are right.

        Parameters
        ----------
        right, there
            bool (rows, clips); NaN in a draw that has no clip of a row.
        """
        sums = self.sums(np.concatenate([right & there, there]).T.astype(np.float64)).T
        return _ratio(*np.split(sums, 2))


@dataclass(frozen=True)
class Bootstrap:
    """Scores of every model in every draw.

    Parameters
    ----------
    draws
        Score name to float64 (models, draws); NaN where a draw has no such score.
    """

    draws: Mapping[str, F64]

    def interval(self, score: str, level: float = LEVEL) -> F64:
        """float64 (models, 2): low and high end of the percentile interval of `score`."""
        return percentile_interval(self.draws[score], level)

    def intervals(self, level: float = LEVEL) -> dict[str, F64]:
        """Score name to float64 (models, 2)."""
        return {score: self.interval(score, level) for score in self.draws}

    def difference(self, score: str, model: int, other: int, level: float = LEVEL) -> F64:
        """float64 (2,): the interval of `model` minus `other` on the same draws."""
        return percentile_interval(self.draws[score][model] - self.draws[score][other], level)


def percentile_interval(draws: F64, level: float = LEVEL) -> F64:
    """Percentile interval over the last axis, in a last axis of 2; draws of NaN left out."""
    ends = [50 * (1 - level), 50 * (1 + level)]
    if not np.isnan(draws).any():
        result: F64 = np.moveaxis(np.percentile(draws, ends, axis=-1), 0, -1)
        return result
    flat = draws.reshape(-1, draws.shape[-1])
    held = [row[np.isfinite(row)] for row in flat]
    rows = [np.percentile(row, ends) if len(row) else np.full(2, np.nan) for row in held]
    return np.array(rows).reshape((*draws.shape[:-1], 2))


def bootstrap_counts(groups: Sequence[object], draws: int = DRAWS, seed: int = 0) -> Counts:
    """Draw groups with replacement.

    Parameters
    ----------
    groups
        One a clip.
    draws
        How many resamples.
    seed
        The same seed and groups give the same resamples.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(names)
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, n), dtype=np.uint16)
    for start in range(0, draws, CHUNK):
        rows = min(CHUNK, draws - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(
            rows, n
        )
    return Counts(codes.reshape(-1).astype(np.int64), counts)


def bootstrap_scores(
    labels: Ints,
    probabilities: F64,
    groups: Sequence[object],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    folds: Ints | None = None,
    counts: Counts | None = None,
) -> Bootstrap:
    """Bootstrap the multiclass scores of all models at once.

    Parameters
    ----------
    labels
        int64 (clips,).
    probabilities
        float64 (models, clips, classes), out of fold; NaN rows were not predicted and are
        left out of that model's scores. With repeats, (repeats, models, clips, classes):
        a draw's score is then the mean over the repeats.
    groups
        One a clip.
    draws, seed
        As in `bootstrap_counts`.
    folds
        int64 (clips,), or (repeats, clips): also bootstrap the AUC averaged over folds.
    counts
        Resamples already drawn, in place of `groups`, `draws` and `seed`.

    Returns
    -------
    ``accuracy``, ``f1_macro``, ``roc_auc_macro_ovr_pooled`` and, of the c-th class,
    ``precision:c``, ``recall:c`` and ``f1:c`` of the pooled predictions, each as
    `mvemo.fuse.metrics.multiclass` defines it, and ``roc_auc_macro_ovr`` where `folds` are given.
    """
    resamples = bootstrap_counts(groups, draws, seed) if counts is None else counts
    repeated = probabilities if probabilities.ndim == 4 else probabilities[None]
    repeats, n_models, n_clips, n_classes = repeated.shape
    flat = repeated.reshape(repeats * n_models, n_clips, n_classes)
    present = _predicted(flat)
    result = _confusion_scores(labels, flat, present, resamples)
    positive = labels[:, None] == np.arange(n_classes)
    result["roc_auc_macro_ovr_pooled"] = mean_held(
        areas(positive, flat, present, resamples), axis=1
    )
    if folds is not None:
        per_fold = np.broadcast_to(folds, (repeats, n_clips)).repeat(n_models, axis=0)
        of_fold = np.stack([present & (per_fold == f) for f in range(int(per_fold.max()) + 1)])
        by_fold = mean_held(areas(positive, flat, of_fold, resamples), axis=2)
        result["roc_auc_macro_ovr"] = mean_held(by_fold, axis=0)
    n_draws = len(resamples.counts)
    return Bootstrap(
        {
            name: mean_held(values.reshape(repeats, n_models, n_draws), axis=0)
            for name, values in result.items()
        }
    )


def bootstrap_multilabel(
    labels: Ints, probabilities: F64, decisions: NDArray[np.bool_], counts: Counts
) -> Bootstrap:
    """Bootstrap the multi-label scores of all models at once (F8).

    Parameters
    ----------
    labels
        int64 (clips, tags), 0 or 1.
    probabilities
        float64 (models, clips, tags); NaN rows were not predicted.
    decisions
        bool (models, clips, tags): at or above the threshold, which may differ by fold.
    counts
        Of `bootstrap_counts`.

    Returns
    -------
    ``precision``, ``recall``, ``f1``, ``roc_auc`` and ``average_precision``, each with
    ``_macro``, ``_micro`` and, of the t-th tag, ``:t``, as
    `mvemo.fuse.metrics.multilabel.multilabel_scores` defines them.
    """
    there = _predicted(probabilities)
    truth = labels.astype(np.bool_)
    found: dict[str, list[F64]] = {}
    for model, held in enumerate(there):
        scores, right, chosen, true = _decided(
            truth & held[:, None], decisions[model] & held[:, None], counts
        )
        for name, of in scores.items():
            for t in range(truth.shape[1]):
                found.setdefault(f"{name}:{t}", []).append(of[:, t])
            found.setdefault(f"{name}_macro", []).append(mean_held(of, axis=1))
        right, chosen, true = right.sum(axis=1), chosen.sum(axis=1), true.sum(axis=1)
        found.setdefault("precision_micro", []).append(_ratio(right, chosen))
        found.setdefault("recall_micro", []).append(_ratio(right, true))
        found.setdefault("f1_micro", []).append(_ratio(2 * right, chosen + true))
    draws = {name: np.array(of) for name, of in found.items()}
    # All pairs of clip and tag as one column.
    pairs = Counts(np.repeat(counts.codes, truth.shape[1]), counts.counts)
    flat = probabilities.reshape(len(probabilities), -1, 1)
    there_flat = np.repeat(there, truth.shape[1], axis=1)
    for name, score in (("roc_auc", areas), ("average_precision", average_precisions)):
        of_tags = score(truth, probabilities, there, counts)
        draws[f"{name}_macro"] = mean_held(of_tags, axis=1)
        draws |= {f"{name}:{t}": of_tags[:, t] for t in range(truth.shape[1])}
        draws[f"{name}_micro"] = score(truth.reshape(-1, 1), flat, there_flat, pairs)[:, 0]
    return Bootstrap(draws)


def bootstrap_regression(labels: F64, predictions: F64, counts: Counts) -> dict[str, F64]:
    """R2, RMSE and CCC of every model, dimension and draw (F9).

    Parameters
    ----------
    labels
        float64 (clips, dimensions).
    predictions
        float64 (models, clips, dimensions); NaN rows were not predicted.
    counts
        Of `bootstrap_counts`.

    Returns
    -------
    ``r2``, ``rmse`` and ``ccc``: float64 (models, dimensions, draws), as
    `mvemo.fuse.metrics.regression` defines them; `percentile_interval` gives their intervals.
    """
    result: dict[str, list[F64]] = {"r2": [], "rmse": [], "ccc": []}
    # Sums of squares about a fixed centre keep their digits; no score depends on it.
    centre = labels.mean(axis=0)
    for predicted in predictions:
        there = np.isfinite(predicted).all(axis=1)[:, None]
        y = np.where(there, labels - centre, 0.0)
        p = np.where(there, predicted - centre, 0.0)
        columns = np.concatenate([y, p, y * y, p * p, (y - p) ** 2, there], axis=1)
        sums = counts.sums(columns)
        mean = _ratio(sums[:, :-1], sums[:, -1:])
        my, mp, myy, mpp, squared = np.split(mean, 5, axis=1)
        var_y = np.maximum(myy - my * my, 0.0)
        var_p = np.maximum(mpp - mp * mp, 0.0)
        result["r2"].append((1 - _ratio(squared, var_y)).T)
        result["rmse"].append(np.sqrt(squared).T)
        # E (y - p)^2 = var y + var p - 2 cov + (mean y - mean p)^2.
        spread = var_y + var_p + (my - mp) ** 2
        result["ccc"].append(_ratio(spread - squared, spread).T)
    return {name: np.stack(values) for name, values in result.items()}


def areas(
    positive: NDArray[np.bool_], scores: F64, present: NDArray[np.bool_], counts: Counts
) -> F64:
    """Area under the ROC curve of every model, column and draw, ties counted half.

    Parameters
    ----------
    positive
        bool (clips, columns).
    scores
        float64 (models, clips, columns).
    present
        bool (models, clips): the clips to score. Or (parts, models, clips), to score several
        parts of them, as folds.
    counts
        Of `bootstrap_counts`.

    Returns
    -------
    float64 (models, columns, draws), or with parts (parts, models, columns, draws); NaN
    where a draw has one class alone.
    """
    return _ranked(_area_sides, _area, positive, scores, present, counts)


def average_precisions(
    positive: NDArray[np.bool_], scores: F64, present: NDArray[np.bool_], counts: Counts
) -> F64:
    """Average precision of every model, column and draw; shapes as in `areas`.

    The sum over the distinct scores of recall gained times precision there, without
    interpolation; NaN where a draw has no positive clip.
    """
    return _ranked(_precision_sides, _average_precision, positive, scores, present, counts)


def _confusion_scores(
    labels: Ints, probabilities: F64, present: NDArray[np.bool_], counts: Counts
) -> dict[str, F64]:
    """Accuracy, macro F1 and the classes' scores, float64 (models, draws) each."""
    n_models, _, n_classes = probabilities.shape
    classes = np.arange(n_classes)
    found: dict[str, list[F64]] = {}
    truth = labels[:, None] == classes
    for model in range(n_models):
        rows = present[model][:, None]
        said = (np.nan_to_num(probabilities[model]).argmax(axis=1)[:, None] == classes) & rows
        scores, right, _, held = _decided(truth & rows, said, counts)
        for name, of in scores.items():
            for c in classes:
                found.setdefault(f"{name}:{c}", []).append(of[:, c])
        found.setdefault("accuracy", []).append(_ratio(right.sum(axis=1), held.sum(axis=1)))
        found.setdefault("f1_macro", []).append(mean_held(scores["f1"], axis=1))
    return {name: np.array(of) for name, of in found.items()}


def _decided(
    truth: NDArray[np.bool_], said: NDArray[np.bool_], counts: Counts
) -> tuple[dict[str, F64], F64, F64, F64]:
    """Precision, recall and F1 of columns (clips, columns) of decisions, (draws, columns).

    0 where 0 / 0, but NaN for a column that is neither true nor decided in a draw. And the
    sums that they are made of: right, decided, true.
    """
    columns = np.concatenate([said & truth, said, truth], axis=1)
    right, chosen, held = np.split(counts.sums(columns.astype(np.float64)), 3, axis=1)
    neither = chosen + held == 0
    scores = {}
    for name, numerator, denominator in (
        ("precision", right, chosen),
        ("recall", right, held),
        ("f1", 2 * right, chosen + held),
    ):
        score = np.nan_to_num(_ratio(numerator, denominator))
        score[neither] = np.nan
        scores[name] = score
    return scores, right, chosen, held


Sides = tuple[csr_matrix, csr_matrix]


def _ranked(
    prepare: Callable[[NDArray[np.bool_], F64, Ints, int], Sides],
    score: Callable[[F32, F32], F64],
    positive: NDArray[np.bool_],
    scores: F64,
    present: NDArray[np.bool_],
    counts: Counts,
) -> F64:
    """`score` of every model, column and draw: float64 (models, columns, draws).

    `prepare` gives the sparse matrices that sum a draw's positive and negative clips into
    the levels of one column. Threads share the columns of all models and one block of
    draws, which bounds the memory. `present` may be of several parts, as in `areas`.
    """
    n_draws, n_groups = counts.counts.shape
    parts = present if present.ndim == 3 else present[None]
    sides = []
    for part in parts:
        for model, rows in enumerate(part):
            codes, truth, values = counts.codes[rows], positive[rows], scores[model, rows]
            for column in range(scores.shape[2]):
                sides.append(prepare(truth[:, column], values[:, column], codes, n_groups))
    result = np.empty((len(sides), n_draws))
    chunk = max(CHUNK, min(CHUNK * len(parts), BLOCK_BYTES // (4 * n_groups)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, n_draws, chunk):
            # Whole numbers, exact in float32.
            block = np.ascontiguousarray(counts.counts[start : start + chunk].T, np.float32)

            def one(pair: Sides, block: F32 = block) -> F64:
                return score(np.asarray(pair[0] @ block), np.asarray(pair[1] @ block))

            for i, drawn in enumerate(pool.map(one, sides)):
                result[i, start : start + chunk] = drawn
    return result.reshape(*present.shape[:-1], scores.shape[2], n_draws)


def _area_sides(positive: NDArray[np.bool_], score: F64, codes: Ints, n_groups: int) -> Sides:
    """Levels are the distinct scores of positive clips, ascending.

    A negative clip counts from the first level above it on; one that is tied with a level
    counts half there and whole from the next on.
    """
    levels, here = np.unique(score[positive], return_inverse=True)
    shape = (len(levels) + 1, n_groups)
    negative, theirs = score[~positive], codes[~positive]
    rows = [np.searchsorted(levels, negative, side) for side in ("left", "right")]
    return (
        _sums_of(here.reshape(-1), codes[positive], 1.0, shape),
        _sums_of(np.concatenate(rows), np.tile(theirs, 2), 0.5, shape),
    )


def _area(mine: F32, theirs: F32) -> F64:
    """The share of (positive, negative) pairs in the right order (Mann-Whitney)."""
    np.cumsum(theirs, axis=0, out=theirs)
    pairs = mine.sum(axis=0, dtype=np.float64) * theirs[-1]
    return _ratio(np.einsum("ld,ld->d", mine, theirs, dtype=np.float64), pairs)


def _precision_sides(positive: NDArray[np.bool_], score: F64, codes: Ints, n_groups: int) -> Sides:
    """Levels are the distinct scores of positive clips, descending; ties count whole."""
    levels, here = np.unique(-score[positive], return_inverse=True)
    shape = (len(levels) + 1, n_groups)
    return (
        _sums_of(here.reshape(-1), codes[positive], 1.0, shape),
        _sums_of(np.searchsorted(levels, -score[~positive]), codes[~positive], 1.0, shape),
    )


def _average_precision(mine: F32, theirs: F32) -> F64:
    """Precision at each level, weighted by the recall gained there."""
    hits = np.cumsum(mine, axis=0)
    said = np.cumsum(theirs, axis=0) + hits
    precision = np.divide(hits, said, out=np.zeros(hits.shape), where=said > 0, dtype=np.float64)
    gained = np.einsum("ld,ld->d", mine, precision, dtype=np.float64)
    return _ratio(gained, hits[-1].astype(np.float64))


def _sums_of(rows: Ints, codes: Ints, weight: float, shape: tuple[int, int]) -> csr_matrix:
    """Sparse float32 (levels, groups) that sums a group's weight into its clips' levels."""
    data = np.full(len(rows), weight, dtype=np.float32)
    return csr_matrix((data, (rows, codes)), shape=shape)


def _predicted(values: F64) -> NDArray[np.bool_]:
    """bool (models, clips): where a model's row is free of NaN."""
    return np.asarray(np.isfinite(values).all(axis=2), dtype=np.bool_)


def _ratio(numerator: F64, denominator: F64) -> F64:
    """Their quotient; NaN where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    result: F64 = np.full(shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
