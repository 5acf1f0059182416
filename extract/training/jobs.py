"""Job of one fine-tuning, and its progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvemo.extract.array_types import F64, I64
from mvemo.extract.errors import BadSetting
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.batches import split_rows

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingJob:
    """Everything that determines a fine-tuning, except the net and the media."""

    label: str  # name of the job in messages: ``i3d@fold0``
    # Labels of all manifest rows, by task: int64 (clips,) or (clips, tags), float64 (clips,
    # targets). Only the labels of the job's rows are read.
    y_true: I64 | F64
    task: str  # ``multiclass``, ``multilabel`` or ``regression``
    # Rows for the gradients, and rows for early stopping. Their groups must be disjoint.
    # Without validation rows `settings.patience` must be 0.
    train_rows: Sequence[int]
    val_rows: Sequence[int]
    settings: TrainSettings
    # Seed of batch order and dropout. Each epoch has its own stream of random numbers, so an
    # interrupted and resumed run gives the same result.
    seed: int
    precision: str = "float32"  # ``float32``, or ``bf16`` for mixed precision
    compiled: bool = False  # True to compile the net's step first

    def __post_init__(self) -> None:
        if self.settings.patience and not len(self.val_rows):
            raise BadSetting(
                f"{self.label}: early stopping needs validation clips: set patience = 0, or hold "
                "some out"
            )

    @property
    def epochs(self) -> int:
        """Maximum number of epochs; early stopping may end sooner."""
        return n_epochs(self.settings, len(self.train_rows))

    @property
    def steps(self) -> int:
        """Maximum number of optimizer steps."""
        if self.settings.iterations:
            return self.settings.iterations
        return self.epochs * steps_per_epoch(self.settings, len(self.train_rows))

    def steps_before(self, epoch: int) -> int:
        """Return the number of optimizer steps before an epoch, counted from 1."""
        return (epoch - 1) * steps_per_epoch(self.settings, len(self.train_rows))


@dataclass
class TrainingRun:
    """Progress of a fine-tuning."""

    best: dict[str, Any]  # ``state_dict`` of the net at the lowest validation loss
    curve: Curve  # see `mvemo.extract.training.fine_tuning.fine_tune`
    best_loss: float = math.inf  # lowest validation loss so far
    since_best: int = 0  # number of epochs since then
    epoch: int = 0  # last finished epoch, from 1


def n_epochs(settings: TrainSettings, n_rows: int) -> int:
    """Return the maximum number of epochs for a number of training clips.

    Examples
    --------
    >>> n_epochs(TrainSettings(iterations=9, batch_size=11), n_rows=45)
    3
    """
    if not settings.iterations:
        return settings.epochs
    return math.ceil(settings.iterations / steps_per_epoch(settings, n_rows))


def steps_per_epoch(settings: TrainSettings, n_rows: int) -> int:
    """Return the number of optimizer steps of a whole epoch, at least 1."""
    return max(len(training_batches(range(n_rows), settings.batch_size)), 1)


def training_batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Split rows into the batches of an epoch."""
    groups = split_rows(rows, batch_size)
    # Batch normalisation needs two clips, so a last batch of one joins the previous batch.
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups
