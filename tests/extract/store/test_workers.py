"""Calls in worker processes: all results, errors as they are, and a worker that dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.store.workers import map_unordered


def square(number: int, threads: int) -> tuple[int, int]:
    return number * number, threads


def refuse(number: int, threads: int) -> None:
    raise BadMedia(f"file {number}")


def die(folder: str, threads: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_call_gives_a_result(workers: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    results = list(map_unordered(square, [(i,) for i in range(9)], workers=workers, output="x"))
    assert sorted(value for value, _ in results) == [i * i for i in range(9)]
    # Workers and their threads together do not outnumber the cores.
    assert all(1 <= threads <= max((os.cpu_count() or 1) // workers, 1) for _, threads in results)
    assert signal.getsignal(signal.SIGINT) is before


def test_no_calls_start_no_workers() -> None:
    assert list(map_unordered(square, [], workers=2, output="x")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_call_are_raised(workers: int) -> None:
    with pytest.raises(BadMedia, match="file"):
        list(map_unordered(refuse, [(1,), (2,)], workers=workers, output="x"))


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    calls = [(str(tmp_path),), (str(tmp_path),)]
    with pytest.raises(ExtractError, match="store: a working process died"):
        list(map_unordered(die, calls, workers=2, output="store"))
