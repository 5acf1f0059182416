"""Calls in worker processes: all answers, errors as they are, and workers that die or hang."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mvemo.extract.errors import OutOfMemory, WorkerDied
from mvemo.extract.workers import pool
from mvemo.extract.workers.pool import run_calls, start_workers, stop_workers
from mvemo.extract.workers.process import Call, ClipLimits, peak_memory
from mvemo.manifests.errors import MvemoError

PID = Call("os:getpid", ())


def answers(*calls, workers=1):
    return sorted(run_calls(calls, workers=workers), key=lambda outcome: outcome.index)


def test_relative_paths_start_from_the_folder_of_the_caller(tmp_path, monkeypatch):
    before = answers(Call("os:getcwd", ()))[0].result()
    monkeypatch.chdir(tmp_path)
    assert answers(Call("os:getcwd", ()))[0].result() == str(tmp_path) != before


@pytest.mark.parametrize("workers", [1, 2])
def test_each_call_has_an_answer(workers):
    before = signal.getsignal(signal.SIGINT)
    calls = [Call("operator:mul", (i, i)) for i in range(9)]
    found = answers(*calls, workers=workers)
    assert [outcome.result() for outcome in found] == [i * i for i in range(9)]
    assert signal.getsignal(signal.SIGINT) is before
    assert list(run_calls([])) == []


def test_one_call_too_runs_in_another_process_and_workers_are_kept():
    stop_workers()
    start_workers(1)
    (ahead,) = [worker.pid for worker in pool._idle]
    assert answers(PID)[0].result() == answers(PID)[0].result() == ahead != os.getpid()


def test_errors_of_a_call_are_its_own():
    missing = Call("mvemo.extract.media.reading:decode_clip", ("nowhere.mp4",))
    found = answers(missing, Call("math:sqrt", (-1.0,)), PID)
    with pytest.raises(FileNotFoundError, match="no such media file"):
        found[0].result()
    with pytest.raises(ValueError, match=r"math|negative"):
        found[1].result()
    assert found[2].error is None


@pytest.mark.parametrize(
    ("call", "reason", "passing"),
    [
        (Call("os:abort", ()), "the decoder crashed (SIGABRT)", False),
        (Call("signal:raise_signal", (signal.SIGSEGV,)), "the decoder crashed (SIGSEGV)", False),
        (Call("os:_exit", (3,)), "exit code 3", False),
        (Call("signal:raise_signal", (signal.SIGKILL,)), "was killed (SIGKILL)", True),
        (Call("time:sleep", (1000,), seconds=0.2), "took longer than 0.2 s", True),
        # Stopped, so that it does not end by itself either.
        (Call("signal:raise_signal", (signal.SIGSTOP,), seconds=0.2), "took longer", True),
    ],
)
def test_a_worker_that_dies_or_hangs_costs_its_call(call, reason, passing):
    before, dead, after = answers(PID, call, PID)
    with pytest.raises(WorkerDied) as caught:
        dead.result()
    assert reason in str(caught.value)
    assert caught.value.passing == passing
    assert before.result() != after.result()


def test_a_call_that_worked_until_it_was_stopped_would_again(monkeypatch):
    seconds = iter((5.0, 5.15))
    monkeypatch.setattr(pool.process, "processor_seconds", lambda pid: next(seconds, 0.0))
    (dead,) = answers(Call("time:sleep", (1000,), seconds=0.2))
    with pytest.raises(WorkerDied, match=r"took longer than 0\.2 s") as caught:
        dead.result()
    assert not caught.value.passing


def test_a_call_that_asks_for_too_much_memory_fails_and_the_worker_goes_on():
    greedy = Call("operator:mul", (b"x", 1 << 30), memory=1 << 28)
    modest = Call("operator:mul", (b"x", 1 << 10), memory=1 << 28)
    before, failed, well, after = answers(PID, greedy, modest, PID)
    with pytest.raises(OutOfMemory, match=r"more than 0\.25 GiB of memory"):
        failed.result()
    assert len(well.result()) == 1 << 10
    assert before.result() == after.result()


def test_the_memory_of_a_worker_is_not_that_of_the_process_that_started_it():
    stop_workers()
    ballast = bytearray(os.urandom(1 << 20) * 150)
    answers(PID)
    assert 0 < pool.worker_memory() < len(ballast) < peak_memory(os.getpid())
    stop_workers()
    assert pool.worker_memory() == peak_memory(-1) == 0


def test_workers_started_ahead_for_an_environment_serve_it_alone():
    stop_workers()
    threads = {"OMP_NUM_THREADS": "3"}
    # With a variable that is known when there are calls.
    environments = [{**threads, "MVEMO_TEST": "0"}]
    variables = [Call("os:getenv", (name,)) for name in ("OMP_NUM_THREADS", "MVEMO_TEST")]
    start_workers(2, environment=threads)
    try:
        pids = {worker.pid for worker in pool._idle}
        assert answers(PID)[0].result() not in pids
        outcomes = list(run_calls([PID, *variables], environments=environments))
        found = {outcome.index: outcome.result() for outcome in outcomes}
        assert found.pop(0) in pids
        assert found == {1: "3", 2: "0"}
        # It ended with its calls; a process of other threads is started for the next.
        (left,) = {worker.pid for worker in pool._idle} & pids
        (other,) = run_calls([variables[0]], environments=[{"OMP_NUM_THREADS": "2"}])
        assert other.result() == "2"
        stop_workers(threads)
        assert left not in {worker.pid for worker in pool._idle}
    finally:
        stop_workers(threads)


def test_an_idle_worker_that_died_costs_nothing():
    answers(PID)
    (worker, *_) = pool._idle
    os.kill(worker.pid, signal.SIGTERM)
    worker._process.wait()
    assert answers(PID)[0].result() != worker.pid


def test_a_worker_is_replaced_after_many_calls(monkeypatch):
    stop_workers()
    monkeypatch.setattr(pool, "MAX_CALLS", 2)
    found = [outcome.result() for outcome in answers(PID, PID, PID)]
    assert found[0] == found[1] != found[2]


def test_workers_that_cannot_start_end_the_run_in_one_line(monkeypatch):
    stop_workers()
    with pytest.raises(MvemoError, match="end while they start: ModuleNotFoundError"):
        answers(Call("mvemo.nowhere:nothing", ()))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MvemoError, match="a worker process cannot be started"):
        answers(PID)


def test_calls_may_come_from_any_thread():
    stop_workers()
    found = []
    threads = [threading.Thread(target=lambda: found.extend(answers(PID, PID))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Their workers do not end with the thread that started them.
    assert answers(PID)[0].result() in {outcome.result() for outcome in found}


def test_what_a_library_prints_reaches_neither_the_pipe_nor_the_terminal(capfd):
    printed = Call("os:write", (1, b"warning: no sync\n"))
    assert answers(printed, PID)[0].result() == 17
    assert capfd.readouterr() == ("", "")


def test_last_words_are_those_of_the_call():
    words = Call("builtins:exec", ("import os; os.write(2, b'bad chunk'); os.abort()",))
    of_another = Call("os:write", (2, b"of another clip"))
    _, silent, speaking = answers(of_another, Call("os:abort", ()), words)
    assert str(silent.error) == "the decoder crashed (SIGABRT)"
    assert str(speaking.error) == "the decoder crashed (SIGABRT: bad chunk)"


def test_an_error_that_cannot_be_sent_is_told_by_its_words():
    (found,) = answers(Call("builtins:exec", ("raise ValueError(lambda: 0)",)))
    assert isinstance(found.error, RuntimeError)
    assert str(found.error).startswith("ValueError: <function")


@pytest.mark.parametrize("tunables", [None, "glibc.malloc.check=0"])
def test_large_pages_are_asked_for_unless_the_user_sets_malloc(monkeypatch, tunables):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if tunables is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    stop_workers()
    names = [Call("os:getenv", (name,)) for name in ("GLIBC_TUNABLES", "OMP_NUM_THREADS")]
    expected = [tunables or "glibc.malloc.hugetlb=1", "1"]
    assert [outcome.result() for outcome in answers(*names)] == expected
    stop_workers()


PARTS = """
import os, pathlib, time
def count(n, pause, emit):
    for i in range(n):
        time.sleep(pause)
        emit(i)
    return n
