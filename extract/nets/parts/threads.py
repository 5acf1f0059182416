"""Threads of a CPU for inference: each embeds parts of a batch on its own core.

Torch's own threads would share each matrix product. Many small ones are slower that way, very slow
while other programs run, and their rounding would depend on the number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Barrier

import torch
from torch import Tensor

# Maximum number of threads of a CPU, each of which takes memory for its own windows.
MOST_THREADS = 16


@cache
def cpu_threads(n: int) -> ThreadPoolExecutor:
    """Return a pool of `n` threads, in each of which torch uses one core."""
    before, all_started = torch.get_num_threads(), Barrier(n)

    def use_one_core(_: int) -> None:
        # On its first call in a thread, torch takes over the number of threads of the process.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_started.wait()

    pool = ThreadPoolExecutor(n, "mvemo-net")
    list(pool.map(use_one_core, range(n)))
    # New threads take the number that was set last.
    torch.set_num_threads(before)
    return pool


# Number of threads of `map_parts`; 0 for those of torch.
_part_threads: ContextVar[int] = ContextVar("part_threads", default=0)


@contextmanager
def only_parts_in_threads() -> Iterator[None]:
    """Let torch use one thread, so that only the parts of `map_parts` have threads."""
    n = torch.get_num_threads()
    if n == 1:
        yield
        return
    token = _part_threads.set(n)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
        _part_threads.reset(token)


def map_parts(embed: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Return the joined results of a function of tensors on a CPU, computed by its threads."""
    # Without inference mode, or with autocast, this thread computes all parts.
    n = min(_part_threads.get() or torch.get_num_threads(), MOST_THREADS)
    shared = torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
    if n == 1 or len(parts) == 1 or not shared:
        return torch.cat([embed(part) for part in parts])
    return torch.cat(list(cpu_threads(n).map(torch.inference_mode()(embed), parts)))
