"""Calls that run in order while a decoder goes on, on a second thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BackgroundQueue:
    """Runs calls one after the other on a second thread.

    Decoders release the interpreter's lock, so that scaling a frame costs no time while
    the next one is decoded. A context manager: leaving it waits for all calls, and raises
    the error of the first that failed.

    Parameters
    ----------
    threaded
        False to do each call at once, for a decoder that has one core: two threads that hand
        it to each other take a sixth more of it.
    """

    # Calls that may wait, each holding its frame: a faster decoder then waits for them.
    MAX_WAITING = 8

    def __init__(self, *, threaded: bool = True) -> None:
        # It starts no thread before its first call.
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._threaded = threaded
        self._waiting: list[Future[None]] = []

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function(*arguments)`` after all calls that were submitted before."""
        if not self._threaded:
            function(*arguments)
            return
        self._waiting.append(self._pool.submit(function, *arguments))
        if len(self._waiting) > self.MAX_WAITING:
            self._waiting.pop(0).result()

    def wait(self) -> None:
        """Return once all calls are done."""
        while self._waiting:
            self._waiting.pop(0).result()

    def __enter__(self) -> BackgroundQueue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self.wait()
