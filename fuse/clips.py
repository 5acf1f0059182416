"""The clips of an evaluation: labels, groups and folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import F64, Bools, Ints, Link
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import labels as manifest_labels
from mvemo.manifests import make_folds


@dataclass(frozen=True)
class Clips:
    """Labels, groups and folds of an evaluation's clips.

    Parameters
    ----------
    task
        Task of the labels (`mvemo.fuse.task_of`).
    y_true
        Labels: int64 (clips,) of classes, int64 (clips, tags) of 0 and 1, or float64
        (clips, targets).
    groups
        Group of each clip.
    folds
        int64 (clips,): the fold that tests each clip; -1 for clips that are only trained on.
    n_outputs
        Number of classes, tags or targets.
    seed
        Seed of the inner folds.
    """

    task: Task
    y_true: NDArray[Any]
    groups: tuple[str, ...]
    folds: Ints
    n_outputs: int
    seed: int = 0

    @property
    def link(self) -> Link:
        """Return the link of the heads (`mvemo.fuse.Head`)."""
        return self.task.link

    @property
    def target(self) -> NDArray[np.float32]:
        """Return the targets, float32 (outputs, clips): one-hot classes, tags, or values."""
        return self.task.target(self.y_true, self.n_outputs)

    def inner_folds(self, fold: int, count: int) -> Ints:
        """Return folds of the training clips of `fold`, int64 (clips,), -1 for all other clips.

        Groups stay whole. All are -1 if the training clips are of one group.
        """
        train = np.flatnonzero(self.folds != fold)
        groups = [self.groups[row] for row in train.tolist()]
        inner = np.full(len(self.y_true), -1, dtype=np.int64)
        count = min(count, len(set(groups)))
        if count >= 2:
            task = cast(manifest_labels.Task, self.task.name)
            inner[train] = make_folds(self.y_true[train], groups, count, self.seed, task)
        return inner

    def score(self, rows: NDArray[np.bool_], outputs: F64) -> float:
        """Return the task's primary metric on the clips of `rows`."""
        return self.task.primary(self.y_true[rows], outputs[rows])


def leave_each_out(folds: Ints) -> list[tuple[Bools, Bools]]:
    """Return, for each fold, masks of the clips of all other folds and of its own; -1 is none."""
    return [((folds >= 0) & (folds != fold), folds == fold) for fold in range(int(folds.max()) + 1)]
