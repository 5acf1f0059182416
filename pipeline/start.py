"""Entry points of ``mvemo`` and ``mvemo-cv``: signals are handled before other imports.

From its first step Ctrl-C and SIGTERM end the program in one line, even while the packages of
`mvemo.pipeline.cli` are imported.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from mvemo.pipeline.console.interrupts import noted_signals, report_interrupt, take_early_signals

# Number of times that a waiting GNU OpenMP thread, used by torch, looks for work before it sleeps.
# The default is ten times as high: next to another busy program, waiting threads then keep the
# cores from the threads they wait for, and a training step takes two to six times as long.
SPINS = "30000"


def main() -> None:
    """Start ``mvemo``."""
    _start("main")


def main_cv() -> None:
    """Start ``mvemo-cv``."""
    _start("main_cv")


def let_threads_sleep() -> None:
    """Let waiting threads give up their core soon, unless the environment says otherwise."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def end_with_torchrun() -> None:
    """End this process when the torchrun that started it ends, even if that is killed."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from mvemo.extract.workers.process import end_with

        end_with(os.getppid())


def _start(name: str) -> None:
    take_early_signals()
    let_threads_sleep()
    end_with_torchrun()
    with noted_signals() as signals:
        try:
            getattr(import_module("mvemo.pipeline.cli"), name)()
        except (Exception, KeyboardInterrupt) as error:
            # Packages that are being imported turn the interrupt into other errors.
            if not signals and not isinstance(error, KeyboardInterrupt):
                raise
            _exit(report_interrupt(signals))
        except SystemExit as stop:
            if not signals or not isinstance(stop.code, int):
                raise
            _exit(stop.code)


def _exit(status: int) -> None:
    """Exit without unloading modules, which may crash if they are half imported."""
    import atexit
    from contextlib import suppress

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
