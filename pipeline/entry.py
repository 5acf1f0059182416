"""The programs ``mvemo`` and ``mvemo-cv`` once `mvemo.pipeline.start` has imported them.

Nothing but signal handlers is imported before they are set: from then on Ctrl-C and
SIGTERM end as those of `mvemo.pipeline.cli` do, also while its packages are imported.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from mvemo.pipeline.console.interrupts import noted_signals, report_interrupt


def main() -> None:
    """Entry point of ``mvemo``."""
    _start("main")


def main_cv() -> None:
    """Entry point of ``mvemo-cv``."""
    _start("main_cv")


def _start(name: str) -> None:
    with noted_signals() as signals:
        try:
            getattr(import_module("mvemo.pipeline.cli"), name)()
        except KeyboardInterrupt:
            _exit(report_interrupt(signals))
        except Exception:
            if not signals:
                raise
            _exit(report_interrupt(signals))
        except SystemExit as stop:
            if not signals or not isinstance(stop.code, int):
                raise
            _exit(stop.code)


def _exit(status: int) -> NoReturn:
    """End without taking modules apart: some crash where they were half imported."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
