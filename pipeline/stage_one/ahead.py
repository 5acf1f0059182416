"""Worker processes that start before their tasks are known.

Importing torch takes seconds. Workers import it while the command imports it, reads its settings
and plans, so this module must not import any of that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mvemo.extract.workers.pool import cores, start_workers, stop_workers

TASKS = "mvemo.pipeline.stage_one.tasks"


def thread_variables(jobs: int) -> dict[str, str]:
    """Return the variables that give each of `jobs` processes its share of the cores as threads.

    A smaller number of threads that the user has set is kept. LOKY_MAX_CPU_COUNT is what `cores`
    returns in the process, which limits the threads of decoders.

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
    """Return the threads of torch in each of `jobs` processes; 0 means those of this process."""
    return int(thread_variables(jobs)["OMP_NUM_THREADS"]) if jobs > 1 else 0


def _threads_set(name: str) -> int:
    """Return the threads that the environment sets for a library or for OpenMP; 0 if none."""
    # OpenMP allows a list with one number for each nesting level.
    value = os.environ.get(name, os.environ.get("OMP_NUM_THREADS", "")).partition(",")[0].strip()
    return int(value) if value.isdecimal() else 0


@contextmanager
def processes_ahead(jobs: int) -> Iterator[None]:
    """Start the processes of several jobs; stop the unused ones at the end."""
    if jobs == 1:
        yield
        return
    variables = thread_variables(jobs)
    # There may be more jobs than cores.
    start_workers(min(jobs, cores()), TASKS, variables)
    try:
        yield
    finally:
        stop_workers(variables)
