"""What one fine-tuning is given, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvemo.extract.arrays import F64, I64
from mvemo.extract.errors import BadSetting
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.batches import split_rows

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingJob:
    """All that decides a fine-tuning, but the net and the media."""

    label: str  # names the job in messages: ``i3d@fold0``
    # Labels of all manifest rows, by task: int64 (clips,) or (clips, tags), float64 (clips,
    # targets). Only those of the job's rows are read.
    y_true: I64 | F64
    task: str  # ``multiclass``, ``multilabel`` or ``regression``
    # Rows that gradients come from, and rows that decide when to stop. Their groups must be
    # disjoint. Without validation rows `settings.patience` must be 0.
    train_rows: Sequence[int]
    # Rows that gradients come from, and rows that decide when to stop. Their groups must be
    # disjoint. Without validation rows `settings.patience` must be 0.
    val_rows: Sequence[int]
    settings: TrainSettings  # of the training
    # Of batch order and dropout. Each epoch draws from a stream of its own, so that a run
    # that was interrupted and resumed ends as one that was not.
    seed: int
    precision: str = "float32"  # ``float32``, or ``bf16`` for mixed precision
    compiled: bool = False  # whether the net's step is compiled first

    def __post_init__(self) -> None:
        if self.settings.patience and not len(self.val_rows):
            raise BadSetting(
                f"{self.label}: early stopping needs validation clips: set patience = 0, or hold "
                "some out"
            )

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return n_epochs(self.settings, len(self.train_rows))

    @property
    def steps(self) -> int:
        """Optimizer steps at most."""
        if self.settings.iterations:
            return self.settings.iterations
        return self.epochs * steps_per_epoch(self.settings, len(self.train_rows))

    def steps_before(self, epoch: int) -> int:
        """Optimizer steps of the epochs before one, which count from 1."""
        return (epoch - 1) * steps_per_epoch(self.settings, len(self.train_rows))


@dataclass
class TrainingRun:
    """How far a fine-tuning has come."""

    best: dict[str, Any]  # the net's ``state_dict`` of the lowest validation loss
    curve: Curve  # as `mvemo.extract.training.fine_tuning.fine_tune` returns it
    best_loss: float = math.inf  # the lowest validation loss, infinite before the first
    since_best: int = 0  # epochs since then
    epoch: int = 0  # the last one that ended, from 1


def n_epochs(settings: TrainSettings, n_rows: int) -> int:
    """Epochs at most that a number of training clips is trained for.

    Examples
    --------
    >>> n_epochs(TrainSettings(iterations=9, batch_size=11), n_rows=45)
    3
    """
    if not settings.iterations:
        return settings.epochs
    return math.ceil(settings.iterations / steps_per_epoch(settings, n_rows))


def steps_per_epoch(settings: TrainSettings, n_rows: int) -> int:
    """Optimizer steps of a whole epoch, one at least."""
    return max(len(training_batches(range(n_rows), settings.batch_size)), 1)


def training_batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows in the batches of an epoch."""
    groups = split_rows(rows, batch_size)
    # Batch normalisation cannot work on one clip: a last batch of one joins the one before.
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups
