"""Reading of media files in worker processes, for what needs no working cache.

A file that crashes its decoder, hangs, or asks for all memory is a `BadMedia` here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvemo.extract.errors import BadMedia, ExtractError, OutOfMemory, WorkerDied
from mvemo.extract.media.request import Decoded
from mvemo.extract.workers.limits import ClipLimits
from mvemo.extract.workers.pool import run_calls, start_workers
from mvemo.extract.workers.process import Call

_DECODE = "mvemo.extract.media.reading:decode_clip"
PROBE = "mvemo.extract.media.probe:probe_seconds"


def start_readers(count: int = 1) -> None:
    """Start worker processes ahead of the first file; this returns at once.

    They import the media libraries while this process imports others, as torch.
    """
    start_workers(count, _DECODE.partition(":")[0])


def read_each(
    function: str,
    files: Sequence[tuple[Path, dict[str, Any]]],
    *,
    workers: int = 0,
    limits: ClipLimits | None = None,
) -> Iterator[tuple[int, Any | ExtractError]]:
    """Call a function of a path in worker processes.

    Parameters
    ----------
    function
        ``module:name``; what it returns is sent by pickle.
    files
        First argument, and keywords, of each call.
    workers
        Processes; 0 for one a core.
    limits
        What a file may cost.

    Yields
    ------
    Number of the file, and what the function returned, or the error, as they come.
    """
    limits = limits or ClipLimits()
    calls = []
    for path, keywords in files:
        size = 0
        with suppress(OSError):
            size = path.stat().st_size
        bounds = (limits.seconds_of(size), limits.memory_bytes)
        calls.append(Call(function, (path,), *bounds, keywords=keywords))
    for outcome in run_calls(calls, workers=workers):
        path = files[outcome.index][0]
        if isinstance(outcome.error, WorkerDied):
            yield outcome.index, BadMedia(f"{path}: {outcome.error}")
        elif isinstance(outcome.error, OutOfMemory):
            memory = f"{limits.memory:g} GiB of memory"
            yield outcome.index, BadMedia(f"{path}: reading it takes more than {memory}")
        elif isinstance(outcome.error, ExtractError):
            yield outcome.index, outcome.error
        else:
            yield outcome.index, outcome.result()


def decode_isolated(path: Path, **asked: Any) -> Decoded:
    """`mvemo.extract.media.reading.decode_clip` of one file in a worker process.

    Raises
    ------
    BadMedia
        Also where the file ends or stops the worker.
    ExtractError
        As `decode_clip`.
    """
    decoded: Decoded = _read_one(_DECODE, path, asked)
    return decoded


def probe_isolated(path: Path) -> float:
    """`mvemo.extract.media.probe.probe_seconds` of one file in a worker process.

    Raises
    ------
    BadMedia
        Also where the file ends or stops the worker.
    ExtractError
        As `probe_seconds`.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> soundfile.write("hiss.flac", np.random.default_rng(0).uniform(-1, 1, 12000), 8000)
    >>> probe_isolated(Path("hiss.flac"))
    1.5
    """
    seconds: float = _read_one(PROBE, path, {})
    return seconds


def _read_one(function: str, path: Path, keywords: dict[str, Any]) -> Any:
    ((_, found),) = read_each(function, [(Path(path), keywords)])
    if isinstance(found, ExtractError):
        raise found
    return found
