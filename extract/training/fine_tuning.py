"""Fine-tuning of one net, with early stopping on validation groups of its training clips.

PL20 3.3 and 3.5 fine-tune every net on the emotion clips before its features are taken;
optimizers and rates are those of PL20 Table 2. Which clips a net may see is the caller's
business (`mvemo.extract.training.protocols`); this module never looks at any other.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvemo.extract.arrays import F64, I64
from mvemo.extract.errors import BadSetting, TrainingDiverged
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.batches import RawBatches, split_rows
from mvemo.extract.training.checkpoints import JobFolder
from mvemo.extract.training.devices import autocast
from mvemo.extract.training.losses import make_loss

Curve = dict[str, list[float]]
# Seconds between two saved states of a run: a state of a large net takes a while to write.
STATE_INTERVAL = 20.0
# Points at most that a curve by iterations has; with more steps, some are left out.
MAX_POINTS = 5000


@dataclass(frozen=True)
class TrainingJob:
    """All that decides a fine-tuning, but the net and the media.

    Parameters
    ----------
    label
        Names the job in messages: ``i3d@fold0``.
    y_true
        Labels of all manifest rows, by task: int64 (clips,) or (clips, tags), float64
        (clips, targets). Only those of the job's rows are read.
    task
        ``multiclass``, ``multilabel`` or ``regression``.
    train_rows, val_rows
        Rows that gradients come from, and rows that decide when to stop. Their groups must
        be disjoint. Without validation rows `settings.patience` must be 0.
    settings
        Of the training.
    seed
        Of batch order and dropout. Each epoch draws from a stream of its own, so that a run
        that was interrupted and resumed ends as one that was not.
    precision
        ``float32``, or ``bf16`` for mixed precision.

    Raises
    ------
    BadSetting
        Early stopping without validation rows.
    """

    label: str
    y_true: I64 | F64
    task: str
    train_rows: Sequence[int]
    val_rows: Sequence[int]
    settings: TrainSettings
    seed: int
    precision: str = "float32"

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


def last_features(net: Net, x: Tensor) -> Tensor:
    """What enters the classifier in a forward pass of a prepared batch, (batch, dim).

    Some nets have a dropout between their embedding and the classifier, so this is not
    `Net.embed`; the losses need exactly the last layer's input.
    """
    inputs: list[Tensor] = []
    handle = net.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return inputs[-1]


def make_optimizer(net: Net, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of PL20 Table 2 that the settings name."""
    weights = [p for p in net.parameters() if p.requires_grad]
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=settings.lr, momentum=settings.momentum, weight_decay=decay
        )
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=settings.lr, weight_decay=decay)
    return torch.optim.Adam(weights, lr=settings.lr, weight_decay=decay)


