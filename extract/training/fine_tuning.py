"""Fine-tuning of one net, with early stopping on held-out groups of its training clips.

PL20 3.3 and 3.5 fine-tune every net on the emotion clips before its features are taken;
optimizers and rates are those of PL20 Table 2. Which clips a net may see is the caller's
business (`mvemo.extract.training.protocols`); this module never looks at any other.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.base import Net
from mvemo.extract.training.batches import RawBatches, cut
from mvemo.extract.training.checkpoints import JobFolder
from mvemo.extract.training.losses import Loss, make_loss
from mvemo.extract.training.plan import TrainSettings

Curve = dict[str, list[float]]
# Seconds between two saved states of a run: a state of a large net takes a while to write.
STATE_INTERVAL = 20.0
# Points at most that a curve by iterations has; with more steps, every so many is kept.
MOST_POINTS = 5000


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def place(net: Net, device: torch.device) -> Net:
    """Move a net to its device, in the memory layout that its convolutions are fast in."""
    layout = torch.channels_last_3d if net.modality == "video" else torch.contiguous_format
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=layout)
    return net.to(device)


def last_features(net: Net, x: Tensor) -> Tensor:
    """What enters the classifier in a forward pass of a prepared batch, (batch, dim).

    Some nets drop out between their embedding and the classifier, so this is not
    `Net.embed`; the losses want exactly the last layer's input.
    """
    seen: list[Tensor] = []
    handle = net.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        net(x)
    finally:
        handle.remove()
    return seen[-1]


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
    labels: NDArray[np.int64] | NDArray[np.float64],
    *,
    task: str,
    train_rows: Sequence[int],
    val_rows: Sequence[int],
    settings: TrainSettings,
    seed: int,
    device: torch.device,
    precision: str,
    folder: JobFolder,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Curve:
    """Train `net` in place and leave it with its best weights.

    With ``patience = 0`` it is left with its last ones, and `val_rows` decide nothing.

    Parameters
    ----------
    net
        Already on `device`.
    batches
        Decoded media by manifest row.
    labels
        Of all manifest rows, by task; only those of the given rows are read.
    train_rows, val_rows
        Rows that gradients come from, and rows that decide when to stop. Their groups
        must be disjoint. Without validation rows `settings.patience` must be 0.
    seed
        Of batch order and dropout. Each epoch draws from its own stream, so that a run
        that was cut off and resumed ends as one that was not.
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
    BadSetting
        Early stopping without validation rows.
    """
    if settings.patience and not len(val_rows):
        raise BadSetting("early stopping needs validation clips: set patience = 0, or hold out")
    target = torch.from_numpy(labels)
    optimizer = make_optimizer(net, settings)
    curve: Curve = {"epoch": [], "train_loss": [], "val_loss": [], "val_accuracy": []}
    if settings.iterations:
        curve |= {"iteration": [], "iteration_loss": []}
    steps = steps_per_epoch(settings, len(train_rows))
    epochs = n_epochs(settings, len(train_rows))
    last = net.classifier
    loss = make_loss(settings.loss, task, last.out_features, last.in_features, tau=settings.tau)
    loss.to(device).constrain(last)
    best = copy.deepcopy(net.state_dict())
    best_loss, since_best, first = math.inf, 0, 1
    state = folder.load_state()
    if state is not None:
        net.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        loss.load_state_dict(state["loss"])
        best, curve = state["best"], state["curve"]
        best_loss, since_best = state["best_loss"], state["since_best"]
        first = state["epoch"] + 1
    saved_at = time.monotonic()
    for epoch in range(first, epochs + 1):
        if settings.patience and since_best >= settings.patience:
            break
        torch.manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(train_rows)).tolist()
        shuffled = [train_rows[i] for i in order]
        groups = _batches(shuffled, settings.batch_size)
        done = (epoch - 1) * steps
        if settings.iterations:
            groups = groups[: settings.iterations - done]
        losses = _train_epoch(net, batches, target, groups, loss, optimizer, device, precision)
        sizes = [len(group) for group in groups]
        train_loss = sum(a * n for a, n in zip(losses, sizes, strict=True)) / max(sum(sizes), 1)
        if settings.iterations:
            every = math.ceil(settings.iterations / MOST_POINTS)
            for step, value in enumerate(losses, done + 1):
                if step % every == 0:
                    curve["iteration"].append(float(step))
                    curve["iteration_loss"].append(value)
        val_loss = accuracy = math.nan
        if len(val_rows):
            val_loss, accuracy = score(
                net, batches, target, val_rows, task, loss, settings.batch_size, device, precision
            )
        curve["epoch"].append(float(epoch))
        curve["train_loss"].append(train_loss)
        curve["val_loss"].append(val_loss)
        curve["val_accuracy"].append(accuracy)
        if not settings.patience:
            if epoch == epochs:
                best = net.state_dict()
        elif val_loss < best_loss:
            best_loss, since_best = val_loss, 0
            best = copy.deepcopy(net.state_dict())
        else:
            since_best += 1
        if time.monotonic() - saved_at > STATE_INTERVAL:
            folder.save_state(
                {
                    "weights": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "loss": loss.state_dict(),
                    "best": best,
                    "curve": curve,
                    "best_loss": best_loss,
                    "since_best": since_best,
                    "epoch": epoch,
                }
            )
            saved_at = time.monotonic()
        if on_epoch is not None:
            on_epoch(epoch, val_loss)
    net.load_state_dict(best)
    return curve


def n_epochs(settings: TrainSettings, n_rows: int) -> int:
    """Epochs at most that a number of training clips is trained for."""
    if not settings.iterations:
        return settings.epochs
    return math.ceil(settings.iterations / steps_per_epoch(settings, n_rows))


def steps_per_epoch(settings: TrainSettings, n_rows: int) -> int:
    """Optimizer steps of a whole epoch, one at least."""
    return max(len(_batches(range(n_rows), settings.batch_size)), 1)


def _batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows in the batches of an epoch."""
    groups = cut(rows, batch_size)
    # Batch normalisation cannot work on one clip: a last batch of one joins the one before.
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _train_epoch(
    net: Net,
    batches: RawBatches,
    target: Tensor,
    groups: Sequence[Sequence[int]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    precision: str,
) -> list[float]:
    """One step on each batch, in order; the loss of each, before its step."""
    net.train()
    losses = []
    for chosen, raw in batches.ahead(groups):
        wanted = target[list(chosen)].to(device)
        with autocast(device, precision):
            x = last_features(net, net.prepare(raw.to(device, non_blocking=True)))
            value = loss(x, net.classifier, wanted)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        loss.update(x, wanted)
        loss.constrain(net.classifier)
        losses.append(value.item())
    return losses


@torch.no_grad()
def score(
    net: Net,
    batches: RawBatches,
    target: Tensor,
    rows: Sequence[int],
    task: str,
    loss: Loss,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> tuple[float, float]:
    """Mean loss and, for classes, accuracy of `net` on the rows, in evaluation mode."""
    net.eval()
    total, right = 0.0, 0
    for chosen, raw in batches.ahead(cut(rows, batch_size)):
        wanted = target[list(chosen)].to(device)
        with autocast(device, precision):
            x = last_features(net, net.prepare(raw.to(device, non_blocking=True)))
            total += loss(x, net.classifier, wanted).item() * len(chosen)
            if task == "multiclass":
                right += int((loss.logits(x, net.classifier).argmax(1) == wanted).sum())
    count = max(len(rows), 1)
    return total / count, right / count if task == "multiclass" else math.nan
