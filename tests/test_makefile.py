"""`make extract` and `make fuse` hand every name to the command as it was given."""

from __future__ import annotations

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
def venv(tmp_path: Path) -> Path:
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


def arguments(venv: Path, target: str, **variables: str) -> list[str]:
    """What the command of a target is called with."""
    given = [f"{name}={text}" for name, text in variables.items()]
    kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", *variables)}
    done = subprocess.run(
        ["make", "--silent", "-C", str(ROOT), target, f"VENV={venv}", *given],
        capture_output=True,
        text=True,
        check=True,
        env=kept,
    )
    words: list[str] = json.loads(done.stdout.strip().splitlines()[-1])
    return words


@pytest.mark.parametrize(
    "name",
    [
        "it's.csv",
        'my "best" clips.csv',
        "a$b and $HOME $(WORK).csv",
        "clips [1](2){3}; echo no.csv",
        "a,b&c|d#e*?`f`.csv",
        "--profile",
        "Ünïcode.csv",
    ],
)
def test_any_name_reaches_the_command(venv: Path, name: str) -> None:
    words = arguments(venv, "extract", MANIFEST=name, WORK=f"w {name}", FOLDS=f"f {name}")
    assert words == [
        *("extract", "--work", f"w {name}", "--out", f"w {name}/features.h5"),
        *("--folds", f"f {name}", "--", name),
    ]
    words = arguments(venv, "fuse", FEATURES=name, OUT=f"o {name}")
    assert words == ["fuse", "--out", f"o {name}", "--", name]


def test_both_stages_get_the_profile_and_options_of_ones_own_come_after_it(venv: Path) -> None:
    assert arguments(venv, "extract", PROFILE="my own's.toml", ARGS="--profile demo") == [
        *("extract", "--work", "work", "--out", "work/features.h5"),
        *("--profile", "my own's.toml", "--profile", "demo"),
    ]
    assert arguments(venv, "fuse", PROFILE="pretrained") == [
        *("fuse", "--out", "out", "--profile", "pretrained", "--", "work/features.h5")
    ]


def test_what_is_not_given_is_left_to_the_command(venv: Path) -> None:
    assert arguments(venv, "extract", ARGS="--protocol frozen --set 'a=b c'") == [
        *("extract", "--work", "work", "--out", "work/features.h5"),
        *("--protocol", "frozen", "--set", "a=b c"),
    ]
    assert arguments(venv, "fuse") == ["fuse", "--out", "out", "--", "work/features.h5"]


def test_the_demos_nets_are_trained_by_two_processes(venv: Path) -> None:
    assert arguments(venv, "extract") == [
        *("extract", "--work", "work", "--out", "work/features.h5", "--jobs", "2")
    ]