def die(emit):
    emit("first")
    os.abort()
def hang(emit):
    emit("first")
    time.sleep(1000)
def flood(path, emit):
    for i in range(200):
        pathlib.Path(path + "~").write_text(str(i))
        os.replace(path + "~", path)
        emit(bytes(1 << 17))
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    (tmp_path / "emitting.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    stop_workers()
    yield "emitting"
    stop_workers()


def test_parts_come_in_order_before_the_last_and_a_death_costs_what_would_follow(parts):
    # Far longer in all than its limit, most of which the caller takes.
    count = Call(f"{parts}:count", (3, 0.01), seconds=0.4, parts=True)
    found = []
    for outcome in run_calls([count]):
        found.append((outcome.result(), outcome.last))
        time.sleep(0.2)
    assert found == [(0, False), (1, False), (2, False), (3, True)]
    for name, reason in (("die", "SIGABRT"), ("hang", "took longer than 0.2 s")):
        part, last = run_calls([Call(f"{parts}:{name}", (), seconds=0.2, parts=True)])
        assert (part.value, part.last) == ("first", False)
        with pytest.raises(WorkerDied, match=reason):
            last.result()


def test_parts_wait_for_the_caller_and_their_worker_ends_with_its_interest(parts, tmp_path):
    told, n_threads = tmp_path / "told", threading.active_count()
    outcomes = run_calls([Call(f"{parts}:flood", (str(told),), parts=True)])
    assert len(next(outcomes).value) == 1 << 17
    time.sleep(0.2)
    assert int(told.read_text()) <= pool.MAX_WAITING + 3
    outcomes.close()
    assert not pool._idle
    # The thread that waited for room ends, too.
    deadline = time.monotonic() + 60
    while threading.active_count() > n_threads:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert answers(PID)[0].error is None


def test_limits_grow_with_the_file(tmp_path):
    limits, path = ClipLimits(seconds=10.0, memory=0.5), tmp_path / "large"
    assert limits.of_file(path) == (10.0, 1 << 29)
    path.touch()
    os.truncate(path, 300_000_000)
    assert limits.of_file(path)[0] == pytest.approx(110.0)
    assert ClipLimits(seconds=0.0).of_file(path)[0] == 0.0


PARENT = """
import sys, threading
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call
def calls():
    file = sys.argv[1]
    body = f"import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    list(run_calls([Call("builtins:exec", (body,))], workers=1))
if sys.argv[2] == "thread":
    # The system's own signal is of no use here: the end of the pipe has to do.
    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()
else:
    calls()
"""


@pytest.mark.parametrize(
    ("where", "number"), [("main", signal.SIGKILL), ("thread", signal.SIGTERM)]
)
def test_workers_end_with_the_process_that_started_them(tmp_path, number, where):
    told = tmp_path / "pid"
    os.mkfifo(told)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(told), where])
    # Until the worker is in its call.
    pid = int(told.read_text())
    parent.send_signal(number)
    assert parent.wait() == -number
    # Orphans of a container without an init stay as zombies.
    with suppress(ProcessLookupError, FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_answer_is_taken_ends_all(monkeypatch, number):
    class Interrupted(pool.Inbox):
        """Where a signal comes at the worst moment: the answer is taken, and nobody has it."""

        def get(self, timeout):
            super().get(timeout)
            signal.raise_signal(number)

    class Ended(Exception):
        """What the handler of SIGTERM raises here."""

    def end(*_):
        raise Ended

    stop_workers()
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end}
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pool, "Inbox", Interrupted)
            with pytest.raises((KeyboardInterrupt, Ended)):
                list(run_calls([PID, Call("time:sleep", (60,))], workers=2))
        assert {each: signal.getsignal(each) for each in handlers} == handlers
        assert not pool._idle
        assert answers(PID)[0].error is None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize("swallowed", [True, False])
def test_an_interrupt_ends_the_calls_also_if_python_swallows_it(swallowed):
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = run_calls([PID, PID])
    next(outcomes)
    try:
        if swallowed:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                next(outcomes)
        else:
            # A handler that is set meanwhile stays, and gets its signals itself.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.raise_signal(signal.SIGINT)
            assert next(outcomes).error is None
            outcomes.close()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
