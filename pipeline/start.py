"""Entry points of ``mvemo`` and ``mvemo-cv``, and their handling of Ctrl-C and SIGTERM.

``kill``, ``timeout``, batch systems and containers send SIGTERM first. It ends a program like
Ctrl-C, with a one-line message: finished work is committed. Signals are handled before any other
import, so this module imports only the standard library.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Any

# How often a waiting thread of GNU OpenMP (used by torch) looks for work before it sleeps. The
# default is ten times as high: if another program is busy, waiting threads then take the cores
# from the threads they wait for, and a training step takes two to six times as long.
SPINS = "30000"
_DEFAULT: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
# The list of the outermost active `interrupting_signals`.
_noted: list[list[int]] = []


def end_at_once(number: int, frame: object) -> None:
    """Handle a signal that arrives before the work begins: print one line and exit."""
    what = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"{what} before the work began\n".encode())
    os._exit(128 + number)


def take_early_signals() -> None:
    """Make SIGINT and SIGTERM end the program with one line; keep handlers of other code."""
    for number, handler in _DEFAULT.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, end_at_once)


@contextmanager
def interrupting_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM too; yield a list of the received signals' numbers."""
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
            # A forked process has nothing to clean up.
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
    kept = "; finished work is kept: run the same command again" if resumable else ""
    print(f"{what}{kept}", file=sys.stderr)
    return 128 + (signal.SIGTERM if ended else signal.SIGINT)


def main() -> None:
    """Start ``mvemo``."""
    _start("main")


def main_cv() -> None:
    """Start ``mvemo-cv``."""
    _start("main_cv")


def let_threads_sleep() -> None:
    """Make waiting OpenMP threads sleep soon, unless the environment sets their policy."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _start(name: str) -> None:
    take_early_signals()
    let_threads_sleep()
    with interrupting_signals() as signals:
        try:
            getattr(import_module("mvemo.pipeline.cli"), name)()
        except (Exception, KeyboardInterrupt) as error:
            # An interrupt during an import may surface as another error.
            if not signals and not isinstance(error, KeyboardInterrupt):
                raise
            _exit(report_interrupt(signals))
        except SystemExit as stop:
            if not signals or not isinstance(stop.code, int):
                raise
            _exit(stop.code)


def _exit(status: int) -> None:
    """Exit without unloading modules, which may crash if an import was interrupted."""
    import atexit
    import threading

    # The same order as in Python: first stop pools of processes, then wait for them.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # A stream that the shell closed is None.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
