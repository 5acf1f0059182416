"""Pool of worker processes that are kept between calls; a crash ends only a single call."""

from __future__ import annotations

import atexit
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import TypeAlias

from mvemo.extract.errors import WorkerDied
from mvemo.extract.workers import process
from mvemo.extract.workers.process import Call, CallResult
from mvemo.manifests.errors import MvemoError

# Libraries leak some memory with each clip, so a worker is replaced after this many calls.
MAX_CALLS = 1000
# Maximum number of parts that wait for the caller; a worker with another part must wait.
MAX_WAITING = 16
# If this many workers in a row end before they are ready, the run fails.
_MAX_FAILED_STARTS = 3
# Every call sets its number of threads itself.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Each arena of glibc reserves 64 MiB of address space, which the memory limit counts.
    "MALLOC_ARENA_MAX": "4",
}
# Use pages of 2 MiB in glibc's malloc, unless the user sets another value. A new process needs
# about 250,000 pages of 4 KiB, each of which costs microseconds.
_DEFAULTS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
if not sys.path[0]:
    del sys.path[0]
from mvemo.extract.workers.process import serve
serve(int(sys.argv[1]), sys.argv[2])
"""
# A stopped call that used the CPU for at least this share of its time counts as an endless loop;
# otherwise it waited for a disk or other programs, or the computer slept.
_BUSY_SHARE = 0.5
# Signals that a crashed decoder causes; other signals come from outside.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
# An answer of a worker, or None if it ended.
Answer: TypeAlias = CallResult | None


class Worker:
    """Process that imports the module `preload` and then answers one call at a time."""

    def __init__(self, preload: str, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.n_calls: int = 0
        self.ready: bool = False  # True once the process has started
        self.call: Call | None = None
        # Seconds that the call used before the time `_since`; `_since` is 0 while the call waits.
        self._used, self._since = 0.0, 0.0
        # CPU seconds of the process before the call was sent, and of the stopped call.
        self._processor_before = self._processor = 0.0
        self._overdue = False
        # Standard error, for the last message of a crashing library.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        in_main = threading.current_thread() is threading.main_thread()
        # Linux kills a worker when the thread that started it ends: only the main thread is safe.
        parent = os.getpid() if in_main else 0
        variables = {**_DEFAULTS, **os.environ, **_ENVIRONMENT, **environment}
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(parent), preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=variables,
            )
        except OSError as error:
            self._errors.close()
            raise MvemoError(f"a worker process cannot be started: {error.strerror}") from None
        self._calls: queue.SimpleQueue[tuple[Call, Inbox] | None] = queue.SimpleQueue()
        threading.Thread(target=self._talk, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def start(self, call: Call, inbox: Inbox) -> None:
        """Send a call; its answers go to `inbox`, or None if the worker ends first."""
        self.n_calls += 1
        call = replace(call, environment=self.environment)
        self.call, self._used, self._since = call, 0.0, 0.0
        # Drop the output of earlier calls.
        self._errors.seek(0)
        self._errors.truncate()
        self._calls.put((call, inbox))

    @property
    def seconds_left(self) -> float:
        """Seconds until the call exceeds its time limit."""
        if self.call and self.call.seconds and self._since:
            return self._since + self.call.seconds - self._used - time.monotonic()
        return float("inf")

    def end(self, *, overdue: bool = False) -> None:
        if overdue and not self._overdue:
            self._processor = process.processor_seconds(self.pid) - self._processor_before
        self._overdue = overdue
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._calls.put(None)
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._errors.close()

    def death(self) -> WorkerDied:
        code = self._process.wait()
        seconds = self.call.seconds if self.call else 0.0
        name = signal.Signals(-code).name if code < 0 else ""
        if self._overdue or name == "SIGALRM":
            reason = f"reading it took longer than {seconds:.3g} s and was stopped"
            return WorkerDied(reason, passing=self._processor < _BUSY_SHARE * seconds)
        if name in _CRASHES:
            line = self.last_line()
            return WorkerDied(f"the decoder crashed ({name}{line and ': '}{line})")
        if name:
            return WorkerDied(
                f"the process that read it was killed ({name}), perhaps because memory ran out",
                passing=True,
            )
        return WorkerDied(f"reading it ended the worker process (exit code {code})")

    def last_line(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 2000, 0))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def _talk(self) -> None:
        """Send calls and forward their answers, in a thread, because a worker may be slow."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A closed pipe raises ValueError, both here and below.
        with suppress(EOFError, OSError, ValueError):
            process.receive(self._process.stdout)
            self.ready = True
        while (given := self._calls.get()) is not None:
            call, inbox = given
            self._processor_before = process.processor_seconds(self.pid)
            self._since = time.monotonic()
            answer: Answer
            try:
                process.send(self._process.stdin, call)
                while not (answer := process.receive(self._process.stdout)).last:
                    # The time limit excludes the time spent waiting for room in the inbox.
                    self._used, self._since = self._used + time.monotonic() - self._since, 0.0
                    inbox.put_part(self, answer)
                    self._since = time.monotonic()
            except (EOFError, OSError, ValueError):
                answer = None
            inbox.answers.put((self, answer))


class Inbox:
    # A signal handler may raise an error at any time. A `queue.Queue` could then stay locked for
    # ever, but a `SimpleQueue` cannot.
    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[tuple[Worker, Answer]] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(MAX_WAITING):
            self._room.put(True)

    def put_part(self, worker: Worker, part: CallResult) -> None:
        if not self._room.get():
            self.close()
        self.answers.put((worker, part))

    def get(self, timeout: float) -> tuple[Worker, Answer]:
        worker, answer = self.answers.get(timeout=timeout)
        if answer is not None and not answer.last:
            self._room.put(True)
        return worker, answer

    def close(self) -> None:
        self._room.put(False)


