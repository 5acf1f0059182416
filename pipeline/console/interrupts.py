"""Handling of Ctrl-C and SIGTERM, from the first import of a program to its end.

``kill``, ``timeout``, batch systems and containers send SIGTERM first. It ends a program as
Ctrl-C does: finished work is committed. A command that keeps finished work continues from there
when it is run again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_DEFAULT: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
# The list of the outermost active `noted_signals`.
_noted: list[list[int]] = []


def end_at_once(number: int, frame: object) -> None:
    """Handle a signal before any work is done: print one line and exit."""
    what = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"{what} before it began\n".encode())
    os._exit(128 + number)


def take_early_signals() -> None:
    """Make SIGINT and SIGTERM end the program in one line; handlers set by other code stay."""
    for number, handler in _DEFAULT.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, end_at_once)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM as on Ctrl-C; yield the numbers of received signals."""
    if _noted or threading.current_thread() is not threading.main_thread():
        yield _noted[-1] if _noted else []
        return
    numbers: list[int] = []
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        signal.default_int_handler(number, frame)

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            # A forked process has no work to finish.
            os._exit(128 + number)
        numbers.append(number)
        handler = signal.getsignal(signal.SIGINT)
        # Code that waits for Ctrl-C, such as the pool of workers, is notified in the same way.
        if callable(handler) and handler is not interrupt:
            handler(number, frame)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _DEFAULT}
    ours: dict[int, Any] = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    replaced = [n for n, handler in _DEFAULT.items() if before[n] in (handler, end_at_once)]
    for number in replaced:
        signal.signal(number, ours[number])
    _noted.append(numbers)
    try:
        yield numbers
    finally:
        _noted.pop()
        for number in replaced:
            if signal.getsignal(number) is ours[number]:
                signal.signal(number, before[number])


def report_interrupt(numbers: list[int], resumable: bool = False) -> int:
    """Print that the program was ended; return its exit status, 143 after SIGTERM or 130."""
    ended = signal.SIGTERM in numbers
    what = "ended by SIGTERM" if ended else "interrupted"
    kept = "; what was finished is kept, run the same again" if resumable else ""
    print(f"{what}{kept}", file=sys.stderr)
    return 128 + (signal.SIGTERM if ended else signal.SIGINT)
