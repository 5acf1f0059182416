"""The programs ``mvemo`` and ``mvemo-cv`` as they are started.

Nothing but signal handlers is imported before they are set: from then on Ctrl-C and
SIGTERM end in one line, also while `mvemo.pipeline.cli` and its packages are imported.
"""

from __future__ import annotations

from importlib import import_module

from mvemo.pipeline.interrupts import end_interrupted, noted_signals


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
            end_interrupted(signals)
        except Exception:
            if signals:
                end_interrupted(signals)
            raise
