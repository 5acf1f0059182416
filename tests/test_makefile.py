"""`make extract` and `make fuse` hand every name to the command as it was given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A stand-in for `mvemo` that tells its arguments.
STUB = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def venv(tmp_path):
    """An environment that is up to date and has nothing but the stand-in."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    for name in ("mvemo", "python"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    later = max((ROOT / name).stat().st_mtime for name in ("setup.cfg", "pyproject.toml")) + 10
    for name in (".base", ".extract", ".dev"):
        (folder / name).touch()
        os.utime(folder / name, (later, later))
    return folder


def arguments(venv, target, **variables):
    """What the command of a target is called with."""
    given = [f"{name}={text}" for name, text in variables.items()]
    kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", *variables)}
    command = ["make", "--silent", "-C", str(ROOT), target, f"VENV={venv}", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept)
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "name",
    [
        *("it's.csv", 'my "best" clips.csv', "a$b and $HOME $(WORK).csv", "--profile"),
        *("clips [1](2){3}; echo no.csv", "a,b&c|d#e*?`f`.csv", "Ünïcode.csv"),
    ],
)
def test_any_name_reaches_the_command(venv, name):
    words = arguments(venv, "extract", MANIFEST=name, WORK=f"w {name}", FOLDS=f"f {name}")
    assert words == [
        *("extract", "--work", f"w {name}", "--out", f"w {name}/features.h5"),
        *("--folds", f"f {name}", "--", name),
    ]
    words = arguments(venv, "fuse", FEATURES=name, OUT=f"o {name}")
    assert words == ["fuse", "--out", f"o {name}", "--", name]


EXTRACT = ("extract", "--work", "work", "--out", "work/features.h5")
FUSE = ("fuse", "--out", "out")


@pytest.mark.parametrize(
    ("target", "variables", "words"),
    [
        # What is not given is left to the command; the demo's nets are trained by two processes.
        ("extract", {}, [*EXTRACT, "--jobs", "2"]),
        ("fuse", {}, [*FUSE, "--", "work/features.h5"]),
        ("fuse", {"PROFILE": "best"}, [*FUSE, "--profile", "best", "--", "work/features.h5"]),
        # Options of one's own come after the profile.
        (
            "extract",
            {"PROFILE": "my own's.toml", "ARGS": "--protocol frozen --set 'a=b c'"},
            [*EXTRACT, "--profile", "my own's.toml", "--protocol", "frozen", "--set", "a=b c"],
        ),
    ],
)
def test_commands_get_what_is_given(venv, target, variables, words):
    assert arguments(venv, target, **variables) == words
