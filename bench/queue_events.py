"""Events of the queue of ``--jobs``: processes that share clips, and the command they work for.

The clips are shared as in stage one: in tasks of `clip_batches`, the next one to the process whose
result the command has taken up. Programs that compute share the cores equally.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvemo.pipeline.stage_one.division import clip_batches

COMMAND = -1  # number of the command among the processes


@dataclass(frozen=True)
class Costs:
    """Processor seconds of all work in addition to the clips, and the slowdown of busy cores."""

    command: float = 0.0  # of the command, until it sends the first tasks
    process: float = 0.0  # of each process, until it can begin a task
    first: float = 0.0  # of its first task: it builds nets, and starts a process that decodes
    task: float = 0.0  # of each task
    take_up: float = 0.0  # of the command after each task, while the process waits
    close: float = 0.0  # of the command after the last task
    close_clip: float = 0.0  # the same, for each clip
    slowdown: float = 1.0  # factor of all times while more than one core is busy


@dataclass(frozen=True)
class Run:
    """Simulated run: wall seconds, idle share of the cores, and wait for the last task."""

    wall: float
    idle: float
    tail: float  # mean seconds from the end of a process's last task to the end of all tasks


def simulate(seconds: Sequence[float], processes: int, costs: Costs) -> Run:
    """Simulate tasks of so many `seconds` by processes with as many cores."""
    waiting, used = deque(seconds), range(min(processes, len(seconds)))
    # Remaining seconds of all that compute.
    work = {COMMAND: costs.command, **dict.fromkeys(used, costs.process)}
    # Processes that get a task when the command has finished its work, the current work first.
    served = deque([list(used)])
    begun, freed, now, busy = set[int](), list[float](), 0.0, 0.0
    while work:
        active = min(len(work), processes)
        rate = active / len(work) / (costs.slowdown if active > 1 else 1.0)
        step = min(work.values()) / rate
        now, busy = now + step, busy + step * active
        work = {who: left - step * rate for who, left in work.items()}
        for who in sorted((who for who, left in work.items() if left < 1e-9), reverse=True):
            del work[who]
            if who in begun:
                served.append([who])
            for other in served.popleft() if who == COMMAND else ():
                if waiting:
                    start = 0.0 if other in begun else work.get(other, 0.0) + costs.first
                    work[other] = start + costs.task + waiting.popleft()
                    begun.add(other)
                else:
                    freed.append(now)
        if COMMAND not in work and served:
            work[COMMAND] = costs.take_up
    end, tail = now + costs.close, now - sum(freed) / len(freed)
    return Run(end, 1 - (busy + costs.close) / (end * processes), tail)


def share(clips: Sequence[float], processes: int, costs: Costs) -> Run:
    """Simulate ``--jobs``, given the seconds of each clip; one process is the command itself."""
    costs = replace(costs, close=costs.close + costs.close_clip * len(clips))
    if processes == 1:
        return simulate([sum(clips)], 1, replace(costs, process=0.0, take_up=0.0))
    # Long clips are in large files.
    tasks = [sum(map(clips.__getitem__, rows)) for rows in clip_batches(clips, processes, 1)]
    return simulate(tasks, processes, costs)


def losses(clips: Sequence[float], processes: int, costs: Costs) -> dict[str, float]:
    """Return the wall seconds that each limit adds to a run."""
    run = share(clips, processes, costs)
    without = {
        "start": {"command": 0.0, "process": 0.0, "first": 0.0},
        "tasks": {"task": 0.0},
        "command": {"take_up": 0.0, "close": 0.0, "close_clip": 0.0},
        "memory": {"slowdown": 1.0},
    }
    found = {
        name: run.wall - share(clips, processes, replace(costs, **fields)).wall
        for name, fields in without.items()
    }
    return {**found, "last clips": run.tail}
