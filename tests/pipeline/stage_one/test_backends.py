"""Backends of stage one: worker processes, and workers of Dask, one of which is killed."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from spread_samples import digest, extract
from stage_samples import refusal

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.errors import TaskFailed, TrainingDiverged
from mvemo.extract.workers import pool
from mvemo.extract.workers.pool import cores, run_calls
from mvemo.extract.workers.process import Call
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one import backends
from mvemo.pipeline.stage_one.backends import early_processes, thread_variables
from mvemo.pipeline.stage_one.division import ExtractRequest, clip_batches
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.stage_one.tasks import Finished, SpreadRun

distributed = pytest.importorskip("distributed", reason="Dask is not installed: mvemo[dask]")
from distributed.comm.core import CommClosedError  # noqa: E402


@pytest.fixture(scope="module")
def scheduler():
    """Address of a scheduler without workers, in this process."""
    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", protocol="tcp://", dashboard_address=None
    ) as local:
        yield local.scheduler_address


@pytest.fixture
def workers(scheduler, tmp_path):
    """Starts worker processes, and ends those that are left."""
    started = []

    def start(count):
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
def test_a_killed_worker_costs_nothing(
    sounds, whole, scheduler, workers, tmp_path, monkeypatch, capsys
):
    first, _ = workers(2)
    real = SpreadRun._take_up
    taken = []

    def take_up(run, task, finished):
        taken.append(finished.clip_ids)
        if len(taken) == 2:
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        real(run, task, finished)

    monkeypatch.setattr(SpreadRun, "_take_up", take_up)
    options = ("--backend", "dask", "--scheduler", scheduler)
    work = tmp_path / "many"
    assert extract(sounds, "frozen", work, *options) == 0, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err
    # Nothing is lost and nothing there twice: each batch came back once, each row is as it was.
    assert len({clip for ids in taken for clip in ids}) == sum(map(len, taken)) == 11
    manifest = read_manifest(sounds.manifest)
    sizes = [manifest.media_path(clip).stat().st_size for clip in manifest.clips]
    assert len(taken) == len(clip_batches(sizes, 2, 1)) > 2
    out = tmp_path / "many" / "features.h5"
    assert verify_cache(out) == []
    assert not list(out.parent.glob("*.parts"))
    assert digest(out) == digest(whole["frozen"] / "features.h5")
    with open_cache(out) as cache:
        assert [f.clip_id for f in cache.failures] == ["bad"]


def test_a_scheduler_that_cannot_work_is_one_line(sounds, scheduler, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 0.3)
    for address, said in (
        ("tcp://127.0.0.1:9", "--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there"),
        ("http://127.0.0.1:9", "expected tcp://HOST:PORT"),
        ("nowhere", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999", "expected tcp://HOST:PORT"),
        # Without certificates.
        ("tls://127.0.0.1:9", "no Dask scheduler answers there"),
        (scheduler, f"it has no workers: run 'dask worker {scheduler}'"),
    ):
        options = ("--backend", "dask", "--scheduler", address)
        for more in ((), ("--plan",)):
            assert extract(sounds, "frozen", tmp_path, *options, *more) == 2
            assert said in refusal(capsys)


def test_a_thread_of_dask_that_starts_late_is_waited_for(scheduler, monkeypatch):
    client, calls = distributed.Client, []

    def late(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise AssertionError
        return client(*arguments, **options)

    monkeypatch.setattr(distributed, "Client", late)
    with backends.connected(scheduler) as found:
        assert found.status == "running"
    assert calls == [(scheduler,)] * 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (CommClosedError("gone"), "the scheduler tcp://a:1 ended: start it and its workers"),
        (
            distributed.CancelledError("x"),
            "the scheduler tcp://a:1 ended: start it and its workers",
        ),
        (TimeoutError(), "all workers are gone: start some"),
        (distributed.KilledWorker("task 1", None, 3), r"worker that ran it \('task 1'\)"),
    ],
)
def test_a_scheduler_or_workers_that_end_are_one_line(error, message):
    def wait_for_workers(count, timeout):
        raise error

    client = SimpleNamespace(wait_for_workers=wait_for_workers)
    with pytest.raises(TaskFailed, match=message):
        list(backends._results(client, "tcp://a:1", []))


def test_workers_that_could_not_do_the_work_are_refused():
    ours = backends.versions()["mvemo"]
    good = {
        name: {"tcp://a:1": it} for name, it in (("mvemo", ours), ("torch", "1"), ("folder", 1))
    }

    def check(**changes):
        answers = {**good, **changes}
        client = SimpleNamespace(run=lambda f, name, **_: answers.get(name, answers["folder"]))
        return backends.check_workers(client, "x", [Path("/shared")])

    assert check() == 1
    missing = ModuleNotFoundError("No package metadata was found for mvemo")
    for change, said in (
        ({"mvemo": {"tcp://b:2": missing}}, "tcp://b:2: this worker has no mvemo"),
        ({"torch": {"tcp://b:2": missing}}, "tcp://b:2: this worker has no torch: pip install"),
        (
            {"mvemo": {"tcp://b:2": "0.0.1"}},
            f"b:2: .* has mvemo 0.0.1, but this machine has {ours}",
        ),
        ({"folder": {"tcp://a:1": False}}, "tcp://a:1: this worker does not see /shared"),
    ):
        with pytest.raises(BadOption, match=said):
            check(**change)


def test_a_task_that_fails_is_given_out_again_but_not_for_ever(monkeypatch):
    attempts = []
    done = Finished((), (), ())

    def results(client, address, given):
        attempts.append([int(task.label[-1]) for task in given])
        for task, index in zip(given, attempts[-1], strict=True):
            # The first succeeds, the second at its second attempt, the third never, and of the
            # last no attempt would make another end.
            good = index == 0 or (index == 1 and len(attempts) > 1)
            bad = TrainingDiverged("diverged", "wait") if index == 3 else OSError("no handle")
            yield task, done if good else bad

    @contextmanager
    def connected(address):
        yield None

    monkeypatch.setattr(backends, "_results", results)
    monkeypatch.setattr(backends, "connected", connected)
    monkeypatch.setattr(backends, "check_workers", lambda *_: 1)
    given = [SimpleNamespace(label=f"task {i}") for i in range(4)]
    with backends.dask_backend("tcp://x:1", []) as backend:
        ends = {task.label: result for task, result in backend.do(given, lambda text: None)}
    assert attempts == [[0, 1, 2, 3], [1, 2], [2]]
    kinds = (Finished, Finished, OSError, TrainingDiverged)
    assert {k: type(v) for k, v in ends.items()} == {f"task {i}": k for i, k in enumerate(kinds)}


# --- processes on this machine


def waiting_for(jobs):
    """Ids of the processes that wait for the tasks of so many jobs."""
    return [w.pid for w in pool._idle if w.environment == thread_variables(jobs)]


def test_tasks_find_processes_that_have_imported_what_they_need(monkeypatch):
    # A module that no worker has imported already, and that is imported fast.
    monkeypatch.setattr(backends, "TASKS", "colorsys")
    imported = Call("builtins:eval", ("'colorsys' in __import__('sys').modules",))
    # Two processes at most, as few machines have one core.
    with early_processes(2):
        waiting = waiting_for(2)
        assert 1 <= len(waiting) <= 2
        calls = [Call("os:getpid", ()), imported]
        (pid, found) = run_calls(calls, environments=[thread_variables(2)])
        assert pid.result() in waiting
        assert found.result()
        assert len(waiting_for(2)) == len(waiting) - 1
    assert not waiting_for(2)


def test_a_single_process_finds_workers_that_can_read_its_clips(monkeypatch):
    monkeypatch.setattr(backends, "MOST_READERS", 1)
    pool.stop_workers()
    with early_processes(1, 100):
        assert len(pool._idle) == 1
        waiting = {worker.pid for worker in pool._idle}
        imported = Call("builtins:eval", ("{'av', 'cv2'} <= set(__import__('sys').modules)",))
        pid, found = run_calls([Call("os:getpid", ()), imported], workers=1)
        assert pid.result() in waiting
        assert found.result()
    pool.stop_workers()


def test_a_process_counts_its_own_cores_alone():
    call = Call("mvemo.extract.workers.pool:cores", ())
    (counted,) = run_calls([call], environments=[thread_variables(cores())])
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
def test_a_process_has_no_more_threads_than_the_user_set(monkeypatch, variables, expected):
    monkeypatch.setattr(backends, "cores", lambda: 16)
    monkeypatch.setattr(os, "environ", variables)
    given = thread_variables(2)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    assert tuple(given[name] for name in names) == expected
    assert given["LOKY_MAX_CPU_COUNT"] == "8"


def test_processes_end_with_a_command_that_is_refused():
    with early_processes(1):
        assert not waiting_for(1)
    with pytest.raises(ValueError, match="refused"), early_processes(2):
        raise ValueError("refused")
    assert not waiting_for(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "on the processor ("),
        # More than there are cores: a thread each.
        ({"jobs": 4096}, "in up to 4096 processes, each on the processor (1 thread),"),
        ({"scheduler": "tcp://head:8786"}, "on the workers of tcp://head:8786"),
    ],
)
def test_the_device_is_described(options, words, tmp_path):
    settings = load_settings("paper", ["extract.device=cpu"])
    request = ExtractRequest(None, settings, tmp_path, tmp_path / "f.h5", **options)
    plan = ExtractPlan(request, None, (), None, None, {}, (), ())  # type: ignore[arg-type]
    assert words in plan.place()
