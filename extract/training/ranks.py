"""Training of one net by several processes, which ``torchrun`` starts.

Each process computes its part of every batch. Gradients and the statistics of batch
normalisation are those of the whole batch, so all ranks have the same weights after each step.
The net equals that of a single process, except for the order of sums and for random draws
(dropout, augmentation, mixup).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from mvemo.manifests.errors import BadOption, MvemoError

T = TypeVar("T")

# Environment variables that torchrun sets for each process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Timeout of a collective operation: other ranks wait while rank 0 reads and embeds clips.
_PATIENCE = timedelta(days=30)


class Ranks:
    """Rank of this process, and operations over all ranks."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number = number  # from 0; rank 0 writes files
        self.count = count

    @property
    def is_writer(self) -> bool:
        """Return True for rank 0, the only rank that writes files."""
        return self.number == 0

    def part(self, batch: Sequence[T]) -> list[T]:
        """Return this rank's part of a batch; all of it if there are fewer clips than ranks."""
        if len(batch) < self.count:
            return list(batch)
        least, more = divmod(len(batch), self.count)
        start = self.number * least + min(self.number, more)
        return list(batch[start : start + least + (self.number < more)])

    def weight(self, n_clips: int) -> float:
        """Return the weight of this rank's loss in the mean loss of the batch; all add up to 1."""
        return 1 / self.count if n_clips < self.count else len(self.part(range(n_clips))) / n_clips

    def add(self, value: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all ranks."""
        if self.count == 1:
            return
        # A parameter without a gradient on one rank may have one on another.
        used = [p for p in parameters if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used]
        )
        dist.all_reduce(flat)
        for p, values in zip(used, torch.split(flat, [p.numel() for p in used]), strict=True):
            p.grad = values.view(p.shape).clone(memory_format=torch.preserve_format)

    def gather(self, rows: Tensor, n_clips: int) -> Tensor:
        """Return the rows of all ranks' parts of a batch, in the order of the batch."""
        if self.count == 1 or n_clips < self.count:
            return rows
        whole = rows.new_zeros((n_clips, *rows.shape[1:]))
        whole[self.part(range(n_clips))] = rows
        return self.add(whole)

    def wait(self) -> None:
        """Wait until all ranks reach this call."""
        if self.count > 1:
            dist.barrier()

    def require_same(self, found: bool, what: str) -> None:
        """Raise `MvemoError` if only some of the ranks found `what`."""
        device = "cuda" if self.count > 1 and dist.get_backend() == "nccl" else "cpu"
        if self.add(torch.tensor(int(found), device=device)).item() not in (0, self.count):
            raise MvemoError(
                f"{what} exists for some processes but not for others: all processes must share "
                "one working folder (--work)"
            )

    @contextmanager
    def shared_norms(self, net: nn.Module) -> Iterator[None]:
        """Let batch normalisation use all ranks' clips inside this context manager."""
        norms = {
            name: module
            for name, module in net.named_modules()
            if self.count > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm)
        }
        for name, module in norms.items():
            net.set_submodule(name, SharedNorm(module))
        try:
            yield
        finally:
            for name, module in norms.items():
                net.set_submodule(name, module.train(net.get_submodule(name).training))


class SharedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all ranks' clips (Ioffe & Szegedy 2015), with shared weights."""

    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(self, replaced: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum)
        self._parameters, self._buffers = replaced._parameters, replaced._buffers
        self.train(replaced.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the statistics of all ranks' clips; in evaluation by running statistics."""
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        total: Any = _Sum.apply
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        full = x.float()
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        dist.all_reduce(count)
        mean: Tensor = total(full.sum(axes)) / count
        centred = full - mean.view(shape)
        variance: Tensor = total(centred.square().sum(axes)) / count
        self._update(mean.detach(), variance.detach() * count / (count - 1))
        y: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics as torch does; `variance` is unbiased."""
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """Sum over all ranks, whose gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


_CURRENT: ContextVar[Ranks] = ContextVar("ranks")


def current_ranks() -> Ranks:
    """Return the ranks of `joined_ranks`, or a single rank outside of it."""
    return _CURRENT.get(Ranks())


def started_together() -> bool:
    """Return True if ``torchrun`` started this process together with others."""
    return all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def assists() -> bool:
    """Return True if this process only helps rank 0 with training."""
    return started_together() and os.environ["RANK"] != "0"


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the other processes of ``torchrun`` inside this context manager; yield the ranks."""
    if not started_together():
        yield Ranks()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        local, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= n_gpus:
            raise BadOption(
                f"process {local + 1} on this machine has no GPU, because there are only {n_gpus}: "
                f"use torchrun --nproc-per-node {n_gpus}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    token = _CURRENT.set(ranks)
    try:
        yield ranks
    finally:
        _CURRENT.reset(token)
        dist.destroy_process_group()
