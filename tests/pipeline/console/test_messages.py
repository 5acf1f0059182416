"""The library is silent unless logging is set up; a program prints each note once."""

import logging
import subprocess
import sys
import threading

import pytest

from mvemo.pipeline.console import messages
from mvemo.pipeline.console.messages import Verbosity, collected_notes, running, tell, tell_note
from mvemo.pipeline.console.progress import Progress


@pytest.fixture
def silent_library(monkeypatch):
    monkeypatch.setattr(messages, "_library", Verbosity())
    monkeypatch.setattr(messages, "_program", messages._library)


def test_notes_and_progress_are_logged_once(silent_library, capfd, caplog):
    with caplog.at_level(logging.INFO, logger="mvemo"):
        for _ in range(2):
            tell_note("only channel 1 of 100 % is read\x1b[2J")
            with Progress("decode", 2) as bar:
                bar.step(2)
    levels = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [
        ("mvemo", "WARNING", "only channel 1 of 100 % is read\\x1b[2J"),
        *[("mvemo", "INFO", "decode: 2 done")] * 2,
    ]
    assert capfd.readouterr() == ("", "")


def test_a_program_prints_the_notes_of_all_its_threads(silent_library, capsys):
    with running(Verbosity()):
        for _ in range(2):
            thread = threading.Thread(target=tell_note, args=("a.wav: silent",))
            thread.start()
            thread.join()
        tell("done")
    assert capsys.readouterr().err == "note: a.wav: silent\ndone\n"


def test_a_note_is_collected_by_every_caller(silent_library):
    for _ in range(2):
        with collected_notes() as notes:
            for _ in range(2):
                tell_note("a.wav: silent")
        assert notes == ["a.wav: silent"]


@pytest.mark.parametrize("setup", ["", "import logging; logging.basicConfig()"])
def test_nothing_is_printed_unless_logging_is_set_up(setup):
    code = f"{setup}\nfrom mvemo.pipeline.console.messages import tell_note\ntell_note('silent')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "WARNING:mvemo:silent\n" if setup else "")
