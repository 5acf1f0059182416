"""Checking a file of unknown origin in a process of its own, with limits of time and memory.

What HDF5 itself does with a forged file, before any check of ours is reached, may be to run
for ever or to crash; then this process has only lost its child.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.files import cache_files
from mvemo.manifests.files import parse_json

# GiB that the checking process may take beyond the size of the file.
MEMORY_GIB = 4
_CHECK = """
import json, os, sys
try:
    import resource
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
from mvemo.cache import verify_cache
print(json.dumps(verify_cache(sys.argv[1])))
"""


def verify_untrusted(path: Path | str, *, seconds: float) -> list[str]:
    """As `verify_cache`, in a process of its own that may take so long and no longer.

    Parameters
    ----------
    path
        The cache.
    seconds
        Limit of time, above 0.

    Returns
    -------
    The problems, a sentence each; that the check did not end or crashed is one of them.

    Raises
    ------
    MissingCache
        There is no such file.
    BadCache
        The limit of time is not above 0.
    """
    path = Path(path)
    if not path.exists():
        raise MissingCache(f"{path}: there is no such file")
    if seconds <= 0:
        raise BadCache(f"a time limit of {seconds:g} seconds: it must be above 0")
    size = sum(file.stat().st_size for file in cache_files(path))
    memory = size + (MEMORY_GIB << 30)
    command = [sys.executable, "-c", _CHECK, str(path), str(memory)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return [f"not checked to its end within {seconds:g} s: do not open it"]
    if done.returncode == 0:
        with suppress(ValueError):
            return [str(problem) for problem in parse_json(done.stdout)]
    if done.returncode < 0:
        return [f"the check crashed (signal {-done.returncode}): do not open it"]
    last = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["without a word"]
    return [f"the check failed: {last[-1][:200]}"]
