"""What comes from files cannot steer the terminal; an interrupted import ends in one line."""

import io
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import click
import pytest

from mvemo.pipeline import cli, start
from mvemo.pipeline.console.messages import GuardedStream, guarded_streams, unguarded
from mvemo.pipeline.start import (
    SPINS,
    end_at_once,
    interrupting_signals,
    let_threads_sleep,
    take_early_signals,
)


@contextmanager
def usual_handlers():
    """Python's own handlers, whatever runs the tests has set."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_control_characters_are_shown_escaped():
    plain = io.StringIO()
    stream = GuardedStream(plain)
    stream.writelines(["clip \x1b]0;title\x07\x1b[2J", "a\rb\u202ec\x9b\n\tok é\n"])
    assert plain.getvalue() == "clip \\x1b]0;title\\x07\\x1b[2Ja\\x0db\\u202ec\\x9b\n\tok é\n"
    assert unguarded(stream) is plain
    assert not stream.isatty()


def test_results_and_errors_are_escaped_while_a_command_runs(capsys):
    @click.command()
    def show():
        click.echo("out \x1b]0;")
        raise OSError(2, "No such file", "a\x1b]2Jb")

    before = sys.stdout
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda **options: show([], **options), "mvemo")
    assert (sys.stdout, stop.value.code) == (before, 2)
    assert capsys.readouterr() == ("out \\x1b]0;\n", "mvemo: a\\x1b]2Jb: No such file\n")


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_a_signal_that_a_package_turns_into_its_own_error(number, status, words, capsys):
    @click.command()
    def load():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    with usual_handlers(), guarded_streams(), pytest.raises(SystemExit) as stop:
        cli.run(lambda **options: load([], **options), "mvemo")
    assert stop.value.code == status
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
def test_a_signal_before_anything_is_imported(error, monkeypatch, capsys):
    def load(name):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise error

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(start, "import_module", load)
    monkeypatch.setattr(start, "_exit", end)
    with usual_handlers():
        with pytest.raises(SystemExit) as stop:
            start.main()
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is end_at_once
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_sigterm_reaches_whoever_waits_for_an_interrupt():
    told: list[int] = []
    with usual_handlers(), interrupting_signals() as signals:
        signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert told == signals == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "interrupted before the work began\n"),
        (signal.SIGTERM, "ended by SIGTERM before the work began\n"),
    ],
)
def test_a_signal_before_the_program_is_imported(number, line):
    # A shell lets what it runs in the background ignore Ctrl-C, and that is inherited.
    default = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    kill = f"os.kill(os.getpid(), {int(number)})"
    code = f"import os, signal; import mvemo.pipeline.start as start; {default}; "
    # The rest of the program is imported after this.
    code += f"start.let_threads_sleep = lambda: {kill}; start.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (128 + number, line)


def test_early_handlers_give_way_to_those_that_finish_work_and_leave_those_of_others():
    with usual_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        take_early_signals()
        with interrupting_signals() as signals, pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is end_at_once
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_wait_as_the_environment_says_or_not_long(given, spins, monkeypatch):
    environment = dict(given)
    monkeypatch.setattr("os.environ", environment)
    let_threads_sleep()
    assert environment.get("GOMP_SPINCOUNT") == spins
