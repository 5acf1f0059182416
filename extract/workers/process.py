"""What a worker process runs: calls from standard input, one after the other.

It ends when its input does, so that none outlives the process that started it.
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
from typing import IO, Any

from mvemo.extract.errors import OutOfMemory
from mvemo.extract.quick_imports import imports_uncollected

# The length of a pickled message goes before it.
HEADER = struct.Struct("<Q")
# Its alarm ends a worker whose parent is gone and cannot end it: later than the parent would.
_ALARM_SHARE = 1.5
# Linux's prctl.h.
_PR_SET_PDEATHSIG = 1


def _current_folder() -> str:
    """Empty where it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


@dataclass(frozen=True)
class Call:
    """One call of a function in a worker."""

    function: str  # ``module:name``, so that the caller need not import it
    arguments: tuple[Any, ...]  # of the function; sent by pickle
    seconds: float = 0.0  # the worker is ended after so many; 0 for no limit
    memory: int = 0  # bytes that it may ask for; 0 for no limit
    # Of the function, sent as the arguments.
    keywords: Mapping[str, Any] = field(default_factory=dict)
    # Which relative paths start from; that of the caller.
    folder: str = field(default_factory=_current_folder)
    # Variables that the process has from this call on, for libraries that read them late.
    environment: Mapping[str, str] = field(default_factory=dict)
    # Whether the function is called with a keyword ``emit`` more: a function that sends its
    # argument to the caller at once, and waits while the caller has not taken those before.
    # That wait counts for nothing.
    parts: bool = False


@dataclass(frozen=True)
class Part:
    """A message before the last one of a call."""

    value: Any


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(HEADER.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (size,) = HEADER.unpack(header)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def resolve(function: str) -> Any:
    """The function of ``module:name``."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def serve(parent: int, preload: str) -> None:
    """Answer calls until standard input ends."""
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
    """The pipes to the parent; what libraries print goes to the standard error instead."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _read_calls(requests: IO[bytes], calls: queue.SimpleQueue[Call]) -> None:
    """Pass calls on as they come; without the parent end at once, whatever is being done."""
    with suppress(EOFError, OSError):
        while True:
            calls.put(receive(requests))
    os._exit(0)


def _answer(call: Call, replies: IO[bytes]) -> tuple[Any, BaseException | None]:
    """The value of a call, and the error that it raised; its parts are sent before."""
    try:
        os.environ.update(call.environment)
        # What it imports is not the clip's.
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
    """An error that survives its way to the parent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Bounds:
    """Time and memory of one call, as the system enforces them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._before: tuple[int, int] | None = None

    def start_clock(self) -> None:
        """Set the alarm."""
        if sys.platform != "win32" and self._call.seconds:
            # Without a handler it ends the process, also inside a library.
            signal.setitimer(signal.ITIMER_REAL, _ALARM_SHARE * self._call.seconds + 5.0)

    def stop_clock(self) -> None:
        """Put the alarm off."""
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
    """Bytes of this process's address space; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def end_with(parent: int) -> None:
    """Have the system end this process when its parent ends, where it can; 0 for no parent."""
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _be_killed_first() -> None:
    """Where memory runs out, lose a clip rather than the run."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("800")
