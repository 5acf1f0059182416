"""First steps of a program: early signals, sleeping threads, and the end of a torchrun.

This module imports only modules that Python has loaded already, or small ones.
"""

from __future__ import annotations

import os
import signal

# Number of times that a waiting GNU OpenMP thread, used by torch, looks for work before it sleeps.
# The default is ten times as high: next to another busy program, waiting threads then keep the
# cores from the threads they wait for, and a training step takes two to six times as long.
SPINS = "30000"


def end_at_once(number: int, frame: object) -> None:
    """Handle a signal before any work is done: print one line and exit."""
    what = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"{what} before it began\n".encode())
    os._exit(128 + number)


def let_threads_sleep() -> None:
    """Let waiting threads give up their core soon, unless the environment says otherwise."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def take_early_signals() -> None:
    """Make SIGINT and SIGTERM end the program in one line; handlers set by other code stay."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is usual:
            signal.signal(number, end_at_once)


def end_with_torchrun() -> None:
    """End this process when the torchrun that started it ends, even if that is killed.

    Otherwise its processes would stay and wait for each other for ever.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from mvemo.extract.workers.process import end_with

        end_with(os.getppid())
