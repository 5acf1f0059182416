"""Reading of media files in worker processes, without the working cache.

`BadMedia` is raised for a file that crashes its decoder, hangs, or needs too much memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvemo.extract.errors import BadMedia, OutOfMemory, WorkerDied
from mvemo.extract.workers import pool, process
from mvemo.manifests.errors import MvemoError

_LIMITS = process.ClipLimits()
DECODE = "mvemo.extract.media.reading:decode_clip"
PROBE = "mvemo.extract.media.reading:probe_seconds"
HAS_PICTURES = "mvemo.extract.media.reading:has_pictures"


def start_readers(count: int = 1) -> None:
    """Start worker processes that import the media libraries while this process continues."""
    pool.start_workers(count, "mvemo.extract.store.decoding,mvemo.extract.store.decoded,scipy.fft")


def read_each(
    function: str, files: Sequence[tuple[Path, dict[str, Any]]], *, workers: int = 0
) -> Iterator[tuple[int, Any | MvemoError]]:
    """Call ``module:name`` for each (path, keywords) in workers; yield (row, result or error)."""
    calls = [
        process.Call(function, (path,), *_LIMITS.of_file(path), keywords=keywords)
        for path, keywords in files
    ]
    for outcome in pool.run_calls(calls, workers=workers):
        path, error = files[outcome.index][0], outcome.error
        if isinstance(error, WorkerDied):
            error = BadMedia(f"{path}: {error}")
        elif isinstance(error, OutOfMemory):
            limit = f"{_LIMITS.memory:g} GiB of memory"
            error = BadMedia(f"{path}: reading it takes more than {limit}")
        yield outcome.index, error if isinstance(error, MvemoError) else outcome.result()


def read_one(function: str, path: Path, **keywords: Any) -> Any:
    ((_, found),) = read_each(function, [(path, keywords)])
    if isinstance(found, MvemoError):
        raise found
    return found
