"""Verification of a cache of unknown origin in a subprocess, with limits of time and memory.

HDF5 may run endlessly or crash on a forged file before any check of ours is reached. Then only
the subprocess is lost.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.storage.files import cache_files
from mvemo.manifests.files import parse_json

# Memory of the subprocess in GiB, in addition to the size of the file.
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
    """Verify a cache as `verify_cache` does, in a subprocess with a time limit.

    Parameters
    ----------
    path
        Path of the cache.
    seconds
        Time limit in seconds, above 0.

    Returns
    -------
    Problems, one sentence each; a crash or a timeout of the check is one of them.

    Raises
    ------
    MissingCache
        The file does not exist.
    BadCache
        The time limit is not above 0.
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
