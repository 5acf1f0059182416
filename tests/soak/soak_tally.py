"""Counts of what was tried, and the faults that came of it; commands run and judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# A command may end so: done, a check found something, bad input, interrupted, terminated.
EXPECTED = (0, 1, 2, 130, 143)
# After which a command that should take seconds is taken for hung, on an idle machine.
HANG_SECONDS = 180.0


@dataclass
class Tally:
    """What was tried, by kind, and each fault in a line.

    Parameters
    ----------
    tried
        Kind to how often.
    faults
        What should not have happened.
    patience
        How many times as long as on an idle machine until something is taken for hung.
    """

    tried: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    patience: float = 1.0

    def add(self, kind: str, count: int = 1) -> None:
        """Note tries."""
        self.tried[kind] += count

    def fault(self, kind: str, what: str) -> None:
        """Note a fault and say it at once."""
        line = f"{kind}: {what}"
        self.faults.append(line)
        print(f"FAULT {line}", flush=True)

    def lines(self) -> list[str]:
        """The counts, and the number of faults."""
        counts = [f"{count:7,} {kind}" for kind, count in sorted(self.tried.items())]
        return [*counts, f"{len(self.faults):7,} faults"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Parameters
    ----------
    code
        Its exit status; negative for a signal, None where it hung and was ended.
    output
        Of stdout and stderr together.
    """

    code: int | None
    output: str


def run(
    *arguments: object,
    end: tuple[float, int] | None = None,
    limits: Callable[[], None] | None = None,
    patience: float = 1.0,
) -> Outcome:
    """Run an ``mvemo`` command in a process group of its own, which is killed where it hangs.

    Parameters
    ----------
    end
        After how many seconds which signal ends it: SIGKILL its children, too, others itself.
    limits
        Called in the new process.
    patience
        See `Tally`.
    """
    command = [sys.executable, "-m", "mvemo.pipeline", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=limits,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    code: int | None = None
    try:
        try:
            out, _ = process.communicate(timeout=patience * HANG_SECONDS if end is None else end[0])
        except subprocess.TimeoutExpired:
            if end is None or end[1] == signal.SIGKILL:
                raise
            process.send_signal(end[1])
            out, _ = process.communicate(timeout=patience * HANG_SECONDS)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        if end is not None and end[1] == signal.SIGKILL:
            code = process.returncode
    return Outcome(code, out.decode("utf-8", "replace"))


def judge(
    tally: Tally, kind: str, outcome: Outcome, allowed: Sequence[int] = EXPECTED, label: str = ""
) -> bool:
    """Note a try, and a fault where a command hung, crashed or showed a traceback.

    Parameters
    ----------
    label
        What was tried, for the line of the fault.
    """
    tally.add(kind)
    last = (outcome.output.strip().splitlines() or [""])[-1][:200]
    last = f"{label}: {last}" if label else last
    if outcome.code is None:
        tally.fault(kind, f"hung: {last}")
    elif "Traceback (most recent call last)" in outcome.output:
        tally.fault(kind, f"a traceback: {last}")
    elif outcome.code not in allowed:
        tally.fault(kind, f"exit status {outcome.code}: {last}")
    else:
        return True
    return False


def left_over(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    return [str(path) for path in folder.rglob("*.tmp")]


class Clock:
    """Time that a part may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self._end