def fine_tune(
    net: Net,
    batches: RawBatches,
    job: TrainingJob,
    folder: JobFolder,
    *,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Curve:
    """Train `net` in place and leave it with its best weights.

    With ``patience = 0`` it is left with its last ones, and validation rows decide nothing.

    Parameters
    ----------
    net
        On the device to train on.
    batches
        Decoded media by manifest row.
    job
        Rows, labels, settings and seed.
    folder
        Where the state of the run is kept, at most every `STATE_INTERVAL` seconds.
    on_epoch
        Told the epoch, from 1, and its validation loss (NaN without validation rows).

    Returns
    -------
    ``epoch``, ``train_loss``, ``val_loss`` and ``val_accuracy`` (NaN but for classes, and
    without validation rows). With ``settings.iterations`` also ``iteration``, from 1, and
    ``iteration_loss``, the loss of that step's batch.

    Raises
    ------
    TrainingDiverged
        No epoch had a finite validation loss, or, without early stopping, the last weights
        are not finite.
    """
    trainer = Trainer(net, batches, job)
    run = trainer.resume(folder)
    patience = job.settings.patience
    saved_at = time.monotonic()
    for epoch in range(run.epoch + 1, job.epochs + 1):
        if patience and run.since_best >= patience:
            break
        trainer.run_epoch(epoch, run)
        trainer.check_finite(run)
        if time.monotonic() - saved_at > STATE_INTERVAL:
            folder.save_state(trainer.state(run))
            saved_at = time.monotonic()
        if on_epoch is not None:
            on_epoch(epoch, run.curve["val_loss"][-1])
    if patience:
        if math.isinf(run.best_loss):
            raise trainer.divergence(run)
        net.load_state_dict(run.best)
    return run.curve


@dataclass
class TrainingRun:
    """How far a fine-tuning has come.

    Parameters
    ----------
    best
        The net's ``state_dict`` of the lowest validation loss.
    curve
        As `fine_tune` returns it.
    best_loss
        The lowest validation loss, infinite before the first.
    since_best
        Epochs since then.
    epoch
        The last one that ended, from 1.
    """

    best: dict[str, Any]
    curve: Curve
    best_loss: float = math.inf
    since_best: int = 0
    epoch: int = 0


class Trainer:
    """The steps of fine-tuning: epochs of training, scoring, saving and resuming.

    Parameters
    ----------
    net, batches, job
        As of `fine_tune`.
    """

    def __init__(self, net: Net, batches: RawBatches, job: TrainingJob) -> None:
        self.net = net
        self.batches = batches
        self.job = job
        self.target = torch.from_numpy(job.y_true)
        self.device = net.classifier.weight.device
        self.optimizer = make_optimizer(net, job.settings)
        last, settings = net.classifier, job.settings
        self.loss = make_loss(
            settings.loss, job.task, last.out_features, last.in_features, tau=settings.tau
        )
        self.loss.to(self.device).constrain(last)

    def resume(self, folder: JobFolder) -> TrainingRun:
        """The run that the folder's state was saved of, else one at its start."""
        curve: Curve = {"epoch": [], "train_loss": [], "val_loss": [], "val_accuracy": []}
        if self.job.settings.iterations:
            curve |= {"iteration": [], "iteration_loss": []}
        state = folder.load_state()
        if state is None:
            return TrainingRun(copy.deepcopy(self.net.state_dict()), curve)
        self.net.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        return TrainingRun(
            state["best"], state["curve"], state["best_loss"], state["since_best"], state["epoch"]
        )

    def state(self, run: TrainingRun) -> dict[str, Any]:
        """All that `resume` needs to go on from here."""
        return {
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            "best": run.best,
            "curve": run.curve,
            "best_loss": run.best_loss,
            "since_best": run.since_best,
            "epoch": run.epoch,
        }

    def run_epoch(self, epoch: int, run: TrainingRun) -> None:
        """Train one epoch, score the validation rows, and note both in `run`."""
        groups = self._batch_rows(epoch)
        losses = self.train_batches(groups)
        sizes = [len(group) for group in groups]
        train_loss = sum(a * n for a, n in zip(losses, sizes, strict=True)) / max(sum(sizes), 1)
        val_loss = accuracy = math.nan
        if len(self.job.val_rows):
            val_loss, accuracy = self.score(self.job.val_rows)
        self._note_iterations(epoch, losses, run.curve)
        for name, value in (
            ("epoch", float(epoch)),
            ("train_loss", train_loss),
            ("val_loss", val_loss),
            ("val_accuracy", accuracy),
        ):
            run.curve[name].append(value)
        run.epoch = epoch
        if not self.job.settings.patience:
            return
        if val_loss < run.best_loss:
            run.best_loss, run.since_best = val_loss, 0
            run.best = copy.deepcopy(self.net.state_dict())
        else:
            run.since_best += 1

    def _batch_rows(self, epoch: int) -> list[list[int]]:
        """Training rows of an epoch's batches, in an order of its own."""
        job = self.job
        torch.manual_seed(job.seed * 100_003 + epoch)
        order = torch.randperm(len(job.train_rows)).tolist()
        groups = _batches([job.train_rows[i] for i in order], job.settings.batch_size)
        if job.settings.iterations:
            groups = groups[: job.settings.iterations - self._steps_before(epoch)]
        return groups

    def _steps_before(self, epoch: int) -> int:
        return (epoch - 1) * steps_per_epoch(self.job.settings, len(self.job.train_rows))

    def _note_iterations(self, epoch: int, losses: Sequence[float], curve: Curve) -> None:
        iterations = self.job.settings.iterations
        if not iterations:
            return
        interval = math.ceil(iterations / MAX_POINTS)
        for step, value in enumerate(losses, self._steps_before(epoch) + 1):
            if step % interval == 0:
                curve["iteration"].append(float(step))
                curve["iteration_loss"].append(value)

    def train_batches(self, groups: Sequence[Sequence[int]]) -> list[float]:
        """One step on each batch of rows, in order; the loss of each, before its step."""
        net = self.net
        net.train()
        losses = []
        for rows, raw in self.batches.ahead(groups):
            target = self.target[list(rows)].to(self.device)
            with autocast(self.device, self.job.precision):
                x = last_features(net, net.prepare(raw.to(self.device, non_blocking=True)))
                value = self.loss(x, net.classifier, target)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()
            self.loss.update(x, target)
            self.loss.constrain(net.classifier)
            losses.append(value.item())
        return losses

    @torch.no_grad()
    def score(self, rows: Sequence[int]) -> tuple[float, float]:
        """Mean loss and, for classes, accuracy of the net on rows, in evaluation mode."""
        net, loss = self.net, self.loss
        net.eval()
        total = n_right = 0.0
        for batch, raw in self.batches.ahead(split_rows(rows, self.job.settings.batch_size)):
            target = self.target[list(batch)].to(self.device)
            with autocast(self.device, self.job.precision):
                x = last_features(net, net.prepare(raw.to(self.device, non_blocking=True)))
                total += loss(x, net.classifier, target).item() * len(batch)
                n_right += loss.n_right(x, net.classifier, target)
        count = max(len(rows), 1)
        return total / count, n_right / count

    def check_finite(self, run: TrainingRun) -> None:
        """Raise `TrainingDiverged` once weights are lost, and no earlier ones were kept.

        A weight that is not finite never becomes finite again. Where an earlier epoch had a
        finite validation loss, its weights are kept, and training goes on to its end.
        """
        if self.job.settings.patience and math.isfinite(run.best_loss):
            return
        state = self.net.state_dict().values()
        if not all(bool(torch.isfinite(v).all()) for v in state if v.is_floating_point()):
            raise self.divergence(run)

    def divergence(self, run: TrainingRun) -> TrainingDiverged:
        """The error that says so."""
        lr = self.job.settings.lr
        return TrainingDiverged(
            f"{self.job.label}: training diverged: no finite loss by epoch {run.epoch} "
            f"(training {run.curve['train_loss'][-1]:g}, validation "
            f"{run.curve['val_loss'][-1]:g})",
            f"lower the learning rate, --set nets.{self.net.name}.lr={lr / 10:g} (it is {lr:g})",
        )


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
    return max(len(_batches(range(n_rows), settings.batch_size)), 1)


def _batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows in the batches of an epoch."""
    groups = split_rows(rows, batch_size)
    # Batch normalisation cannot work on one clip: a last batch of one joins the one before.
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups
