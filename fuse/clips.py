"""The clips of an evaluation: what heads are to predict, and who belongs together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.heads.solver import Link
from mvemo.fuse.metrics.calibration import log_loss, tag_log_loss
from mvemo.fuse.tasks.primary_metric import headline_score
from mvemo.manifests import make_folds
from mvemo.manifests.model import Task

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# What makes outputs of a head's scores.
LINKS: dict[str, Link] = {
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "identity",
}


@dataclass(frozen=True)
class Clips:
    """Labels, groups and folds of an evaluation's clips.

    Parameters
    ----------
    task
        ``multiclass``, ``multilabel`` or ``regression``.
    labels
        int64 (clips,) of classes, int64 (clips, tags) of 0 and 1, or float64
        (clips, dimensions).
    groups
        (clips,).
    folds
        int64 (clips,): the fold that each clip is tested in; -1 for those that train only.
    n_outputs
        Number of classes, tags or dimensions.
    seed
        Of inner folds.
    """

    task: str
    labels: NDArray[Any]
    groups: tuple[str, ...]
    folds: Ints
    n_outputs: int
    seed: int = 0

    @property
    def link(self) -> Link:
        """Of the heads: see `mvemo.fuse.Head`."""
        return LINKS[self.task]

    @property
    def target(self) -> NDArray[np.float32]:
        """float32 (outputs, clips): one-hot classes, tags, or values."""
        if self.task != "multiclass":
            return np.ascontiguousarray(self.labels.T, np.float32)
        made = np.zeros((self.n_outputs, len(self.labels)), np.float32)
        made[self.labels, np.arange(len(self.labels))] = 1.0
        return made

    def divisible(self, fold: int) -> bool:
        """Whether the training clips of `fold` are of two groups or more."""
        return len({self.groups[i] for i in np.flatnonzero(self.folds != fold).tolist()}) > 1

    def inner_folds(self, fold: int, count: int) -> Ints:
        """int64 (clips,): folds of the training clips of `fold`, groups whole; else -1.

        All are -1 where the training clips are of one group, which cannot be divided.
        """
        train = np.flatnonzero(self.folds != fold)
        groups = [self.groups[row] for row in train.tolist()]
        inner = np.full(len(self.labels), -1, dtype=np.int64)
        count = min(count, len(set(groups)))
        if count >= 2:
            inner[train] = make_folds(
                self.labels[train], groups, count, self.seed, cast(Task, self.task)
            )
        return inner

    def loss(self, rows: NDArray[np.bool_], outputs: F64) -> float:
        """What a choice on inner folds makes small; NaN without a prediction.

        Log loss of classes or tags; of dimensions the negative R2, their mean.

        Parameters
        ----------
        rows
            bool (clips,).
        outputs
            float64 (clips, outputs), NaN rows where not predicted.
        """
        labels, said = self.labels[rows], outputs[rows]
        if self.task == "multiclass":
            return log_loss(labels, said)
        if self.task == "multilabel":
            return tag_log_loss(labels, said)
        return -self.score(rows, outputs)

    def score(self, rows: NDArray[np.bool_], outputs: F64) -> float:
        """The task's primary metric of the predicted clips of `rows`."""
        held = rows & complete(outputs)
        return headline_score(self.task, self.labels[held], outputs[held])


def complete(values: F64) -> NDArray[np.bool_]:
    """bool (clips,): rows without NaN."""
    return np.asarray(np.isfinite(values).all(axis=1), dtype=np.bool_)


def partition(folds: Ints) -> Ints:
    """int64 (clips,): folds numbered as they first appear, so that their order is no matter."""
    _, first, which = np.unique(folds, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which.reshape(-1)].astype(np.int64)
