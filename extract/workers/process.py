"""Program of a worker process: it answers calls from standard input, one after the other.

It ends with its input, so that it does not outlive the process that started it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from mvemo.extract.errors import OutOfMemory
from mvemo.extract.quick_imports import imports_uncollected

# Length of a message, which precedes its pickle.
HEADER = struct.Struct("<Q")
# Factor of the time limit for the worker's own alarm, which ends it if its parent is gone.
_ALARM_SHARE = 1.5
# Linux's prctl.h.
_PR_SET_PDEATHSIG = 1
# Bytes of a file for which `ClipLimits.seconds` is added to the limit. For 4K video at 25 frames
# per second, one slow core needs less than a tenth of it.
_BYTES_PER_PERIOD = 30e6


def _current_folder() -> str:
    """Return the current folder, or "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


@dataclass(frozen=True)
class Call:
    """Call of a function in a worker."""

    function: str  # ``module:name``, so that the caller need not import it
    arguments: tuple[Any, ...]  # sent by pickle
    seconds: float = 0.0  # time limit; 0 for no limit
    memory: int = 0  # limit in bytes; 0 for no limit
    keywords: Mapping[str, Any] = field(default_factory=dict)  # sent by pickle
    folder: str = field(default_factory=_current_folder)  # current folder of the call
    # Variables that the process has from this call on.
    environment: Mapping[str, str] = field(default_factory=dict)
    # True to pass the function a keyword ``emit``: a function that sends its argument to the
    # caller at once, and waits until the caller has room. The time limit does not count the wait.
    parts: bool = False


@dataclass(frozen=True)
class ClipLimits:
    """Limits of a worker process for one clip.

    Examples
    --------
    >>> limits = ClipLimits(seconds=60.0)
    >>> limits.seconds_of(0), limits.seconds_of(60_000_000)
    (60.0, 180.0)
    """

    seconds: float = 60.0  # for a small file, and again for each 30 MB; 0 for no limit
    memory: float = 4.0  # GiB in addition to those of an idle worker; 0 for no limit

    def of_file(self, path: Path) -> tuple[float, int]:
        """Return the time limit in seconds and the memory limit in bytes for a file."""
        size = 0
        with suppress(OSError):
            size = path.stat().st_size
        return self.seconds_of(size), self.memory_bytes

    def seconds_of(self, size: int) -> float:
        """Return the time limit for a file of `size` bytes; 0 for no limit."""
        return self.seconds * (1.0 + size / _BYTES_PER_PERIOD)

    @property
    def memory_bytes(self) -> int:
        """`memory` in bytes; 0 for no limit."""
        return round(self.memory * 2**30)


@dataclass(frozen=True)
class Part:
    """Message of a call before its last one."""

    value: Any


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(HEADER.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; raise `EOFError` if the other side is gone."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (size,) = HEADER.unpack(header)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def resolve(function: str) -> Any:
    """Import and return the function of ``module:name``."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def serve(parent: int, preload: str) -> None:
    """Import `preload`, then answer calls until standard input ends.

    `parent` is the id of the process whose end should end this one at once, or 0.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    _be_killed_first()
    requests, replies = _own_streams()
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_read_calls, args=(requests, calls), daemon=True).start()
    if preload:
        with imports_uncollected():
            import_module(preload)
    send(replies, None)
    while True:
        send(replies, _answer(calls.get(), replies))


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return the pipes to the parent; redirect standard output to standard error."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _read_calls(requests: IO[bytes], calls: queue.SimpleQueue[Call]) -> None:
    """Pass calls on as they come; end the process as soon as the parent is gone."""
    with suppress(EOFError, OSError):
        while True:
            calls.put(receive(requests))
    os._exit(0)


def _answer(call: Call, replies: IO[bytes]) -> tuple[Any, BaseException | None]:
    """Run a call, send its parts, and return its value and its error."""
    try:
        os.environ.update(call.environment)
        # Imported before the limits are set: they are for the clip only.
        function = resolve(call.function)
        if call.folder:
            os.chdir(call.folder)
        with _Bounds(call) as bounds:
            keywords = dict(call.keywords)
            if call.parts:

                def emit(value: Any) -> None:
                    bounds.stop_clock()
                    send(replies, Part(value))
                    bounds.start_clock()

                keywords["emit"] = emit
            return function(*call.arguments, **keywords), None
    except MemoryError:
        limit = f"{call.memory / 2**30:.3g} GiB of memory" if call.memory else "there is memory"
        return None, OutOfMemory(f"it takes more than {limit}")
    except Exception as error:
        return None, _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Return the error, or a `RuntimeError` if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Bounds:
    """Limits of time and memory of one call, enforced by the operating system."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._before: tuple[int, int] | None = None

    def start_clock(self) -> None:
        """Set the alarm."""
        if sys.platform != "win32" and self._call.seconds:
            # SIGALRM without a handler ends the process, also inside a library.
            signal.setitimer(signal.ITIMER_REAL, _ALARM_SHARE * self._call.seconds + 5.0)

    def stop_clock(self) -> None:
        """Cancel the alarm."""
        if sys.platform != "win32" and self._call.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def __enter__(self) -> _Bounds:
        self.start_clock()
        if sys.platform == "win32":
            return self
        if self._call.memory and (used := _address_space()):
            import resource

            self._before = resource.getrlimit(resource.RLIMIT_AS)
            soft, hard = used + self._call.memory, self._before[1]
            if hard != resource.RLIM_INFINITY:
                soft = min(soft, hard)
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_clock()
        if sys.platform == "win32":
            return
        if self._before is not None:
            import resource

            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_AS, self._before)


def _address_space() -> int:
    """Return the size of this process's address space in bytes; 0 if not known."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def end_with(parent: int) -> None:
    """Ask Linux to end this process together with its parent; 0 for no parent."""
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _be_killed_first() -> None:
    """Make the kernel kill this process first if memory runs out: one clip, not the run."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("800")
