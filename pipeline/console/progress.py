"""Progress of long work: rate, time left, and failures so far.

A bar where stderr is a terminal; a line now and then where it is a file or a pipe, so that
the log of a batch job tells how far it is.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from mvemo.pipeline.console.messages import tell, verbosity
from mvemo.pipeline.console.terminal import escaped, unguarded

# Seconds between two lines where there is no bar.
LINE_INTERVAL = 30.0


class Progress:
    """A bar on stderr; where stderr is no terminal, a line every `LINE_INTERVAL` seconds.

    Nothing at all with ``--quiet``.

    Parameters
    ----------
    title
        What is being done.
    total
        How many steps there are.
    unit
        What a step is, for the rate.

    Attributes
    ----------
    kept
        How many of the steps had been done by an earlier run.
    """

    def __init__(self, title: str, total: int, unit: str = "clip") -> None:
        self.failures = self.kept = 0
        self._title = title
        self._total = total
        self._unit = unit
        self._note = ""
        self._start = self._last_line = time.monotonic()
        self._quiet = verbosity() == "quiet" or not sys.stderr.isatty()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._in_lines = self._quiet and verbosity() != "quiet"
        self._bar: Any = tqdm(
            total=total,
            desc=escaped(title),
            unit=unit,
            disable=self._quiet,
            leave=False,
            dynamic_ncols=True,
            file=unguarded(sys.stderr),
        )
        self.done = 0

    def step(self, count: int = 1, *, failed: int = 0, note: str = "") -> None:
        """Some steps are done; `failed` of them failed."""
        self.done += count
        self.failures += failed
        parts = [note] if note else []
        if self.failures:
            parts.append(f"{self.failures} failed")
        if parts:
            self._bar.set_postfix_str(escaped(", ".join(parts)), refresh=False)
        self._bar.update(count)
        self._write_line()

    def note(self, text: str) -> None:
        """Say what is going on within a step."""
        self._note = text
        self._bar.set_postfix_str(escaped(text))
        self._write_line()

    def _write_line(self) -> None:
        """Where there is no bar, and it is time: how far this is."""
        now = time.monotonic()
        with self._lock:
            if not self._in_lines or now - self._last_line < LINE_INTERVAL:
                return
            self._last_line = now
        parts = [f"{self._title}: {self.done} of {self._total} {self._unit}s"]
        if self.failures:
            parts.append(f"{self.failures} failed")
        if 0 < self.done < self._total:
            left = (now - self._start) / self.done * (self._total - self.done)
            parts.append(f"about {duration_text(left)} left")
        if self._note:
            parts.append(self._note)
        tell(", ".join(parts))

    def _write_lines(self) -> None:
        """Write lines, until this is over, also where a single step takes minutes."""
        while not self._ended.wait(LINE_INTERVAL):
            self._write_line()

    def __enter__(self) -> Progress:
        if self._in_lines:
            threading.Thread(target=self._write_lines, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._bar.close()
        if kind is None:
            failed = f", {self.failures} failed" if self.failures else ""
            seconds = self.seconds
            took = f" in {seconds:.1f} s" if seconds is not None else ""
            done = f"{self.done} done"
            if self.kept:
                done = f"{self.done - self.kept} new, {self.kept} kept"
            tell(f"{self._title}: {done}{failed}{took}")

    @property
    def seconds(self) -> float | None:
        """Seconds since the start, None where the bar is silent."""
        if self._quiet:
            return None
        elapsed: float = self._bar.format_dict["elapsed"]
        return elapsed


def epoch_text(label: str, epoch: int, epochs: int, val_loss: float) -> str:
    """After an epoch of a training, from 1, with its validation loss where there is one.

    Examples
    --------
    >>> epoch_text("i3d@fold0", 2, 20, 1.25), epoch_text("i3d@fold0", 2, 20, math.nan)
    ('i3d@fold0 epoch 2/20, validation loss 1.250', 'i3d@fold0 epoch 2/20')
    """
    loss = f", validation loss {val_loss:.3f}" if math.isfinite(val_loss) else ""
    return f"{label} epoch {epoch}/{epochs}{loss}"


def duration_text(seconds: float) -> str:
    """A length of time in the units that it is thought of in.

    Examples
    --------
    >>> duration_text(12.3), duration_text(95), duration_text(7500)
    ('12 s', '2 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
