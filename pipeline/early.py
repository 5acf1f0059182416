"""Ctrl-C and SIGTERM before `mvemo.pipeline.console.interrupts` is there to take them.

What is imported here is what Python has imported already, or nearly.
"""

from __future__ import annotations

import os
import signal


def end_at_once(number: int, frame: object) -> None:
    """End the program in one line: it has done nothing yet. A handler of signals."""
    what = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"{what} before it began\n".encode())
    os._exit(128 + number)


def take_early_signals() -> None:
    """Let SIGINT and SIGTERM end in one line; handlers that somebody else has set stay."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is usual:
            signal.signal(number, end_at_once)
