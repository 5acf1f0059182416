"""What comes from files cannot steer the terminal; an interrupted import ends in one line."""

from __future__ import annotations

import io
import os
import signal
import sys

import click
import pytest

from mvemo.pipeline import cli
from mvemo.pipeline.terminal import GuardedStream, guarded_streams, unguarded


def test_control_characters_are_shown_escaped() -> None:
    plain = io.StringIO()
    stream = GuardedStream(plain)
    stream.writelines(["clip \x1b]0;title\x07\x1b[2J", "a\rb\u202ec\x9b\n\tok é\n"])
    assert plain.getvalue() == "clip \\x1b]0;title\\x07\\x1b[2Ja\\x0db\\u202ec\\x9b\n\tok é\n"
    assert unguarded(stream) is plain
    assert not stream.isatty()


def test_streams_are_guarded_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def show() -> None:
        click.echo("out \x1b]0;")
        click.echo("err \x08", err=True)

    before = sys.stdout
    with pytest.raises(SystemExit):
        cli.run(lambda **options: show([], **options), "mvemo")
    assert sys.stdout is before
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("out \\x1b]0;\n", "err \\x08\n")


def test_errors_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def fail() -> None:
        raise OSError(2, "No such file", "a\x1b]2Jb")

    with pytest.raises(SystemExit) as stop:
        cli.run(lambda **options: fail([], **options), "mvemo")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "mvemo: a\\x1b]2Jb: No such file\n"


def test_an_interrupt_that_a_package_turns_into_its_own_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command()
    def load() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with guarded_streams(), pytest.raises(SystemExit) as stop:
            cli.run(lambda **options: load([], **options), "mvemo")
    finally:
        signal.signal(signal.SIGINT, usual)
    assert stop.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted")
