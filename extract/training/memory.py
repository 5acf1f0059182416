"""The main memory that training takes: kept between steps, and no more than there is."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mvemo.extract.nets.parts.base import Net

# mallopt's numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks instead of giving them back at once.

    A training step frees and makes the same large blocks over and over; glibc maps each
    anew, and the system zeroes every page of it. Kept blocks make steps on a CPU two to
    three times as fast; the process's memory then falls back only when it ends.
    """
    mallopt = _of_glibc("mallopt")
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> bool:
    """Give what is free now back to the system, as before others need much of it.

    Nets that were made to look at their weights leave 150 MB, which readers of media can use.
    """
    trim = _of_glibc("malloc_trim")
    return bool(trim and trim(0))


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, None where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function


def available_memory() -> int | None:
    """Bytes of main memory that can be had without swapping; None where it is not known."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


@contextmanager
def noted_storages(net: Net) -> Iterator[dict[int, int]]:
    """Note what passes within keep for their gradient, the net's weights left out."""
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
    """Bytes that a pass over decoded clips keeps for their gradient.

    The net, its weights and statistics and the random numbers to come stay as they are.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.random.fork_rng(devices=[]), noted_storages(net) as sizes:
            # Bound to a name: the graph, and with it all that is noted, lives until here.
            features = net.features(net.prepare(raw))
        del features
    finally:
        for module, training in modes:
            module.training = training
    return sum(sizes.values())
