"""Processes for tasks, begun before it is known what there is to do.

Importing torch takes seconds in each. They do it while the command that wants them imports it,
reads its settings and plans; so this module imports none of that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mvemo.extract.workers.pool import cores, start_workers, stop_workers

TASKS = "mvemo.pipeline.stage_one.tasks"


def thread_variables(jobs: int) -> dict[str, str]:
    """Variables of each of so many processes: its threads, so that all together have the cores.

    Where the user has set fewer threads, it has those. The last variable is what `cores` is
    there: decoders have no more threads than that.

    Examples
    --------
    >>> thread_variables(cores())["OMP_NUM_THREADS"]
    '1'
    """
    share = max(cores() // jobs, 1)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    threads = {name: str(min(share, _threads_set(name) or share)) for name in names}
    return {**threads, "LOKY_MAX_CPU_COUNT": str(share)}


def threads_of(jobs: int) -> int:
    """Threads that torch has in each of so many processes; 0 for those it has in this one."""
    return int(thread_variables(jobs)["OMP_NUM_THREADS"]) if jobs > 1 else 0


def _threads_set(name: str) -> int:
    """Threads that a library, or OpenMP for it, has by the environment; 0 where none are set."""
    # OpenMP's may be several, for parallel parts within parallel parts.
    value = os.environ.get(name, os.environ.get("OMP_NUM_THREADS", "")).partition(",")[0].strip()
    return int(value) if value.isdecimal() else 0


@contextmanager
def processes_ahead(jobs: int) -> Iterator[None]:
    """Begin processes of so many jobs, if there are several; end those that are not used."""
    if jobs == 1:
        yield
        return
    variables = thread_variables(jobs)
    # There may be fewer tasks than jobs, and more jobs than anybody has cores for.
    start_workers(min(jobs, cores()), TASKS, variables)
    try:
        yield
    finally:
        stop_workers(variables)
