"""Programs ``mvemo`` and ``mvemo-cv``, after the first steps in `mvemo.pipeline.start`.

Signal handlers are set before anything else is imported. From then on Ctrl-C and SIGTERM end the
program in one line, even while the packages of `mvemo.pipeline.cli` are imported.
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
    """Start ``mvemo``."""
    _start("main")


def main_cv() -> None:
    """Start ``mvemo-cv``."""
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
    """Exit without unloading modules, which may crash if they are half imported."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
