"""Handle of one worker process, in the process that started it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from mvemo.extract.errors import ExtractError, WorkerDied
from mvemo.extract.workers.interrupts import ignore_interrupts
from mvemo.extract.workers.process import Call, Part, receive, send

# Each call sets the number of its threads itself.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Each arena of glibc reserves 64 MiB of addresses, which the memory limit counts.
    "MALLOC_ARENA_MAX": "4",
}
# Setting of glibc's malloc for pages of 2 MiB. A new process needs some 250,000 pages of 4 KiB,
# each of which costs microseconds.
_TUNABLES, _HUGETLB = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_START = """
import sys
if not sys.path[0]:
    del sys.path[0]
from mvemo.extract.workers.process import serve
serve(int(sys.argv[1]), sys.argv[2])
"""
# A stopped call that used the processor for at least this share of its time was in an endless
# loop; otherwise it waited for a disk or other programs, or the computer slept.
_BUSY_SHARE = 0.5
# Signals of a crashed decoder; other signals come from outside.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")


# A part, or the last answer of a call: its value and its error, or None if the worker ended.
Answer: TypeAlias = "Part | tuple[Any, BaseException | None] | None"
# Queue of the workers' answers; workers wait if it is full.
Inbox: TypeAlias = "queue.Queue[tuple[Worker, Answer]]"


class Worker:
    """Process that answers one call at a time.

    Parameters
    ----------
    preload
        Module to import before the first call, while this process continues.
    environment
        Variables of the process, in addition to those of this process.

    Attributes
    ----------
    n_calls
        Number of calls that were sent.
    ready
        True once the process has started.
    """

    def __init__(self, preload: str, environment: Mapping[str, str] | None = None) -> None:
        self.environment = environment or {}
        self.n_calls = 0
        self.ready = False
        self.call: Call | None = None
        # Seconds that the call used before the time `_since`, which is 0 while it waits.
        self._used, self._since = 0.0, 0.0
        # CPU seconds of the process when the call was sent, and those of the stopped call.
        self._processor_before = self._processor = 0.0
        self._overdue = False
        # Standard error, for the last words of a crashing library.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        in_main = threading.current_thread() is threading.main_thread()
        # The system ends a worker together with the thread that started it: use the main thread.
        parent = os.getpid() if in_main else 0
        paths = os.pathsep.join(path for path in sys.path if path)
        try:
            with ignore_interrupts():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, str(parent), preload],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env={**worker_variables(os.environ), **self.environment, "PYTHONPATH": paths},
                )
        except OSError as error:
            self._errors.close()
            raise ExtractError(f"no worker process can be started: {error.strerror}") from None
        self._calls: queue.SimpleQueue[tuple[Call, Inbox] | None] = queue.SimpleQueue()
        threading.Thread(target=self._talk, daemon=True).start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Return True if the worker can serve calls with these variables."""
        if not self.environment:
            return not environment
        return self.environment.items() <= environment.items()

    def start(self, call: Call, inbox: Inbox) -> None:
        """Send a call; its answers come to `inbox`, None if the worker ends before."""
        self.n_calls += 1
        call = replace(call, environment={**self.environment, **call.environment})
        self.call, self._used, self._since = call, 0.0, 0.0
        # Output of earlier calls says nothing about this one.
        self._errors.seek(0)
        self._errors.truncate()
        self._calls.put((call, inbox))

    @property
    def seconds_left(self) -> float:
        """Seconds until the call exceeds its time limit."""
        if self.call is None or not self.call.seconds or not self._since:
            return float("inf")
        return self._since + self.call.seconds - self._used - time.monotonic()

    def end(self, *, overdue: bool = False) -> None:
        """Kill the process."""
        if overdue and not self._overdue:
            self._processor = processor_seconds(self.pid) - self._processor_before
        self._overdue = overdue
        self._process.kill()

    def close(self) -> None:
        """Kill the process, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._calls.put(None)
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._errors.close()

    def death(self) -> WorkerDied:
        """Return an error with the reason why the process ended."""
        code = self._process.wait()
        seconds = self.call.seconds if self.call is not None else 0.0
        name = signal.Signals(-code).name if code < 0 else ""
        if self._overdue or name == "SIGALRM":
            reason = f"reading it took longer than {seconds:.3g} s and was stopped"
            return WorkerDied(reason, passing=self._processor < _BUSY_SHARE * seconds)
        if name in _CRASHES:
            line = self.last_line()
            return WorkerDied(f"it crashes its decoder ({name}{line and ': '}{line})")
        if name:
            return WorkerDied(
                f"the process that read it was killed ({name}), perhaps for want of memory",
                passing=True,
            )
        return WorkerDied(f"it ended the process that read it (exit code {code})")

    def last_line(self) -> str:
        """Return the last line on standard error, such as "double free or corruption"."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 2000, 0))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def _talk(self) -> None:
        """Send calls and pass their answers on, in a thread: a slow worker does not block."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A closed pipe raises ValueError, here and below.
        with suppress(EOFError, OSError, ValueError):
            receive(self._process.stdout)
            self.ready = True
        while (given := self._calls.get()) is not None:
            call, inbox = given
            self._processor_before = processor_seconds(self.pid)
            self._since = time.monotonic()
            answer: Answer
            try:
                send(self._process.stdin, call)
                while isinstance(answer := receive(self._process.stdout), Part):
                    # The time limit does not count the wait for room in the inbox.
                    self._used, self._since = self._used + time.monotonic() - self._since, 0.0
                    inbox.put((self, answer))
                    self._since = time.monotonic()
            except (EOFError, OSError, ValueError):
                answer = None
            inbox.put((self, answer))


def worker_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker, given those of the process that starts it.

    Examples
    --------
    >>> worker_variables({"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"]
    '1'
    """
    tunables = environment.get(_TUNABLES, "")
    if _HUGETLB not in tunables:
        tunables = ":".join(filter(None, (tunables, f"{_HUGETLB}=1")))
    return {**environment, **_ENVIRONMENT, _TUNABLES: tunables}


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds of a running process; 0 if not known."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        # utime and stime.
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_memory(pid: int) -> int:
    """Return the peak memory of a process in bytes; 0 if not known."""
    # For children, getrusage includes the memory of the process that forked them.
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("VmHWM", "0 kB").split()[0]) * 1024
