"""Progress of long work: rate, remaining time and number of failures.

A terminal gets a bar. A file or a pipe gets an occasional line, so that the log of a batch job
shows the progress.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from mvemo.pipeline.console.messages import escaped, tell, unguarded, verbosity

# Minimum number of seconds between two lines; long runs write fewer lines.
LINE_INTERVAL = 30.0
# Callback of the enclosing work: gets the newly finished share and the bar's title.
_whole: ContextVar[Callable[[float, str], object] | None] = ContextVar("_whole", default=None)


@contextmanager
def told_as_parts(
    steps: int, n_parts: int, on_steps: Callable[[float, str], object]
) -> Iterator[None]:
    """Count each bar of clips inside the context as one of `n_parts` parts of `steps` steps."""
    token = _whole.set(lambda share, title: on_steps(share * steps / n_parts, title))
    try:
        yield
    finally:
        _whole.reset(token)


class Progress:
    """A bar on stderr, or a line every `LINE_INTERVAL` seconds if stderr is not a terminal."""

    def __init__(self, title: str, total: int, unit: str = "clip") -> None:
        self.failures = self.kept = self.done = 0
        self._title, self._total, self._unit, self._note = title, total, unit, ""
        # Finished part of the steps that are not done yet, in steps.
        self._ahead = 0.0
        self._start = self._last_line = time.monotonic()
        self._whole = _whole.get()
        silent = verbosity() == "quiet" or self._whole is not None
        self._quiet = silent or not sys.stderr.isatty()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._in_lines = self._quiet and not silent
        self._bar: Any = tqdm(
            total=total,
            desc=escaped(title),
            unit=unit,
            disable=self._quiet,
            leave=False,
            dynamic_ncols=True,
            smoothing=0.05,
            file=unguarded(sys.stderr),
        )

    def ahead(self, steps: float, note: str = "") -> None:
        """Show progress inside unfinished steps, which `step` counts when they are done."""
        self._ahead += steps
        self._update(note)

    @property
    def _shown(self) -> int:
        return min(self.done + int(self._ahead + 1e-6), self._total)

    @property
    def _failed(self) -> str:
        return f"{self.failures} failed" if self.failures else ""

    def _update(self, note: str = "") -> None:
        if text := ", ".join(filter(None, (note, self._failed))):
            self._bar.set_postfix_str(escaped(text), refresh=False)
        self._bar.update(self._shown - self._bar.n)
        self._write_line()

    def step(self, count: int = 1, *, failed: int = 0) -> None:
        """Count finished steps; `failed` of them failed."""
        self.done += count
        self.failures += failed
        self._ahead = max(self._ahead - count, 0.0)
        if self._whole is not None and self._unit == "clip":
            self._whole(count / max(self._total, 1), self._title)
        self._update()

    def note(self, text: str) -> None:
        """Show the current activity inside a step."""
        self._note = text
        self._bar.set_postfix_str(escaped(text))
        self._write_line()

    def _write_line(self) -> None:
        """Print a line of progress if no bar is drawn and the last line is old enough."""
        now = time.monotonic()
        with self._lock:
            wait = max(LINE_INTERVAL, (now - self._start) / 10)
            if not self._in_lines or now - self._last_line < wait:
                return
            self._last_line = now
        remaining, shown = "", self._shown
        if 0 < shown < self._total:
            seconds = (now - self._start) / shown * (self._total - shown)
            remaining = f"about {duration_text(seconds)} left"
        done = f"{self._title}: {shown} of {self._total} {self._unit}s"
        tell(", ".join(filter(None, (done, self._failed, remaining, self._note))))

    def _write_lines(self) -> None:
        """Write lines until the work ends, even if a single step takes minutes."""
        while not self._ended.wait(LINE_INTERVAL):
            self._write_line()

    def __enter__(self) -> Progress:
        if self._in_lines:
            threading.Thread(target=self._write_lines, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        self._bar.close()
        if kind is None and self._whole is None:
            took = "" if self._quiet else f" in {self._bar.format_dict['elapsed']:.1f} s"
            done = f"{self.done} done"
            if self.kept:
                done = f"{self.done - self.kept} new, {self.kept} kept"
            tell(f"{self._title}: {', '.join(filter(None, (done, self._failed)))}{took}")


def epoch_text(label: str, epoch: int, epochs: int, val_loss: float) -> str:
    """Format the progress of training after an epoch, with the validation loss if finite."""
    loss = f", validation loss {val_loss:.3f}" if math.isfinite(val_loss) else ""
    return f"{label} epoch {epoch}/{epochs}{loss}"


def duration_text(seconds: float) -> str:
    """Format a duration in seconds, minutes, or hours and minutes."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
