"""Ctrl-C and SIGTERM while the program waits for workers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """Deferral of Ctrl-C and SIGTERM while the main thread takes an answer from a queue.

    Signal handlers may raise between any two steps of the main thread: also after it took a
    queue's lock and before it releases it, so that the lock would never be released.

    Attributes
    ----------
    noted
        True after Ctrl-C. Check it after each answer: Python swallows a KeyboardInterrupt in
        some places.
    """

    def __init__(self) -> None:
        self.noted = False
        self._deferring = False
        self._put_off: list[Callable[[], object]] = []

    @contextmanager
    def handle(self) -> Iterator[Interrupts]:
        """Wrap the handlers of both signals inside the context, in the main thread only."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ours = {n: self._handler(handler) for n, handler in before.items() if callable(handler)}
        try:
            with _set_handlers(ours):
                yield self
        finally:
            self.release()

    def defer(self) -> None:
        """Defer the signals that come from now on."""
        self._deferring = True

    def release(self) -> None:
        """Stop deferring, and call the handlers of the deferred signals, most of which raise."""
        self._deferring = False
        while self._put_off:
            self._put_off.pop(0)()

    def _handler(self, previous: _Handler) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            self.noted |= number == signal.SIGINT
            if self._deferring:
                self._put_off.append(partial(previous, number, frame))
            else:
                previous(number, frame)

        return handle


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C; processes started inside the context inherit this."""
    with _set_handlers({signal.SIGINT: signal.SIG_IGN}):
        yield


@contextmanager
def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Set signal handlers inside the context; handlers that others set meanwhile stay."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers, and only it runs them.
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number])
