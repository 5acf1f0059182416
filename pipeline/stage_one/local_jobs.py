"""Tasks spread over processes of this machine: cores divided, or a GPU each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mvemo.extract.settings import RunSettings
from mvemo.extract.training.devices import pick_device
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call
from mvemo.pipeline.stage_one.ahead import TASKS, thread_variables
from mvemo.pipeline.stage_one.tasks import Finished, Note, Task

_DO = f"{TASKS}:do_task"


def job_environments(jobs: int, run: RunSettings) -> list[dict[str, str]]:
    """Variables of each process: its threads, so that all together have the cores, and its GPU.

    Examples
    --------
    >>> settings = RunSettings(device="cpu")
    >>> len({environment["OMP_NUM_THREADS"] for environment in job_environments(2, settings)})
    1
    """
    environments = [thread_variables(jobs) for _ in range(jobs)]
    if pick_device(run.device).type == "cuda":
        gpus = visible_gpus()
        for i, environment in enumerate(environments):
            environment["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
    return environments


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if named:
        return [name.strip() for name in named.split(",")][: torch.cuda.device_count()]
    return [str(i) for i in range(torch.cuda.device_count())]


def do_locally(
    tasks: Sequence[Task], jobs: int, run: RunSettings, note: Note
) -> Iterator[tuple[Task, Finished | BaseException]]:
    """Yield each task with what came of it, or its error, as they end; `jobs` at a time.

    `note` is told how far a training is, and how many clips are done more.
    """
    calls = [Call(_DO, (task,), parts=True) for task in tasks]
    for outcome in run_calls(calls, environments=job_environments(jobs, run)):
        if not outcome.last:
            note(outcome.value)
        elif outcome.error is not None:
            yield tasks[outcome.index], outcome.error
        else:
            yield tasks[outcome.index], outcome.value
