"""Reading of media files in worker processes, without the working cache.

`BadMedia` is raised for a file that crashes its decoder, hangs, or needs too much memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mvemo.extract.errors import BadMedia, OutOfMemory, WorkerDied
from mvemo.extract.workers.pool import run_calls, start_workers
from mvemo.extract.workers.process import Call, ClipLimits
from mvemo.manifests.errors import MvemoError

_LIMITS = ClipLimits()
DECODE = "mvemo.extract.media.reading:decode_clip"
PROBE = "mvemo.extract.media.reading:probe_seconds"
HAS_PICTURES = "mvemo.extract.media.reading:has_pictures"


def start_readers(count: int = 1) -> None:
    """Start worker processes that import the media libraries while this process continues."""
    start_workers(count, "mvemo.extract.store.decoding,mvemo.extract.store.decoded,scipy.fft")


def read_each(
    function: str, files: Sequence[tuple[Path, dict[str, Any]]], *, workers: int = 0
) -> Iterator[tuple[int, Any | MvemoError]]:
    """Call ``module:name`` for each (path, keywords) in workers; yield (row, result or error)."""
    calls = [
        Call(function, (path,), *_LIMITS.of_file(path), keywords=keywords)
        for path, keywords in files
    ]
    for outcome in run_calls(calls, workers=workers):
        error = _reading_error(files[outcome.index][0], outcome.error)
        yield outcome.index, outcome.result() if error is None else error


def _reading_error(path: Path, error: BaseException | None) -> MvemoError | None:
    """Return the media error behind a failed call, or None."""
    if isinstance(error, WorkerDied):
        return BadMedia(f"{path}: {error}")
    if isinstance(error, OutOfMemory):
        return BadMedia(f"{path}: reading it takes more than {_LIMITS.memory:g} GiB of memory")
    return error if isinstance(error, MvemoError) else None


def read_one(function: str, path: Path, **keywords: Any) -> Any:
    ((_, found),) = read_each(function, [(path, keywords)])
    if isinstance(found, MvemoError):
        raise found
    return found
