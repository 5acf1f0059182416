"""Progress of long work: rate, remaining time and number of failures.

A terminal gets a bar. A file or a pipe gets an occasional line, so that the log of a batch job
shows the progress.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from mvemo.pipeline.console.messages import escaped, in_program, tell, unguarded, verbosity

# Minimum number of seconds between two lines; long runs write fewer lines.
LINE_INTERVAL = 30.0
# Assumed time of a bar in the first batch of clips, relative to the bar of a net.
_SHARES = {"decode": 0.5, "describe": 0.25}
# Called with the newly finished share of a bar, its title, and its seconds (0 before its end).
_Whole = Callable[[float, str, float], object]
_whole: ContextVar[_Whole | None] = ContextVar("_whole", default=None)


@contextmanager
def told_as_parts(
    steps: int,
    titles: Sequence[str],
    on_steps: Callable[[float, str], object],
    seconds: dict[str, float],
) -> Iterator[None]:
    """Inside the context, report each bar as its share of a step instead of drawing it.

    `seconds` keeps the time of each bar, by which it counts in the next batch of clips.
    """
    expected = dict(seconds) or {title: _SHARES.get(title, 1.0) for title in titles}

    def tell_part(share: float, title: str, took: float) -> None:
        if took:
            seconds[title] = took
        else:
            on_steps(share * steps * expected.get(title, 0.0) / sum(expected.values()), title)

    token = _whole.set(tell_part)
    try:
        yield
    finally:
        _whole.reset(token)


class Progress:
    """A bar on stderr, or a line every `LINE_INTERVAL` seconds if stderr is not a terminal.

    Outside a program the lines are logged.
    """

    def __init__(self, title: str, total: int, unit: str = "clip") -> None:
        self.failures = self.kept = self.done = 0
        self._title, self._total, self._unit, self._note = title, total, unit, ""
        # Minimum finished steps for a pace; part of a net is enough, as its epochs take equal time.
        self._least = 1e-3 if unit == "net" else 1 - 1e-6
        # Progress inside steps that are not finished, in steps.
        self._ahead = 0.0
        self._start = self._last_line = time.monotonic()
        # Start of the measurement of the pace (time, steps), at the first new step.
        self._first: tuple[float, float] | None = None
        self._whole = _whole.get()
        silent = verbosity() == "quiet" or self._whole is not None
        self._quiet = silent or not in_program() or not sys.stderr.isatty()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._in_lines = self._quiet and not silent
        self._bar: Any = tqdm(
            total=total,
            desc=escaped(title),
            unit=unit,
            disable=self._quiet,
            leave=False,
            dynamic_ncols=True,
            miniters=1,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            file=unguarded(sys.stderr),
        )

    def ahead(self, steps: float, note: str = "") -> None:
        """Show progress inside unfinished steps; call `step` when they are finished."""
        self._ahead += steps
        self._update(note)

    def report(self, state: str | float) -> None:
        """Show a text about the current step, or progress inside unfinished steps."""
        self.note(state) if isinstance(state, str) else self.ahead(state)

    @property
    def _reached(self) -> float:
        return min(self.done + self._ahead, self._total)

    def pace(self) -> tuple[float, float]:
        """Return the steps per hour and the seconds left; (0, 0) before the first new step.

        Kept steps took no time, so they do not count. The first step includes the start of
        workers and nets, so it counts only until there are others.
        """
        # Another thread may set `_first`.
        now, new, earlier = time.monotonic(), self._reached - self.kept, self._first
        if earlier is None or new < self._least or now == self._start:
            return 0.0, 0.0
        start, first = earlier
        if new - first < self._least or now == start:
            start, first = self._start, 0.0
        pace = (new - first) / (now - start)
        return 3600 * pace, (self._total - self._reached) / pace

    @property
    def _pace_text(self) -> str:
        per_hour, left = self.pace()
        rate = f"{per_hour:,.0f} {self._unit}s/h, " if self._unit == "clip" else ""
        return f"{rate}about {tqdm.format_interval(left)} left" if left else ""

    @property
    def _failed(self) -> str:
        return f"{self.failures} failed" if self.failures else ""

    def _update(self, note: str = "") -> None:
        new = self._reached - self.kept
        if self._first is None and new >= self._least:
            self._first = time.monotonic(), new
        parts = (note or self._note, self._failed, "" if self._quiet else self._pace_text)
        self._bar.set_postfix_str(escaped(", ".join(filter(None, parts))), refresh=False)
        self._bar.update(int(self._reached + 1e-6) - self._bar.n)
        self._write_line()

    def step(self, count: int = 1, *, failed: int = 0) -> None:
        """Count finished steps; `failed` of them failed."""
        self.done += count
        self.failures += failed
        self._ahead = max(self._ahead - count, 0.0)
        if self._whole is not None and self._unit == "clip":
            self._whole(count / max(self._total, 1), self._title, 0.0)
        self._update()

    def keep(self, count: int) -> None:
        """State that `count` of the finished steps were done by an earlier run."""
        self.kept, self._first, self._start = count, None, time.monotonic()

    def note(self, text: str) -> None:
        """Show the current activity inside a step."""
        self._note = text
        self._update()
        self._bar.refresh()

    def _write_line(self) -> None:
        """Print a line of progress if no bar is drawn and `LINE_INTERVAL` has passed."""
        now = time.monotonic()
        with self._lock:
            wait = max(LINE_INTERVAL, (now - self._start) / 10)
            if not self._in_lines or now - self._last_line < wait:
                return
            self._last_line = now
        done = f"{self._title}: {int(self._reached + 1e-6)} of {self._total} {self._unit}s"
        tell(", ".join(filter(None, (done, self._failed, self._pace_text, self._note))))

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
        if self._whole is not None and self._unit == "clip":
            self._whole(0.0, self._title, time.monotonic() - self._start)
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
