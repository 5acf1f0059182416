"""Calls spread over worker processes that are kept: a dead one costs the call that it had."""

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

# Libraries lose some memory with each clip: a worker is replaced after so many.
MAX_CALLS = 1000
# Answers that wait to be taken; parts beyond them make their workers wait.
MAX_WAITING = 16
# So many workers in a row that end before they are ready: the next would, too.
_MAX_FAILED_STARTS = 3
# Workers without a call, of the process whose id is beside them (a fork has none of its own).
_idle: list[Worker] = []
_idle_of = os.getpid()
_lock = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What a call came to."""

    index: int  # of the call
    value: Any = None  # that it returned
    # That it raised: an error of the function, or `WorkerDied`; None where there is none.
    error: BaseException | None = None
    last: bool = True  # whether nothing more comes of the call; False of what it emits

    def result(self) -> Any:
        """The value; raises the error where there is one."""
        if self.error is not None:
            raise self.error
        return self.value


def cores() -> int:
    """How many processors this process may use, also by a container's limits."""
    from joblib import cpu_count

    return int(cpu_count())


def run_calls(
    calls: Sequence[Call],
    *,
    workers: int = 0,
    environments: Sequence[Mapping[str, str]] = (),
) -> Iterator[Outcome]:
    """Answer calls in worker processes, also where there is one call or one core.

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
                # A KeyboardInterrupt that was raised where Python swallows exceptions.
                if interrupts.noted:
                    raise KeyboardInterrupt
                yield outcome
    finally:
        # Also on Ctrl-C: what is under way is of no use any more.
        run.close()


def start_workers(
    count: int, preload: str = "", environment: Mapping[str, str] | None = None
) -> None:
    """Start workers ahead of their first call: they are ready when others are done importing."""
    wanted = environment or {}
    while True:
        with _lock:
            _forget_inherited()
            if sum(worker.environment == wanted for worker in _idle) >= count:
                return
            _idle.append(Worker(preload, wanted))


def stop_workers(environment: Mapping[str, str] | None = None) -> None:
    """End the workers of an environment that have no call; the next call starts new ones."""
    _stop(lambda worker: worker.environment == (environment or {}))


def worker_memory() -> int:
    """Return the most bytes that one of the workers without a call has taken; 0 if not known."""
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
    """Kill workers, all at once: it takes the system a while to free the memory of each."""
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.close()


def _forget_inherited() -> None:
    """Leave the workers of the process that this one was forked from alone."""
    global _idle_of
    if _idle_of != os.getpid():
        _idle.clear()
        _idle_of = os.getpid()


class _Run:
    """The calls of one `run_calls`, and the workers that have them."""

    def __init__(
        self, calls: Sequence[Call], workers: int, environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._calls = calls
        # Those that no process has, and processes without a call; shared ones otherwise.
        self._environments = list(reversed(environments)) if environments else None
        self._own: list[Worker] = []
        self._waiting = deque(range(len(calls)))
        self._workers = workers
        self._inbox: Inbox = queue.Queue(MAX_WAITING)
        self._busy: dict[Worker, int] = {}
        self._failed_starts = 0

    def outcomes(self, interrupts: Interrupts) -> Iterator[Outcome]:
        """All of them."""
        while self._waiting or self._busy:
            interrupts.defer()
            while self._waiting and len(self._busy) < self._workers:
                self._give(self._take_worker())
            outcome = self._outcome(*self._next_answer(interrupts))
            interrupts.release()
            if outcome is not None:
                yield outcome

    def _outcome(self, worker: Worker, answer: Answer) -> Outcome | None:
        """What an answer says of its worker's call; None where another worker is to have it."""
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
        """End the workers that still have a call, and those that are this run's alone."""
        _close([*self._busy, *self._own])
        # Their threads may wait for room in the inbox.
        while self._busy:
            worker, answer = self._inbox.get()
            if not isinstance(answer, Part):
                self._busy.pop(worker, None)

    def _take_worker(self) -> Worker:
        """One that was kept, or a new one."""
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
        """Close a worker that has ended; the next has its environment."""
        worker.close()
        if self._environments is not None:
            self._environments.append(worker.environment)

    def _give(self, worker: Worker) -> None:
        index = self._waiting.popleft()
        self._busy[worker] = index
        worker.start(self._calls[index], self._inbox)

    def _next_answer(self, interrupts: Interrupts) -> tuple[Worker, Answer]:
        """Wait for a worker; those that take too long are ended, which is an answer, too."""
        while True:
            left = min(worker.seconds_left for worker in self._busy)
            try:
                # Not for long: a worker's clock starts when its call is sent.
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
    """The worker for an environment that was the last to be without a call."""
    with _lock:
        _forget_inherited()
        chosen = next((worker for worker in reversed(_idle) if worker.suits(environment)), None)
        if chosen is not None:
            _idle.remove(chosen)
        return chosen


def _put_back(worker: Worker) -> None:
    """Keep a worker for the next call, unless it has served long enough."""
    if worker.n_calls >= MAX_CALLS:
        worker.close()
        return
    with _lock:
        _idle.append(worker)
