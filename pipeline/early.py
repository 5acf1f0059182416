"""What is done before all else: signals, threads that wait awake, and the end of a torchrun.

What is imported here is what Python has imported already, or nearly.
"""

from __future__ import annotations

import os
import signal

# How often a thread of GNU OpenMP, which torch computes with, asks for work before it sleeps. By
# default ten times as often: beside another busy program, threads that wait for one that has no
# core then make a training step twice to six times as long.
SPINS = "30000"


def end_at_once(number: int, frame: object) -> None:
    """End the program in one line: it has done nothing yet. A handler of signals."""
    what = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted"
    os.write(2, f"{what} before it began\n".encode())
    os._exit(128 + number)


def let_threads_sleep() -> None:
    """Have threads that wait for work give their core away soon; a variable that is set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def take_early_signals() -> None:
    """Let SIGINT and SIGTERM end in one line; handlers that somebody else has set stay."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is usual:
            signal.signal(number, end_at_once)


def end_with_torchrun() -> None:
    """End with the torchrun that started this process, also where it is killed.

    Its processes would be left, and wait for each other for ever.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from mvemo.extract.workers.process import end_with

        end_with(os.getppid())
