"""Pool of worker processes that are kept between calls; a crash costs only one call."""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvemo.extract.errors import ExtractError
from mvemo.extract.workers.handle import Answer, Inbox, Worker, peak_memory
from mvemo.extract.workers.interrupts import Interrupts
from mvemo.extract.workers.process import Call, Part

# Libraries leak some memory with each clip: a worker is replaced after this many calls.
MAX_CALLS = 1000
# Answers that may wait in the queue; further parts make their workers wait.
MAX_WAITING = 16
# If this many workers in a row end before they are ready, the next would fail, too.
_MAX_FAILED_STARTS = 3
# Workers without a call, and the id of the process that started them: a fork must not use them.
_idle: list[Worker] = []
_idle_of = os.getpid()
_lock = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """Result of one call in a worker: a value, an error, or a part of what it emits."""

    index: int  # index of the call
    value: Any = None
    error: BaseException | None = None  # the function's error, or `WorkerDied`
    last: bool = True  # False for a part

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


def cores() -> int:
    """Return the number of CPUs that this process may use, also by a container's limits."""
    from joblib import cpu_count

    return int(cpu_count())


def run_calls(
    calls: Sequence[Call],
    *,
    workers: int = 0,
    environments: Sequence[Mapping[str, str]] = (),
) -> Iterator[Outcome]:
    """Run calls in worker processes, even a single one; yield outcomes as they come.

    `workers` is the maximum number of processes, 0 for one per core. With `environments`, each
    process has these variables instead (threads, a GPU) and ends with the calls. A call's parts
    come before its last outcome; workers wait while too many parts wait for the caller.

    Examples
    --------
    >>> calls = [Call("math:sqrt", (9.0,)), Call("math:sqrt", (-1.0,)), Call("os:abort", ())]
    >>> found = {outcome.index: outcome for outcome in run_calls(calls, workers=1)}
    >>> found[0].value, type(found[1].error).__name__
    (3.0, 'ValueError')
    >>> print(found[2].error)
    it crashes its decoder (SIGABRT)
    """
    if not calls:
        return
    count = len(environments) or workers or cores()
    run = _Run(calls, min(count, len(calls)), environments)
    try:
        with Interrupts().handle() as interrupts:
            for outcome in run.outcomes(interrupts):
                # Python may have swallowed the KeyboardInterrupt.
                if interrupts.noted:
                    raise KeyboardInterrupt
                yield outcome
    finally:
        # Also on Ctrl-C: running calls are of no use any more.
        run.close()


def start_workers(
    count: int, preload: str = "", environment: Mapping[str, str] | None = None
) -> None:
    """Start workers until `count` are idle, before their first call; each imports `preload`."""
    wanted = environment or {}
    while True:
        with _lock:
            _forget_inherited()
            if sum(worker.environment == wanted for worker in _idle) >= count:
                return
            _idle.append(Worker(preload, wanted))


def stop_workers(environment: Mapping[str, str] | None = None) -> None:
    """End the idle workers of an environment; the next call starts new ones."""
    _stop(lambda worker: worker.environment == (environment or {}))


def worker_memory() -> int:
    """Return the largest peak memory of the idle workers in bytes; 0 if not known."""
    with _lock:
        return max((peak_memory(worker.pid) for worker in _idle), default=0)


@atexit.register
def _stop_all() -> None:
    _stop(lambda worker: True)


def _stop(chosen: Callable[[Worker], bool]) -> None:
    with _lock:
        _forget_inherited()
        stopped = [worker for worker in _idle if chosen(worker)]
        _idle[:] = [worker for worker in _idle if worker not in stopped]
    _close(stopped)


def _close(workers: Sequence[Worker]) -> None:
    """Kill all workers first, then wait: the system takes a while to free their memory."""
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.close()


def _forget_inherited() -> None:
    """Forget the workers of the process from which this one was forked."""
    global _idle_of
    if _idle_of != os.getpid():
        _idle.clear()
        _idle_of = os.getpid()


