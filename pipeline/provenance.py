"""Where a file came from: versions, command line, machine-independent facts."""

from __future__ import annotations

import platform
import shlex
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "mvemo",
    "numpy",
    "scipy",
    "scikit-learn",
    "h5py",
    "torch",
    "torchvision",
    "av",
    "opencv-python-headless",
    "soundfile",
    "soxr",
    "librosa",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that values may depend on."""
    return {"python": platform.python_version(), **_installed()}


@cache
def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command as it was typed, the program by its name alone.

    Which shard it does is left out: all shards of a run come from one command.
    """
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--shard":
            next(words, None)
        elif not word.startswith("--shard="):
            kept.append(word)
    return shlex.join([Path(sys.argv[0]).name, *kept])


def provenance(**facts: Any) -> dict[str, Any]:
    """Command, versions, and whatever else the caller states (JSON values)."""
    return {"command": command_line(), "versions": versions(), **facts}
