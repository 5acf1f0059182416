"""Origin of a file: command line, versions and other facts that do not depend on the machine."""

import platform
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mvemo.manifests.plugins import used_plugins

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


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def command_line() -> str:
    """Return the command line without --shard, so that it is equal for all shards of a run."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--shard":
            next(words, None)
        elif not word.startswith("--shard="):
            kept.append(word)
    return shlex.join([Path(sys.argv[0]).name, *kept])


def provenance(objects: Iterable[tuple[str, str]] = (), /, **facts: Any) -> dict[str, Any]:
    """Return the command, the versions, the caller's facts (JSON values), and used plug-ins.

    These plug-ins are those among `objects`, pairs of kind and name.
    """
    used = used_plugins(objects)
    plugins = {"plugins": used} if used else {}
    return {"command": command_line(), "versions": versions(), **facts, **plugins}
