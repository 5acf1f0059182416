"""How often the interval of "Expect X" holds the score on clips that had no part in it.

A part of a set is cross-validated, and the rest, of other groups, is predicted by the model that
the same procedure chooses and fits on the part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import TEST, TRAIN, ClipTable, import_feature, open_cache
from mvemo.fuse import EvaluationSettings, evaluate
from mvemo.manifests import make_folds

SETTINGS = EvaluationSettings(
    audit=False, temperature=False, missing_modality=False, n_resamples=500
)


@dataclass(frozen=True)
class LabelledVectors:
    """Clips with features, labels and groups."""

    name: str
    task: str
    classes: tuple[str, ...]
    vectors: dict[str, NDArray[np.float32]]
    labels: NDArray[np.generic]
    groups: NDArray[np.str_]

    def write(self, path: Path, rows: NDArray[np.int64], splits: NDArray[np.int8] | None) -> None:
        """Write some clips as a feature file, in six folds or with one split."""
        groups, labels = self.groups[rows].tolist(), self.labels[rows]
        folds = np.full(len(rows), -1)
        if splits is None:
            folds = make_folds(labels, groups, 6, 0, self.task)  # type: ignore[arg-type]
        table = ClipTable(
            name=self.name,
            task=self.task,
            classes=self.classes,
            clip_ids=tuple(f"clip {row}" for row in rows),
            groups=tuple(groups),
            labels=labels,
            folds=folds,
            k=0 if splits is not None else 6,
            splits=splits,
        )
        for name, values in self.vectors.items():
            import_feature(path, name, "audio", values[rows], table=table)


def made_set(seed: int = 0, n_groups: int = 1500) -> LabelledVectors:
    """Return clips of groups whose features know a part of four classes."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    labels = rng.integers(4, size=n_groups)[group]
    vectors = {}
    for name, strength in (("strong", 0.55), ("weak", 0.3), ("noise", 0.0)):
        means = strength * rng.normal(size=(4, 16))
        own = 0.7 * rng.normal(size=(n_groups, 16))[group] + 0.7 * rng.normal(size=(len(group), 16))
        vectors[name] = (means[labels] + own).astype(np.float32)
    groups = np.array([f"g{g}" for g in group])
    return LabelledVectors("made", "multiclass", tuple("abcd"), vectors, labels, groups)


def expected_and_found(
    one: LabelledVectors, n_train: int, folder: Path, seed: int
) -> tuple[float, tuple[float, float], float]:
    """Return the expected score with its interval, and the score on the other clips."""
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(one.groups, return_counts=True)
    order = rng.permutation(len(names))
    n_groups = int(np.searchsorted(np.cumsum(sizes[order]), n_train)) + 1
    train = np.isin(one.groups, names[order[:n_groups]])
    one.write(folder / f"{seed}-train.h5", np.flatnonzero(train), None)
    with open_cache(folder / f"{seed}-train.h5") as cache:
        results = evaluate(cache, SETTINGS)
    assert results.choice is not None
    nested = results.choice.nested
    splits = np.where(train, TRAIN, TEST).astype(np.int8)
    one.write(folder / f"{seed}-all.h5", np.arange(len(train)), splits)
    with open_cache(folder / f"{seed}-all.h5") as cache:
        tested = evaluate(cache, replace(SETTINGS, n_resamples=0))
    assert tested.choice is not None
    interval = nested.intervals[results.task.primary_interval[0]]
    metric = results.task.primary_metric
    expected, found = (model.scores[metric] for model in (nested, tested.choice.nested))
    return expected, interval, found


def coverage(
    sets: list[LabelledVectors], n_subsets: int, n_train: int, folder: Path
) -> Iterator[tuple[str, int, float, float]]:
    """Yield for each set its name, the number of parts, the share covered, and the mean bias."""
    for one in sets:
        covered, bias = [], []
        for seed in range(n_subsets):
            expected, (low, high), found = expected_and_found(one, n_train, folder, seed)
            covered.append(low <= found <= high)
            bias.append(expected - found)
        yield one.name, n_subsets, float(np.mean(covered)), float(np.mean(bias))
