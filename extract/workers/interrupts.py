"""Signals that end the program while answers of workers are waited for."""

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
    """Ctrl-C and SIGTERM, put off while an answer is waited for and taken.

    Their handlers raise between any two steps of the main thread: also between taking the lock
    of a queue and the statement that gives it back, which would leave it taken for ever.

    Attributes
    ----------
    noted
        Whether Ctrl-C came; to be looked at after each answer, as Python swallows a
        KeyboardInterrupt in some places.
    """

    def __init__(self) -> None:
        self.noted = False
        self._deferring = False
        self._put_off: list[Callable[[], object]] = []

    @contextmanager
    def handle(self) -> Iterator[Interrupts]:
        """Put handlers of both signals before those that there are, and take them off at the end.

        Only the main thread has any; elsewhere nothing is done.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ours = {n: self._handler(handler) for n, handler in before.items() if callable(handler)}
        try:
            with _set_handlers(ours):
                yield self
        finally:
            self.release()

    def defer(self) -> None:
        """Put off what comes from now on."""
        self._deferring = True

    def release(self) -> None:
        """Put nothing off any more, and do what was: most handlers raise."""
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
    """Processes that are started within inherit it: Ctrl-C reaches them, too."""
    with _set_handlers({signal.SIGINT: signal.SIG_IGN}):
        yield


@contextmanager
def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Have signals handled so within; a handler that somebody else sets meanwhile stays."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers, and only it is interrupted.
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number])
