"""Progress bars of long work: rate, time left, and failures so far."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from mvemo.pipeline.messages import tell, verbosity
from mvemo.pipeline.terminal import escaped, unguarded


class Progress:
    """A bar on stderr; where stderr is no terminal, its closing line alone.

    Nothing at all with ``--quiet``.

    Parameters
    ----------
    title
        What is being done.
    total
        How many steps there are.
    unit
        What a step is, for the rate.
    """

    def __init__(self, title: str, total: int, unit: str = "clip") -> None:
        self.failures = 0
        self._title = title
        self._quiet = verbosity() == "quiet" or not sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total,
            desc=escaped(title),
            unit=unit,
            disable=self._quiet,
            leave=False,
            dynamic_ncols=True,
            file=unguarded(sys.stderr),
        )
        self._done = 0

    def step(self, count: int = 1, *, failed: int = 0, note: str = "") -> None:
        """Some steps are done; `failed` of them failed."""
        self._done += count
        self.failures += failed
        parts = [note] if note else []
        if self.failures:
            parts.append(f"{self.failures} failed")
        if parts:
            self._bar.set_postfix_str(escaped(", ".join(parts)), refresh=False)
        self._bar.update(count)

    def note(self, text: str) -> None:
        """Say what is going on within a step."""
        self._bar.set_postfix_str(escaped(text))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if kind is None:
            failed = f", {self.failures} failed" if self.failures else ""
            seconds = self.seconds
            took = f" in {seconds:.1f} s" if seconds is not None else ""
            tell(f"{self._title}: {self._done} done{failed}{took}")

    @property
    def seconds(self) -> float | None:
        """Seconds since the start, None where the bar is silent."""
        if self._quiet:
            return None
        elapsed: float = self._bar.format_dict["elapsed"]
        return elapsed
