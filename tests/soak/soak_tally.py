"""Counts of what was tried, and the faults that were found; commands run and judged."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field

# Exit codes of a command: done, a check found something, bad input, interrupted, terminated.
EXPECTED = (0, 1, 2, 130, 143)
# A command takes seconds on an idle machine; after this time it hangs.
HANG_SECONDS = 180.0


@dataclass
class Tally:
    """Number of tries by kind, and each fault in a line."""

    tried: Counter = field(default_factory=Counter)
    faults: list = field(default_factory=list)
    patience: float = 1.0  # factor for the time after which something hangs

    def add(self, kind, count=1):
        self.tried[kind] += count

    def fault(self, kind, what):
        """Note a fault and print it at once."""
        self.faults.append(f"{kind}: {what}")
        print(f"FAULT {self.faults[-1]}", flush=True)

    def lines(self):
        """Return the counts and the number of faults."""
        counts = [f"{count:7,} {kind}" for kind, count in sorted(self.tried.items())]
        return [*counts, f"{len(self.faults):7,} faults"]


@dataclass(frozen=True)
class Outcome:
    """End of a command."""

    code: int | None  # exit code; negative for a signal, None if it hung
    output: str  # stdout and stderr


def run(*words, cwd=None, end=None, limits=None, patience=1.0):
    """Run a command of ``mvemo`` in a process group of its own, which is killed if it hangs.

    After the seconds `end[0]`, the signal `end[1]` ends it: SIGKILL also its children. `limits` is
    called in the new process.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "mvemo.pipeline", *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=limits,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    code, hang = None, patience * HANG_SECONDS
    is_killed = end is not None and end[1] == signal.SIGKILL
    try:
        try:
            out, _ = process.communicate(timeout=hang if end is None else end[0])
        except subprocess.TimeoutExpired:
            if end is None or is_killed:
                raise
            process.send_signal(end[1])
            out, _ = process.communicate(timeout=hang)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        code = process.returncode if is_killed else None
    return Outcome(code, out.decode("utf-8", "replace"))


def judge(tally, kind, outcome, allowed=EXPECTED, label=""):
    """Count a try; note a fault if a command hung, crashed or showed a traceback."""
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
