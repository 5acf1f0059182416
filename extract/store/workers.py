"""Work spread over processes, which Ctrl-C and a broken worker end cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import joblib

from mvemo.extract.errors import ExtractError


def in_workers(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, workers: int, where: str
) -> Iterator[Any]:
    """Call ``function(*each, threads)`` for each of `arguments`, in any order.

    Parameters
    ----------
    function
        Of a module, so that it can be sent; its last parameter is told how many threads
        it may use, so that all together do not outnumber the cores.
    arguments
        Of each call but the last.
    workers
        Processes; 0 for one a core. Any backend that joblib was given serves.
    where
        What to name if a worker dies.

    Yields
    ------
    Results, as they come.

    Raises
    ------
    ExtractError
        A worker died.
    """
    if not arguments:
        return
    cores = joblib.cpu_count()
    workers = min(workers or cores, len(arguments))
    threads = max(cores // workers, 1)
    parent = os.getpid()
    tasks = (joblib.delayed(_call)(function, each, threads, parent) for each in arguments)
    # A worker that cannot write ends the run: joblib raises its error here.
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    with _interrupts() as interrupted:
        with _ctrl_c_ignored():
            # This starts the workers, which inherit it: Ctrl-C reaches them too, and only
            # this process is to act on it.
            results = parallel(tasks)
        try:
            for result in results:
                # Raised where Python must swallow exceptions, an interrupt would be lost.
                if interrupted.is_set():
                    raise KeyboardInterrupt
                yield result
        except BrokenExecutor:
            raise ExtractError(
                f"{where}: a working process died, for want of memory or of a file that crashes "
                "its decoder; what was done is kept: run again, with fewer workers"
            ) from None
        finally:
            # Also on Ctrl-C: nothing is begun any more.
            results.close()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Remembers Ctrl-C beside raising `KeyboardInterrupt`."""
    seen = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield seen
        return

    def remember(number: int, frame: FrameType | None) -> None:
        seen.set()
        before(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield seen
    finally:
        if signal.getsignal(signal.SIGINT) is remember:
            signal.signal(signal.SIGINT, before)


def _call(function: Callable[..., Any], given: tuple[Any, ...], threads: int, parent: int) -> Any:
    if os.getpid() != parent:
        # A worker that was started later.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(*given, threads)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may, and only it is interrupted.
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
