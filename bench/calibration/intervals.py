"""How often intervals hold the true score, and differences of equal models leave out 0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import Row, mean_row

from mvemo.fuse import task_of
from mvemo.fuse.bootstrap import (
    bootstrap_multiclass,
    bootstrap_regression,
    resample_groups,
    score_interval,
)
from mvemo.fuse.crossval.comparisons import FoldedOutputs, exchange_test

F64 = NDArray[np.float64]
Arrays = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
SCORES = {
    "multiclass": ("accuracy", "f1_macro", "mcc", "roc_auc_macro_ovr_pooled"),
    "regression": ("r2", "pearson_r", "ccc"),
}
TITLES = {"f1_macro": "macro F1", "roc_auc_macro_ovr_pooled": "AUC", "pearson_r": "r"}
N_RESAMPLES = 500


def clips(task: str, n_groups: int, size: int, rng: np.random.Generator) -> Arrays:
    """Return groups, labels and outputs of clips in groups of 1 to 2 `size` - 1."""
    group = np.repeat(np.arange(n_groups), rng.integers(1, 2 * size, n_groups))
    shared = 0.3 if size > 1 else 0.0

    def noise(width: int) -> NDArray[np.float64]:
        of_group, of_clip = rng.normal(size=(n_groups, width)), rng.normal(size=(len(group), width))
        return np.sqrt(shared) * of_group[group] + np.sqrt(1 - shared) * of_clip

    if task == "regression":
        y = noise(1)
        return group, y, 0.6 * y + 0.15 + 0.45 * noise(1)
    labels = rng.integers(3, size=n_groups)[group]
    scores = np.exp(noise(3) + 1.6 * np.eye(3)[labels])
    return group, labels.astype(np.float64), scores / scores.sum(axis=1, keepdims=True)


def drawn_scores(task: str, one: Arrays, n_resamples: int, seed: int) -> dict[str, F64]:
    """Return each score in resamples, first of the clips as they are."""
    group, labels, outputs = one
    resamples = resample_groups(group, n_resamples, seed)
    if task == "regression":
        drawn = bootstrap_regression(labels, outputs[None], resamples)
        return {name: drawn[name][0, 0] for name in SCORES[task]}
    found = bootstrap_multiclass(labels.astype(np.int64), outputs[None], resamples)
    return {name: found[name][0].reshape(-1) for name in SCORES[task]}


def rows(folder: Path, data: Path | None, n_runs: int = 500) -> Iterator[Row]:
    """Yield the coverage of each score for a number of groups."""
    for task, names in SCORES.items():
        for size in (1, 5):
            rng = np.random.default_rng(size)
            true = drawn_scores(task, clips(task, 4000, size, rng), 1, 0)
            for n_groups in (8, 30):
                held: dict[str, list[bool]] = {name: [] for name in names}
                for run in range(n_runs):
                    one = clips(task, n_groups, size, rng)
                    resamples = resample_groups(one[0], 1)
                    for name, drawn in drawn_scores(task, one, N_RESAMPLES, run).items():
                        if name in held and np.isfinite(drawn[0]):
                            low, high = score_interval(name, drawn, resamples)
                            held[name].append(bool(low <= true[name][0] <= high))
                for name, values in held.items():
                    what = f"{TITLES.get(name, name)}, {n_groups} groups of {size}"
                    yield mean_row(what, "95 %", values)
    yield from null_differences(n_runs)


def null_differences(n_runs: int) -> Iterator[Row]:
    """Yield how often two models of equal worth are told apart on one split."""
    task = task_of("multiclass")
    for n_groups, size in ((8, 5), (20, 1), (30, 5)):
        rng = np.random.default_rng(n_groups)
        excluded, significant = [], []
        for run in range(n_runs):
            group, labels, outputs = clips("multiclass", n_groups, size, rng)
            other = outputs**0.5 * np.exp(0.7 * rng.normal(size=outputs.shape))
            first = outputs**0.5 * np.exp(0.7 * rng.normal(size=outputs.shape))
            both = [x / x.sum(axis=1, keepdims=True) for x in (first, other)]
            y_true, folds = labels.astype(np.int64), np.zeros(len(group), np.int64)
            resamples = resample_groups(group, N_RESAMPLES, run)
            drawn = task.resample_primary(y_true, np.stack(both), folds, 1, resamples)
            low, high = score_interval("difference", drawn[0] - drawn[1], resamples)
            excluded.append(low > 0 or high < 0)
            names, outputs_of = group.astype(str).tolist(), dict(zip("ab", both, strict=True))
            one = FoldedOutputs(task, y_true, names, folds, 1, outputs_of)
            significant.append(exchange_test([one], "a", "b") < 0.05)
        what = f"equal models, {n_groups} groups of {size}"
        yield mean_row(f"{what}: interval leaves out 0", "≤ .05", excluded)
        yield mean_row(f"{what}: p below .05", "≤ .05", significant)
