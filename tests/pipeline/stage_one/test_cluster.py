"""Stage one by workers of a Dask scheduler: one is killed half way, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from spread_samples import Sounds, digest, extract, make_sounds

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.errors import TrainingDiverged
from mvemo.pipeline.errors import BadOption, TaskFailed
from mvemo.pipeline.stage_one import cluster, spread
from mvemo.pipeline.stage_one.tasks import Finished, Task, batch_sizes

distributed = pytest.importorskip("distributed", reason="Dask is not installed: mvemo[dask]")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    return make_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler without workers, in this process."""
    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", protocol="tcp://", dashboard_address=None
    ) as local:
        yield local.scheduler_address


@pytest.fixture
def workers(
    scheduler: str, tmp_path: Path
) -> Iterator[Callable[[int], list[subprocess.Popen[bytes]]]]:
    """Starts worker processes, and ends those that are left."""
    started: list[subprocess.Popen[bytes]] = []

    def start(count: int) -> list[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny"]
        command += ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
        command += ["--local-directory", str(tmp_path)]
        for _ in range(count):
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(count)
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(
    sounds: Sounds,
    scheduler: str,
    workers: Callable[[int], list[subprocess.Popen[bytes]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, _ = workers(2)
    real = spread.SpreadRun._take_up
    taken: list[tuple[str, ...]] = []

    def take_up(run: spread.SpreadRun, task: Task, finished: Finished) -> None:
        taken.append(finished.clip_ids)
        if len(taken) == 2:
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        real(run, task, finished)

    monkeypatch.setattr(spread.SpreadRun, "_take_up", take_up)
    options = ("--backend", "dask", "--scheduler", scheduler)
    # A clip a task, or two.
    one_each = ("--set", "extract.embed_batch=1")
    work = tmp_path / "many"
    assert extract(sounds, "frozen", work, *options, *one_each) == 0, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err
    # Nothing is lost and nothing there twice: each batch came back once, each row is as it was.
    assert sorted(clip for ids in taken for clip in ids) == sorted(
        {c for ids in taken for c in ids}
    )
    assert len(taken) == len(batch_sizes(11, 2, 1)) > 2
    out = tmp_path / "many" / "features.h5"
    assert verify_cache(out) == []
    assert not list(out.parent.glob("*.parts"))
    assert extract(sounds, "frozen", tmp_path / "one", *one_each) == 0
    assert digest(out) == digest(tmp_path / "one" / "features.h5")
    with open_cache(out) as cache:
        assert [f.clip_id for f in cache.failures] == ["bad"]


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ended by."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_a_scheduler_that_is_not_there_or_has_no_workers_is_one_line(
    sounds: Sounds,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    for address, said in (
        ("tcp://127.0.0.1:9", "--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there"),
        ("nowhere", "no Dask scheduler answers there"),
        ("http://127.0.0.1:9", "no Dask scheduler answers there"),
        ("nowhere", "it is not written as tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "it is not written as tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999", "it is not written as tcp://HOST:PORT"),
        # Without certificates.
        ("tls://127.0.0.1:9", "no Dask scheduler answers there"),
        (scheduler, f"it has no workers: 'dask worker {scheduler}'"),
    ):
        options = ("--backend", "dask", "--scheduler", address)
        for more in ((), ("--plan",)):
            assert extract(sounds, "frozen", tmp_path, *options, *more) == 2
            assert said in refusal(capsys)
    assert extract(sounds, "frozen", tmp_path, "--backend", "dask") == 2
    assert "go together: give --scheduler ADDRESS as well" in refusal(capsys)
    assert extract(sounds, "frozen", tmp_path, "--scheduler", scheduler) == 2
    assert "go together: give --backend dask as well" in refusal(capsys)


def results_of(client: Any, address: str, n_tasks: int) -> list[Any]:
    """What comes of tasks that are numbers."""
    numbers: Any = range(n_tasks)
    return [value for _, value in cluster._results(client, address, numbers, numbers)]


def test_a_single_worker_does_the_tasks(
    scheduler: str,
    workers: Callable[[int], list[subprocess.Popen[bytes]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (worker,) = workers(1)
    monkeypatch.setattr(cluster, "do_packed", lambda index, packed: (index, os.getpid()))
    with cluster.connected(scheduler) as client:
        assert results_of(client, scheduler, 3) == 3 * [worker.pid]


@pytest.mark.slow
def test_a_scheduler_that_ends_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--no-dashboard", "--scheduler-file", str(stated)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"]
    command += ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(stated)]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path)

    def kill_scheduler(index: int, packed: bytes) -> tuple[int, None]:
        os.kill(pid, signal.SIGKILL)
        time.sleep(1000)
        return index, None

    pid = process.pid
    monkeypatch.setattr(cluster, "do_packed", kill_scheduler)
    try:
        with distributed.Client(scheduler_file=str(stated), set_as_default=False) as client:
            client.wait_for_workers(1)
            with pytest.raises(TaskFailed, match=r"the scheduler tcp://here:1 ended: start it"):
                results_of(client, "tcp://here:1", 3)
    finally:
        worker.kill()
        process.kill()
        worker.wait()
        process.wait()


class FakeClient:
    """Answers `run` as workers would."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def run(self, function: Callable[..., Any], argument: str, on_error: str = "") -> Any:
        return self.answers.get(argument, self.answers["folder"])


def test_workers_that_could_not_do_the_work_are_refused() -> None:
    ours = cluster.versions()["mvemo"]
    good = {
        "mvemo": {"tcp://a:1": ours},
        "torch": {"tcp://a:1": "1"},
        "folder": {"tcp://a:1": True},
    }
    assert cluster.check_workers(FakeClient(**good), "x", [Path("/shared")]) == 1
    missing = ModuleNotFoundError("No package metadata was found for mvemo")
    for change, said in (
        ({"mvemo": {"tcp://b:2": missing}}, "tcp://b:2: this worker has no mvemo"),
        ({"torch": {"tcp://b:2": missing}}, "tcp://b:2: this worker has no torch: pip install"),
        (
            {"mvemo": {"tcp://b:2": "0.0.1"}},
            f"tcp://b:2: .* has mvemo 0.0.1, and here it is {ours}",
        ),
        ({"folder": {"tcp://a:1": False}}, "tcp://a:1: this worker does not see /shared"),
    ):
        with pytest.raises(BadOption, match=said):
            cluster.check_workers(FakeClient(**{**good, **change}), "x", [Path("/shared")])


def test_a_task_that_fails_is_given_out_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[list[int]] = []
    done = Finished((), (), ())

    def results(
        client: Any, address: str, given: Sequence[Any], indices: Sequence[int]
    ) -> Iterator[tuple[int, Finished | Exception]]:
        attempts.append(list(indices))
        for index in indices:
            # The first succeeds, the second at its second attempt, the third never, and of the
            # last no attempt would make another end.
            good = index == 0 or (index == 1 and len(attempts) > 1)
            bad = TrainingDiverged("diverged", "wait") if index == 3 else OSError("no handle")
            yield index, done if good else bad

    @contextmanager
    def connected(address: str) -> Iterator[None]:
        yield None

    monkeypatch.setattr(cluster, "_results", results)
    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(cluster, "check_workers", lambda *_: 1)
    names: list[Any] = [SimpleNamespace(label=f"task {i}") for i in range(4)]
    with cluster.cluster_backend("tcp://x:1", []) as backend:
        ends = {task.label: result for task, result in backend.do(names, lambda text: None)}
    assert attempts == [[0, 1, 2, 3], [1, 2], [2]]
    kinds = {label: type(result).__name__ for label, result in ends.items()}
    assert kinds == {
        "task 0": "Finished",
        "task 1": "Finished",
        "task 2": "OSError",
        "task 3": "TrainingDiverged",
    }
