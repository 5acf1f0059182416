"""Backends that run the tasks of stage one.

Tasks run in worker processes on this machine, or on the workers of a Dask scheduler. Importing
torch takes seconds. Worker processes import it while the command imports it, reads its settings
and plans; to start them early, this module must not import torch.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

from mvemo.extract.errors import ClipFailed, TaskFailed, TrainingDiverged
from mvemo.extract.media.isolated import start_readers
from mvemo.extract.workers.pool import cores, run_calls, start_workers, stop_workers
from mvemo.extract.workers.process import Call, resolve
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import shown
from mvemo.manifests.plugins import packed_plugins, unpack_plugins
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.provenance import versions

TASKS = "mvemo.pipeline.stage_one.tasks"
DO_TASK = f"{TASKS}:do_task"
# Called with the state of a training, or with the number of newly finished clips.
Note = Callable[[str | float], object]
# Maximum number of processes to start before the number of clips is known.
MOST_READERS = 4
# Timeout in seconds for a Dask scheduler, and for its workers.
CONNECT_SECONDS = 10.0
# Maximum number of attempts at each task on Dask.
ATTEMPTS = 3
# Errors that would occur again, so the task is not repeated.
_FINAL = (TrainingDiverged, ClipFailed)
# Address with an optional protocol of Dask; the default is tcp.
_ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx|ws|wss)://)?(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})")


class RunTask(Protocol):
    """Part of the work of a run, which can be pickled."""

    @property
    def label(self) -> str:
        """Name of the task for messages."""


# A task with its result or its error.
Done = tuple[RunTask, Any]


@dataclass(frozen=True)
class Backend:
    """Function that runs tasks, in worker processes or on Dask."""

    # Yields tasks with their results as they finish, and calls `Note` with their progress.
    do: Callable[[Sequence[RunTask], Note], Iterator[Done]]
    processes: int  # number of concurrent tasks


# --- processes on this machine


def thread_variables(jobs: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of each of `jobs` processes."""
    share = max(cores() // jobs, 1)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    threads = {}
    for name in names:
        # OpenMP allows a list with one number for each nesting level.
        given = os.environ.get(name, os.environ.get("OMP_NUM_THREADS", "")).partition(",")[0]
        number = int(given) if given.strip().isdecimal() else share
        threads[name] = str(min(share, number or share))
    return {**threads, "LOKY_MAX_CPU_COUNT": str(share)}


def threads_of(jobs: int) -> int:
    """Return the number of torch threads in each of `jobs` processes; 0: as in this process."""
    return int(thread_variables(jobs)["OMP_NUM_THREADS"]) if jobs > 1 else 0


@contextmanager
def early_processes(jobs: int, readers: int = 0) -> Iterator[None]:
    """Start worker processes before their tasks are known; stop unused ones at the end.

    A single process does all tasks itself; it gets `readers` that read its clips.
    """
    if jobs == 1:
        start_readers(min(readers, MOST_READERS))
        yield
        return
    variables = thread_variables(jobs)
    # Processes beyond the number of cores are not started early.
    start_workers(min(jobs, cores()), TASKS, variables)
    try:
        yield
    finally:
        stop_workers(variables)


def job_environments(jobs: int, device: str) -> list[dict[str, str]]:
    """Return the environment variables of each process: number of threads, and GPU."""
    from mvemo.extract.training.devices import pick_device

    variables = thread_variables(jobs)
    if pick_device(device).type != "cuda":
        return [variables] * jobs
    gpus = islice(cycle(visible_gpus()), jobs)
    return [{**variables, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return [name.strip() for name in named.split(",")][:count]


def local_backend(device: str, jobs: int) -> Backend:
    """Return a backend of `jobs` processes on this machine."""

    def do(tasks: Sequence[RunTask], note: Note) -> Iterator[Done]:
        calls = [Call(DO_TASK, (task,), parts=True) for task in tasks]
        for outcome in run_calls(calls, environments=job_environments(jobs, device)):
            if not outcome.last:
                note(outcome.value)
            else:
                yield tasks[outcome.index], outcome.error or outcome.value

    return Backend(do, jobs)


# --- workers of a Dask scheduler


@contextmanager
def dask_backend(address: str, folders: Sequence[Path]) -> Iterator[Backend]:
    """Yield a backend on a scheduler's workers; a task is retried if it or its worker fails."""
    with connected(address) as client:
        n_workers = check_workers(client, address, folders)
        tell(f"{n_workers} worker{'s' * (n_workers != 1)} of {address}")

        def do(tasks: Sequence[RunTask], note: Note) -> Iterator[Done]:
            waiting, attempt = tasks, 0
            while waiting:
                again, attempt = [], attempt + 1
                for task, result in _results(client, address, waiting):
                    failed = isinstance(result, Exception) and not isinstance(result, _FINAL)
                    if failed and attempt < ATTEMPTS:
                        again.append(task)
                        tell_note(f"{task.label} failed and is tried again: {result}")
                    else:
                        yield task, result
                waiting = again

        yield Backend(do, n_workers)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a client of a scheduler; raise BadOption if Dask is missing or nothing answers."""
    try:
        dask: Any = import_module("distributed")
    except ImportError:
        raise BadOption(
            "--backend dask needs the package distributed: pip install '.[dask]' in mvemo's folder"
        ) from None
    # mvemo reports lost workers and schedulers itself. Dask sets the levels of these loggers.
    for name in ("distributed", "distributed.client", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    written = _ADDRESS.fullmatch(address)
    # With an invalid address, the client would wait until its timeout.
    if written is None or not 1 <= int(written[2]) <= 65535:
        raise _no_scheduler(address, "expected tcp://HOST:PORT")
    try:
        try:
            client = dask.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except AssertionError:
            # Dask gives its thread ten seconds to start, which a busy or suspended machine exceeds.
            client = dask.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise _no_scheduler(address, " ".join(str(error).split())) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _no_scheduler(address: str, why: str) -> BadOption:
    return BadOption(
        f"--scheduler {address}: no Dask scheduler answers there ({shown(why, 120)}): start "
        "one with 'dask scheduler', and give the address that it prints"
    )


def check_workers(client: Any, address: str, folders: Sequence[Path]) -> int:
    """Check that all workers have torch, this mvemo and the folders; return their number."""
    ours = versions()["mvemo"]

    def found(package: str) -> dict[str, str]:
        # A function of the standard library can run on a worker without mvemo.
        of_worker: dict[str, Any] = client.run(metadata.version, package, on_error="return")
        for worker, version in of_worker.items():
            if isinstance(version, Exception):
                raise BadOption(
                    f"{worker}: this worker has no {package}: pip install '.[extract,dask]' there, "
                    f"in the folder of mvemo {ours}, and start the worker again"
                )
        return of_worker

    workers = found("mvemo")
    if not workers:
        raise BadOption(f"--scheduler {address}: it has no workers: run 'dask worker {address}'")
    for worker, version in workers.items():
        if version != ours:
            raise BadOption(
                f"{worker}: this worker has mvemo {version}, but this machine has {ours}: install "
                "the same version on all machines, and start the worker again"
            )
    for folder in folders:
        for worker, exists in client.run(os.path.isdir, str(folder)).items():
            if not exists:
                raise BadOption(
                    f"{worker}: this worker does not see {folder}: all machines must share a "
                    "file system with the same paths"
                )
    if set(found("torch").values()) != {versions().get("torch")}:
        tell_note("the workers have other versions of torch: the last bits of values may differ")
    return len(workers)


def do_packed(packed: bytes, plugins: tuple[Any, Any]) -> Any:
    """Run a pickled task on a worker, and return its result or its error."""
    try:
        unpack_plugins(*plugins, tempfile.mkdtemp() if plugins[0] else "")
        return resolve(DO_TASK)(pickle.loads(packed))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return TaskFailed(f"{type(error).__name__}: {error}")
        return error


def _results(client: Any, address: str, tasks: Sequence[RunTask]) -> Iterator[Done]:
    """Yield each task and its result, in the order in which they finish."""
    from distributed.comm.core import CommClosedError

    dask: Any = import_module("distributed")
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        # Tasks are pickled here, so that a worker that lacks their classes returns an error.
        plugins = packed_plugins()
        futures = {
            client.submit(do_packed, pickle.dumps(task), plugins, pure=False): task
            for task in tasks
        }
        with client.as_current():
            done = dask.as_completed(futures)
        for future in done:
            yield futures[future], future.result()
    except dask.KilledWorker as error:
        raise TaskFailed(
            f"a task ended every worker that ran it ({shown(str(error.task), 60)}): see their "
            "logs; all other work is kept: run the same command again"
        ) from None
    except TimeoutError:
        raise TaskFailed(
            "all workers are gone: start some, and run the same command again"
        ) from None
    except (dask.CancelledError, CommClosedError):
        raise TaskFailed(
            f"the scheduler {address} ended: start it and its workers, and run the same "
            "command again; finished work is kept"
        ) from None
