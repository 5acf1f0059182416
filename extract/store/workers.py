"""Calls spread over worker processes, which Ctrl-C and a broken worker end cleanly."""

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


def map_unordered(
    function: Callable[..., Any],
    argument_lists: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    output: str,
) -> Iterator[Any]:
    """Call ``function(*arguments, threads)`` for each list of arguments, in any order.

    Parameters
    ----------
    function
        Of a module, so that it can be sent to a process. Its last parameter is how many
        threads it may use, so that all workers together do not outnumber the cores.
    argument_lists
        Of each call, all but the last argument.
    workers
        Processes; 0 for one a core. joblib's current backend runs them.
    output
        What the workers write to, for the message if one dies.

    Yields
    ------
    Results, as they come.

    Raises
    ------
    ExtractError
        A worker died. Errors of `function` are raised as they are.
    """
    if not argument_lists:
        return
    cores = joblib.cpu_count()
    workers = min(workers or cores, len(argument_lists))
    threads = max(cores // workers, 1)
    parent = os.getpid()
    calls = (
        joblib.delayed(_call_in_worker)(function, arguments, threads, parent)
        for arguments in argument_lists
    )
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    with _interrupt_flag() as interrupted:
        with _interrupts_ignored():
            # This starts the workers, which inherit it: Ctrl-C reaches them too, and only
            # this process is to act on it.
            results = parallel(calls)
        try:
            for result in results:
                # A KeyboardInterrupt that was raised where Python swallows exceptions.
                if interrupted.is_set():
                    raise KeyboardInterrupt
                yield result
        except BrokenExecutor:
            raise ExtractError(
                f"{output}: a working process died, for want of memory or of a file that "
                "crashes its decoder; what was done is kept: run again, with fewer workers"
            ) from None
        finally:
            # Also on Ctrl-C: no further call begins.
            results.close()


def _call_in_worker(
    function: Callable[..., Any], arguments: tuple[Any, ...], threads: int, parent: int
) -> Any:
    if os.getpid() != parent:
        # Workers that are started later do not inherit it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(*arguments, threads)


@contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets before it raises `KeyboardInterrupt`."""
    interrupted = threading.Event()
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield interrupted
        return

    def set_flag(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        previous(number, frame)

    signal.signal(signal.SIGINT, set_flag)
    try:
        yield interrupted
    finally:
        if signal.getsignal(signal.SIGINT) is set_flag:
            signal.signal(signal.SIGINT, previous)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers, and only it is interrupted.
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
