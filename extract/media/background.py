"""Queue of calls on a second thread, which run while the decoder goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BackgroundQueue:
    """Queue of calls that run one after the other on a second thread.

    Decoders release the interpreter's lock: a frame is scaled while the next one is decoded.
    Leaving the context waits for all calls, and raises the error of the first that failed.
    If `threaded` is False, each call runs at once: on one core, two threads take a sixth longer.
    """

    # Calls that may wait. Each holds a frame, so a faster decoder must wait for them.
    MAX_WAITING = 8

    def __init__(self, *, threaded: bool = True) -> None:
        # The pool starts its thread at the first call.
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._threaded = threaded
        self._waiting: list[Future[None]] = []

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function(*arguments)`` after all earlier calls."""
        if not self._threaded:
            function(*arguments)
            return
        self._waiting.append(self._pool.submit(function, *arguments))
        if len(self._waiting) > self.MAX_WAITING:
            self._waiting.pop(0).result()

    def wait(self) -> None:
        """Wait until all calls are done."""
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
