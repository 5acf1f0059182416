"""The program itself: what help loads, what a missing package says, how errors end."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mvemo.pipeline import cli

HEAVY = ("numpy", "h5py", "scipy", "sklearn", "torch", "librosa", "matplotlib", "av", "cv2")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("main", ["--help"]),
        ("main", ["--version"]),
        ("main", ["fuse", "--help"]),
        ("main", ["extract", "--help"]),
        ("main", ["study", "losses", "--help"]),
        ("main_cv", ["--help"]),
    ],
)
def test_help_loads_no_numeric_library(program: str, arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from mvemo.pipeline import cli\n"
        f"sys.argv = ['mvemo', *{arguments!r}]\n"
        f"try:\n    cli.{program}()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.strip().splitlines()
    assert shown
    assert json.loads(loaded) == []


def test_every_command_has_its_line_and_is_found() -> None:
    shown = CliRunner().invoke(cli.mvemo, ["--help"]).output.splitlines()
    for name, (_, line) in cli.COMMANDS.items():
        # One line each: nothing is cut or broken.
        assert [text.split() for text in shown].count([name, *line.split()]) == 1
        command = cli.load_command(name)
        assert isinstance(command, click.Command)
        assert command.name == name


def test_an_unknown_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mvemo", "fuze"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "No such command 'fuze'" in line


def test_errors_that_are_not_of_the_input_are_not_hidden() -> None:
    assert cli.bad_input(KeyError("a")) is None
    assert cli.bad_input(ImportError("no", name="numpy")) is None
    assert cli.bad_input(OSError("no number")) is None
    missing = cli.bad_input(ImportError("no", name="torch.nn"))
    assert missing is not None
    assert "pip install 'mvemo[extract]'" in missing
    assert cli.bad_input(FileNotFoundError(2, "No such file", "a.csv")) == "a.csv: No such file"
