"""Main memory during training: freed blocks, available memory, needs of a training step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mvemo.extract.nets.parts.base import Net

# Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of returning them; return True if it does.

    A training step frees and allocates the same large blocks again and again. By default glibc
    maps each block anew, and the system zeroes all its pages. Kept blocks make steps on a CPU
    two to three times as fast. The memory of the process then shrinks only when it ends.
    """
    mallopt = _glibc_function("mallopt")
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> bool:
    """Return freed memory to the system; return True if any was returned.

    Nets built to inspect their weights leave 150 MB, which readers of media can use.
    """
    trim = _glibc_function("malloc_trim")
    return bool(trim and trim(0))


def _glibc_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if this is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function


def available_memory() -> int | None:
    """Return the bytes of main memory available without swapping, or None if unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


@contextmanager
def recorded_storages(net: Net) -> Iterator[dict[int, int]]:
    """Record the tensors that passes inside the context keep for gradients, without the weights.

    The yielded dictionary maps the address of each block to its size in bytes.
    """
    sizes: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        yield sizes


def saved_bytes(net: Net, raw: Tensor) -> int:
    """Return the bytes that a forward pass over decoded clips keeps for gradients.

    The net and torch's random generator are not changed.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.random.fork_rng(devices=[]), recorded_storages(net) as sizes:
            # Bound to a name, so that the graph and the recorded blocks live until here.
            features = net.features(net.prepare(raw))
        del features
    finally:
        for module, training in modes:
            module.training = training
    return sum(sizes.values())
