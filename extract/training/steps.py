"""Training job, and its optimizer steps, in parts if the device's memory is too small."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvemo.extract.nets.parts.base import Net
from mvemo.extract.settings import RecipeSettings, TrainSettings
from mvemo.extract.training import devices, losses, recipe
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.errors import BadOption, MvemoError

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingJob:
    """Everything that determines a fine-tuning, except the net and the media."""

    label: str  # name of the job in messages: ``i3d@fold0``
    # Labels of all manifest rows, by task: int64 (clips,) or (clips, tags), float64 (clips,
    # targets). Only the labels of the job's rows are read.
    y_true: Ints | F64
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
    compiled: bool = False  # True to compile the training step

    def __post_init__(self) -> None:
        if self.settings.patience and not len(self.val_rows):
            raise BadOption(
                f"{self.label}: early stopping needs validation clips: set patience = 0, or hold "
                "out some clips"
            )

    @property
    def epochs(self) -> int:
        """Maximum number of epochs; early stopping may end sooner."""
        return self.settings.max_epochs(len(self.train_rows))

    @property
    def steps(self) -> int:
        """Maximum number of optimizer steps."""
        return self.settings.iterations or self.steps_before(self.epochs + 1)

    def steps_before(self, epoch: int) -> int:
        """Return the number of optimizer steps before an epoch, counted from 1."""
        return (epoch - 1) * self.settings.steps_per_epoch(len(self.train_rows))


# Memory of a step divided by the memory of its forward pass; it includes gradients and gaps.
_MEMORY_FACTOR = 1.5


class NetLoss(nn.Module):
    def __init__(self, net: Net, loss: losses.Loss) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.features(x)
        return self.loss(features, self.net.classifier, target), features


class Stepper:
    """Optimizer steps; a batch that does not fit into memory is split into `n_parts` parts.

    Its gradient equals the gradient of the whole batch, except for the statistics of batch norms.
    """

    def __init__(self, net: Net, job: TrainingJob) -> None:
        self.net = net
        self.job = job
        self.settings: TrainSettings = job.settings
        self.recipe: RecipeSettings = job.settings.recipe
        self.n_parts: int = 1
        self.device: torch.device = net.classifier.weight.device
        # Only a GPU reports that memory is exhausted; otherwise the system kills the process.
        self._is_measured = self.device.type != "cpu"
        self.optimizer: torch.optim.Optimizer = recipe.make_optimizer(net, self.settings)
        n_outputs, dim = net.classifier.weight.shape
        tau = self.settings.tau
        self.loss: losses.Loss = losses.make_loss(self.settings.loss, job.task, n_outputs, dim, tau)
        module = NetLoss(net, self.loss)
        self._module: nn.Module = torch.compile(module) if job.compiled else module  # type: ignore[assignment]

    def step(self, raw: Tensor, target: Tensor) -> Tensor:
        """Train on a batch; return the mean loss before the step."""
        if not self._is_measured:
            self._is_measured = True
            self._choose_n_parts(raw)
        while True:
            try:
                value, features = self._accumulate(raw, target)
                break
            except torch.OutOfMemoryError:
                self._divide(len(raw))
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if type(self.loss).update is not losses.Loss.update:
            self.loss.update(features, target)
        self.loss.constrain(self.net.classifier)
        return value

    def _accumulate(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch, in `n_parts` parts."""
        self.optimizer.zero_grad(set_to_none=True)
        values, features = [], []
        for part, y in zip(raw.tensor_split(self.n_parts), target.tensor_split(self.n_parts),
                           strict=True):  # fmt: skip
            value, x = self._forward(part.to(self.device, non_blocking=True), y)
            value = value * (len(part) / len(raw))
            torch.autograd.backward(value)
            values.append(value.detach())
            features.append(x.detach())
        return torch.stack(values).sum(), torch.cat(features)

    def _forward(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.recipe.augment:
            raw = recipe.augment(raw)
        with devices.autocast(self.device, self.job.precision):
            x = self.net.prepare(raw)
            if not self.recipe.mixup:
                value, features = self._module(x, target)
                return value, features
            # Zhang et al. 2018: one share per batch, and the loss for the labels of both clips.
            # The share is a number, because copying a tensor to the device would block.
            share = float(torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample())
            other = torch.randperm(len(x), device=self.device)
            mixed = share * x + (1 - share) * x[other]
            value, features = self._module(mixed, target)
            second = self.loss(features, self.net.classifier, target[other])
            return share * value + (1 - share) * second, features

    def _choose_n_parts(self, raw: Tensor) -> None:
        available, n_clips = devices.available_memory(), len(raw)
        if not available or not self._can_be_divided(n_clips):
            return
        needed = _MEMORY_FACTOR * devices.saved_bytes(self.net, raw[:2]) * n_clips / 2
        while needed > available * self.n_parts and self._can_be_divided(n_clips):
            self.n_parts *= 2
        if self.n_parts > 1:
            self._warn_of_parts(n_clips)

    def _divide(self, n_clips: int) -> None:
        """Halve the number of clips per part; raise `MvemoError` if two clips do not fit."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        if not self._can_be_divided(n_clips):
            raise MvemoError(
                f"{self.job.label}: the memory of {devices.memory_text(self.device)} is too small "
                f"to train on 2 clips at once (batch_size is {self.settings.batch_size}): use a "
                f"larger GPU, shorter or smaller inputs (nets.{self.net.name}.options), or "
                "--set extract.device=cpu"
            ) from None
        self.n_parts *= 2
        self._warn_of_parts(n_clips)

    def _can_be_divided(self, n_clips: int) -> bool:
        # Batch normalisation needs two clips.
        return n_clips // (2 * self.n_parts) >= 2

    def _warn_of_parts(self, n_clips: int) -> None:
        warnings.warn(
            f"{self.job.label}: a batch of {n_clips} clips does not fit into the device's memory: "
            f"it is now computed in {self.n_parts} parts",
            stacklevel=4,
        )


def set_determinism(deterministic: bool) -> None:
    """Let cuDNN use reproducible kernels if `deterministic`, otherwise its fastest ones."""
    # Changing the setting loads torch's compiler, which takes seconds.
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


def to_floats(values: Sequence[Tensor]) -> list[float]:
    """Return scalars on a device as numbers, waiting for the device only once."""
    return torch.stack(list(values)).tolist() if values else []