# Workers without a call. Every change of the list is atomic: no other thread or signal interrupts
# it.
_idle: list[Worker] = []
# Environment variables of the workers that all runs without environments share.
_SHARED: Mapping[str, str] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def cores() -> int:
    """Return the number of CPUs that this process may use, given a container's limits."""
    from joblib import cpu_count

    return int(cpu_count())


def run_calls(
    calls: Sequence[Call], *, workers: int = 0, environments: Sequence[Mapping[str, str]] = ()
) -> Iterator[CallResult]:
    """Run calls in worker processes; yield partial results and the outcome of each call."""
    if not calls:
        return
    count = len(environments) or workers or cores()
    run = _Run(calls, min(count, len(calls)), environments)
    try:
        with _noted_interrupts() as noted:
            for outcome in run.outcomes():
                # Python swallows a KeyboardInterrupt in some places.
                if noted:
                    raise KeyboardInterrupt
                yield outcome
    finally:
        # This also ends the running calls after Ctrl-C.
        run.close()


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Yield a list that gets an entry at every Ctrl-C; only in the main thread."""
    noted: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        # Keep a handler that was set in the meantime.
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, previous)


def start_workers(count: int, preload: str = "", environment: Mapping[str, str] = _SHARED) -> None:
    """Start workers that import the module `preload`, until `count` workers are idle."""
    while sum(worker.environment == environment for worker in _idle) < count:
        _idle.append(Worker(preload, environment))


def stop_workers(environment: Mapping[str, str] | None = _SHARED) -> None:
    """End the idle workers of an environment (None: all); the next call starts new ones."""
    workers = [each for each in list(_idle) if environment in (None, each.environment)]
    _close([each for each in workers if _claim(each)])


atexit.register(stop_workers, None)


def _claim(worker: Worker) -> bool:
    """Remove a worker from the idle workers; return False if another thread took it."""
    with suppress(ValueError):
        _idle.remove(worker)
        return True
    return False


def _close(workers: Sequence[Worker]) -> None:
    """Kill all workers before waiting for any, because freeing their memory takes time."""
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.close()


def worker_memory() -> int:
    return max((process.peak_memory(worker.pid) for worker in list(_idle)), default=0)


class _Run:
    def __init__(
        self, calls: Sequence[Call], workers: int, environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._calls = calls
        self._waiting = deque(range(len(calls)))
        self._workers = workers
        # Environments without a worker, and idle workers. If the run has its own environments, it
        # does not share workers with other runs.
        self._environments = list(reversed(environments))
        self._idle: list[Worker] = [] if environments else _idle
        self._busy: dict[Worker, int] = {}
        self._inbox = Inbox()
        self._failed_starts = 0

    def outcomes(self) -> Iterator[CallResult]:
        while self._waiting or self._busy:
            while self._waiting and len(self._busy) < self._workers:
                worker = self._take_worker()
                self._busy[worker] = self._waiting.popleft()
                worker.start(self._calls[self._busy[worker]], self._inbox)
            # Wait only briefly, because a worker's clock starts when its call is sent.
            seconds = min(0.2, *(worker.seconds_left for worker in self._busy))
            try:
                outcome = self._outcome(*self._inbox.get(timeout=max(seconds, 0.0)))
            except queue.Empty:
                for worker in self._busy:
                    if worker.seconds_left <= 0:
                        # The worker then answers None.
                        worker.end(overdue=True)
                continue
            if outcome is not None:
                yield outcome

    def _take_worker(self) -> Worker:
        """Return the most recently used idle worker that fits, or start a worker."""
        environment = _SHARED
        if self._idle is not _idle:
            if self._idle:
                return self._idle.pop()
            environment = self._environments.pop()
        for worker in reversed(list(_idle)):
            # Variables can be added to those of a worker, but not removed.
            fits = bool(worker.environment) == bool(environment)
            fits = fits and worker.environment.items() <= environment.items()
            if fits and _claim(worker):
                if worker.running:
                    worker.environment = environment
                    return worker
                worker.close()
        module = self._calls[self._waiting[0]].function.partition(":")[0]
        return Worker(module, environment)

    def _outcome(self, worker: Worker, answer: Answer) -> CallResult | None:
        """Return the outcome of an answer, or None if another worker must repeat the call."""
        if answer is not None and not answer.last:
            return replace(answer, index=self._busy[worker])
        index = self._busy.pop(worker)
        if answer is not None:
            self._failed_starts = 0
            if worker.n_calls >= MAX_CALLS:
                self._forget(worker)
            else:
                self._idle.append(worker)
            return replace(answer, index=index)
        if worker.ready:
            error = worker.death()
            self._forget(worker)
            return CallResult(index, error=error)
        self._waiting.appendleft(index)
        self._failed_starts += 1
        line = worker.last_line() or "no message"
        self._forget(worker)
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise MvemoError(f"worker processes end while they start: {line}")
        return None

    def _forget(self, worker: Worker) -> None:
        """Close a worker; the next worker gets its environment."""
        worker.close()
        if self._idle is not _idle:
            self._environments.append(worker.environment)

    def close(self) -> None:
        """End the workers that still have a call, and all workers that other runs cannot use."""
        self._inbox.close()
        _close([*self._busy, *([] if self._idle is _idle else self._idle)])