class _Run:
    """Calls of one `run_calls`, and the workers that run them."""

    def __init__(
        self, calls: Sequence[Call], workers: int, environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._calls = calls
        # Environments without a process, and this run's idle processes; None for shared workers.
        self._environments = list(reversed(environments)) if environments else None
        self._own: list[Worker] = []
        self._waiting = deque(range(len(calls)))
        self._workers = workers
        self._inbox: Inbox = queue.Queue(MAX_WAITING)
        self._busy: dict[Worker, int] = {}
        self._failed_starts = 0

    def outcomes(self, interrupts: Interrupts) -> Iterator[Outcome]:
        """Yield the outcomes of all calls as they come."""
        while self._waiting or self._busy:
            interrupts.defer()
            while self._waiting and len(self._busy) < self._workers:
                self._give(self._take_worker())
            outcome = self._outcome(*self._next_answer(interrupts))
            interrupts.release()
            if outcome is not None:
                yield outcome

    def _outcome(self, worker: Worker, answer: Answer) -> Outcome | None:
        """Return the outcome of an answer; None if another worker must repeat the call."""
        if isinstance(answer, Part):
            return Outcome(self._busy[worker], answer.value, last=False)
        index = self._busy.pop(worker)
        if answer is not None:
            self._failed_starts = 0
            self._put_back(worker)
            return Outcome(index, *answer)
        if worker.ready:
            error = worker.death()
            self._forget(worker)
            return Outcome(index, error=error)
        self._waiting.appendleft(index)
        self._count_failed_start(worker)
        return None

    def close(self) -> None:
        """End the workers that still have a call, and those with their own environment."""
        _close([*self._busy, *self._own])
        # Their threads may be waiting for room in the inbox.
        while self._busy:
            worker, answer = self._inbox.get()
            if not isinstance(answer, Part):
                self._busy.pop(worker, None)

    def _take_worker(self) -> Worker:
        """Return an idle worker, or start one."""
        module = self._calls[self._waiting[0]].function.partition(":")[0]
        if self._own:
            return self._own.pop()
        environment = self._environments.pop() if self._environments is not None else {}
        while (worker := _take_idle(environment)) is not None:
            if worker.running:
                worker.environment = environment
                return worker
            worker.close()
        return Worker(module, environment)

    def _put_back(self, worker: Worker) -> None:
        if self._environments is None:
            _put_back(worker)
        else:
            self._own.append(worker)

    def _forget(self, worker: Worker) -> None:
        """Close a worker that has ended; the next one gets its environment."""
        worker.close()
        if self._environments is not None:
            self._environments.append(worker.environment)

    def _give(self, worker: Worker) -> None:
        index = self._waiting.popleft()
        self._busy[worker] = index
        worker.start(self._calls[index], self._inbox)

    def _next_answer(self, interrupts: Interrupts) -> tuple[Worker, Answer]:
        """Wait for an answer; kill workers over their time limit, which gives an answer, too."""
        while True:
            left = min(worker.seconds_left for worker in self._busy)
            try:
                # Wait briefly: a worker's clock starts only when its call is sent.
                return self._inbox.get(timeout=min(max(left, 0.0), 0.2))
            except queue.Empty:
                interrupts.release()
                interrupts.defer()
                for worker in self._busy:
                    if worker.seconds_left <= 0:
                        worker.end(overdue=True)

    def _count_failed_start(self, worker: Worker) -> None:
        line = worker.last_line()
        self._forget(worker)
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise ExtractError(f"worker processes end before they are ready: {line or 'no word'}")


def _take_idle(environment: Mapping[str, str]) -> Worker | None:
    """Return the most recently used idle worker for an environment, or None."""
    with _lock:
        _forget_inherited()
        chosen = next((worker for worker in reversed(_idle) if worker.suits(environment)), None)
        if chosen is not None:
            _idle.remove(chosen)
        return chosen


def _put_back(worker: Worker) -> None:
    """Keep a worker for the next call, unless it has answered `MAX_CALLS`."""
    if worker.n_calls >= MAX_CALLS:
        worker.close()
        return
    with _lock:
        _idle.append(worker)
