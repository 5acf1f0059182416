"""Tasks on the workers of a Dask scheduler, through joblib.

joblib's Dask backend keeps large arguments on one worker and loses them with that worker. Tasks
are therefore sent pickled: it passes bytes on unchanged.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from mvemo.extract.errors import TrainingDiverged
from mvemo.manifests.files import shown
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.errors import BadOption, ClipFailed, TaskFailed
from mvemo.pipeline.provenance import versions
from mvemo.pipeline.stage_one.tasks import Backend, Finished, Note, Task, do_task

# Seconds to find the scheduler, and then its workers.
CONNECT_SECONDS = 10.0
# Number of attempts at each task.
ATTEMPTS = 3
# Errors that another attempt would repeat.
_FINAL = (TrainingDiverged, ClipFailed)
# Address with an optional protocol of Dask; the default is tcp.
_ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx|ws|wss)://)?(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})")
_INSTALL = "pip install '.[dask]' in mvemo's folder"


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a client of a scheduler; raise BadOption without Dask or without an answer."""
    try:
        import distributed
    except ImportError:
        raise BadOption(f"--backend dask needs the package distributed: {_INSTALL}") from None
    # We report lost workers and schedulers ourselves; Dask sets a level for each logger.
    for name in ("distributed", "distributed.client", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _check_address(address)
    client: Any = distributed.Client.__new__(distributed.Client)
    try:
        client.__init__(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        # Otherwise the garbage collector closes it, which takes 20 s and prints a traceback.
        client.status = "closed"
        raise _no_scheduler(address, " ".join(str(error).split())) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _check_address(address: str) -> None:
    """Raise BadOption for a malformed address, before anything waits for an answer."""
    written = _ADDRESS.fullmatch(address)
    if written is None or not 1 <= int(written[2]) <= 65535:
        raise _no_scheduler(address, "it is not written as tcp://HOST:PORT")


def _no_scheduler(address: str, why: str) -> BadOption:
    return BadOption(
        f"--scheduler {address}: no Dask scheduler answers there ({shown(why, 120)}): start "
        "one with 'dask scheduler', and give the address that it prints"
    )


def check_workers(client: Any, address: str, folders: Sequence[Path]) -> int:
    """Check that every worker has torch and this mvemo and sees the folders; return their number.

    Raises `BadOption` for the first worker that fails a check, or if there are no workers.
    """
    ours = versions()["mvemo"]

    def found(package: str) -> dict[str, str]:
        # A function of the standard library also runs on a worker without mvemo.
        of_worker: dict[str, Any] = client.run(metadata.version, package, on_error="return")
        for worker, version in of_worker.items():
            if isinstance(version, Exception):
                raise BadOption(
                    f"{worker}: this worker has no {package}: pip install '.[extract,dask]' there, "
                    f"in the folder of mvemo {ours}, and start it again"
                )
        return of_worker

    workers = found("mvemo")
    if not workers:
        raise BadOption(f"--scheduler {address}: it has no workers: 'dask worker {address}'")
    for worker, version in workers.items():
        if version != ours:
            raise BadOption(
                f"{worker}: this worker has mvemo {version}, and here it is {ours}: install the "
                "same on all machines, and start it again"
            )
    for folder in folders:
        for worker, there in client.run(os.path.isdir, str(folder)).items():
            if not there:
                raise BadOption(
                    f"{worker}: this worker does not see {folder}: workers read and write the "
                    "same paths, on a file system that all machines share"
                )
    if set(found("torch").values()) != {versions().get("torch")}:
        tell_note("the workers have other versions of torch: last bits of values may differ")
    return len(workers)


def do_packed(index: int, packed: bytes) -> tuple[int, Finished | Exception]:
    """Run a task on a worker, and return its result or its error."""
    try:
        return index, do_task(pickle.loads(packed))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return index, TaskFailed(f"{type(error).__name__}: {error}")
        return index, error


@contextmanager
def cluster_backend(address: str, folders: Sequence[Path]) -> Iterator[Backend]:
    """Yield a backend of the workers of a scheduler, at an address as ``tcp://host:8786``.

    A task whose worker dies goes to another worker; a task that fails is tried again. Raises
    `BadOption` like `connected` and `check_workers`.
    """
    with connected(address) as client:
        n_workers = check_workers(client, address, folders)
        tell(f"{n_workers} worker{'s' * (n_workers != 1)} of {address}")

        def do(
            tasks: Sequence[Task], note: Note
        ) -> Iterator[tuple[Task, Finished | BaseException]]:
            waiting = list(range(len(tasks)))
            for attempt in range(1, ATTEMPTS + 1):
                again = []
                for index, result in _results(client, address, tasks, waiting):
                    if isinstance(result, (Finished, *_FINAL)) or attempt == ATTEMPTS:
                        yield tasks[index], result
                    else:
                        again.append(index)
                        tell_note(f"{tasks[index].label} failed, and is tried again: {result}")
                waiting = again
                if not waiting:
                    return

        yield Backend(do, n_workers)


def count_workers(address: str) -> int:
    """Check the workers of a scheduler, and return their number."""
    with connected(address) as client:
        return check_workers(client, address, [])


def _results(
    client: Any, address: str, tasks: Sequence[Task], indices: Sequence[int]
) -> Iterator[tuple[int, Finished | Exception]]:
    """Yield the index and the result of each task, in the order in which they finish."""
    from concurrent.futures import CancelledError

    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker
    from joblib import Parallel, delayed, parallel_config
    from joblib._dask import DaskDistributedBackend

    class EveryWorker(DaskDistributedBackend):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            # With one worker joblib would run the tasks in this process.
            return max(int(super().effective_n_jobs(n_jobs)), 2)

    calls = (delayed(do_packed)(index, pickle.dumps(tasks[index])) for index in indices)
    backend = EveryWorker(client=client, wait_for_workers_timeout=CONNECT_SECONDS)
    with parallel_config(backend=backend):
        try:
            yield from Parallel(n_jobs=-1, batch_size=1, return_as="generator_unordered")(calls)
        except KilledWorker as error:
            raise TaskFailed(
                f"a task ended every worker that had it ({shown(str(error.task), 60)}): see their "
                "logs; all else is kept: run the same again"
            ) from None
        except TimeoutError:
            raise TaskFailed("all workers are gone: start some, and run the same again") from None
        except (CancelledError, CommClosedError):
            raise TaskFailed(
                f"the scheduler {address} ended: start it and its workers, and run the same again; "
                "what was done is kept"
            ) from None
