"""The clips of an evaluation: what heads are to predict, and who belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.links import Link
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import labels as manifest_labels
from mvemo.manifests import make_folds


@dataclass(frozen=True)
class Clips:
    """Labels, groups and folds of an evaluation's clips.

    Parameters
    ----------
    task
        Of the labels, see `mvemo.fuse.task_of`.
    y_true
        int64 (clips,) of classes, int64 (clips, tags) of 0 and 1, or float64
        (clips, targets).
    groups
        (clips,).
    folds
        int64 (clips,): the fold that each clip is tested in; -1 for those that train only.
    n_outputs
        Number of classes, tags or targets.
    seed
        Of inner folds.
    """

    task: Task
    y_true: NDArray[Any]
    groups: tuple[str, ...]
    folds: Ints
    n_outputs: int
    seed: int = 0

    @property
    def link(self) -> Link:
        """Of the heads: see `mvemo.fuse.Head`."""
        return self.task.link

    @property
    def target(self) -> NDArray[np.float32]:
        """float32 (outputs, clips): one-hot classes, tags, or values."""
        return self.task.target(self.y_true, self.n_outputs)

    @property
    def split_task(self) -> manifest_labels.Task:
        """The task's name, as functions that make folds take it."""
        return cast(manifest_labels.Task, self.task.name)

    def divisible(self, fold: int) -> bool:
        """Whether the training clips of `fold` are of two groups or more."""
        return len({self.groups[i] for i in np.flatnonzero(self.folds != fold).tolist()}) > 1

    def inner_folds(self, fold: int, count: int) -> Ints:
        """int64 (clips,): folds of the training clips of `fold`, groups whole; else -1.

        All are -1 where the training clips are of one group, which cannot be divided.
        """
        train = np.flatnonzero(self.folds != fold)
        groups = [self.groups[row] for row in train.tolist()]
        inner = np.full(len(self.y_true), -1, dtype=np.int64)
        count = min(count, len(set(groups)))
        if count >= 2:
            inner[train] = make_folds(self.y_true[train], groups, count, self.seed, self.split_task)
        return inner

    def score(self, rows: NDArray[np.bool_], outputs: F64) -> float:
        """The task's primary metric of the predicted clips of `rows`."""
        return self.task.primary(self.y_true[rows], outputs[rows])


def partition(folds: Ints) -> Ints:
    """int64 (clips,): folds numbered as they first appear, so that their order is no matter."""
    _, first, which = np.unique(folds, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which.reshape(-1)].astype(np.int64)
