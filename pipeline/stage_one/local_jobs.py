"""Tasks in several processes of this machine, which divide its cores or have a GPU each."""

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
    """Return the environment variables of each process: its number of threads and its GPU.

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
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if named:
        return [name.strip() for name in named.split(",")][: torch.cuda.device_count()]
    return [str(i) for i in range(torch.cuda.device_count())]


def do_locally(
    tasks: Sequence[Task], jobs: int, run: RunSettings, note: Note
) -> Iterator[tuple[Task, Finished | BaseException]]:
    """Run `jobs` tasks at a time, and yield each with its result or error when it finishes.

    `note` is called with the state of a training, or with the number of further clips done.
    """
    calls = [Call(_DO, (task,), parts=True) for task in tasks]
    for outcome in run_calls(calls, environments=job_environments(jobs, run)):
        if not outcome.last:
            note(outcome.value)
        elif outcome.error is not None:
            yield tasks[outcome.index], outcome.error
        else:
            yield tasks[outcome.index], outcome.value
