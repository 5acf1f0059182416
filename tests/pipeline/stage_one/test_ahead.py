"""Processes begun ahead do the tasks of the command, and none outlives it."""

from __future__ import annotations

import pytest

from mvemo.extract.workers import pool
from mvemo.extract.workers.pool import cores, run_calls
from mvemo.extract.workers.process import Call
from mvemo.pipeline.stage_one import ahead
from mvemo.pipeline.stage_one.ahead import TASKS, processes_ahead, thread_variables


def waiting_for(jobs: int) -> list[int]:
    """Ids of the processes that wait for the tasks of so many jobs."""
    return [w.pid for w in pool._idle if w.environment == thread_variables(jobs)]


def test_tasks_find_processes_that_have_imported_what_they_need() -> None:
    # Torch is among it; two processes at most, as few machines have one core.
    imported = Call("builtins:eval", (f"{TASKS!r} in __import__('sys').modules",))
    with processes_ahead(2):
        waiting = waiting_for(2)
        assert 1 <= len(waiting) <= 2
        calls = [Call("os:getpid", ()), imported]
        (pid, found) = run_calls(calls, environments=[thread_variables(2)])
        assert pid.result() in waiting
        assert found.result()
        assert len(waiting_for(2)) == len(waiting) - 1
    assert not waiting_for(2)


def test_a_process_counts_its_own_cores_alone() -> None:
    (counted,) = run_calls(
        [Call("mvemo.extract.workers.pool:cores", ())],
        environments=[thread_variables(cores())],
    )
    assert counted.result() == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("8", "8", "8")),
        ({"OMP_NUM_THREADS": "1"}, ("1", "1", "1")),
        ({"OMP_NUM_THREADS": "32"}, ("8", "8", "8")),
        ({"OMP_NUM_THREADS": "4,2", "MKL_NUM_THREADS": "2"}, ("4", "4", "2")),
        ({"OMP_NUM_THREADS": "many"}, ("8", "8", "8")),
    ],
)
def test_a_process_has_no_more_threads_than_the_user_set(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[str, str, str]
) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 16)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given = thread_variables(2)
    assert tuple(given[name] for name in names) == expected
    assert given["LOKY_MAX_CPU_COUNT"] == "8"


def test_one_job_has_no_process_of_its_own() -> None:
    with processes_ahead(1):
        assert not waiting_for(1)


def test_they_end_with_a_command_that_is_refused() -> None:
    with pytest.raises(ValueError, match="refused"), processes_ahead(2):
        raise ValueError("refused")
    assert not waiting_for(2)
