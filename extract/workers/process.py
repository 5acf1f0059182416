"""Program of a worker process: it answers calls from standard input, one after the other.

It ends when its input ends, so that it does not outlive the process that started it.
"""

import ctypes
import gc
import os
import pickle
import queue
import re
import resource
import signal
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from mvemo.extract.errors import OutOfMemory
from mvemo.manifests.plugins import load_files, loaded_files

# Length in bytes of a pickled message, sent before it.
_HEADER = struct.Struct("<Q")
# Time of the worker's own alarm, as a factor of the time limit; it matters if the parent is gone.
_ALARM_SHARE = 1.5
# Constant from Linux's prctl.h.
_PR_SET_PDEATHSIG = 1
# `ClipLimits.seconds` is added to the time limit for every so many bytes of a file. For 4K video at
# 25 frames per second, a slow core needs less than a tenth of that time.
_BYTES_PER_PERIOD = 30e6


def _current_folder() -> str:
    """Return the current folder, or "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


@dataclass(frozen=True)
class Call:
    function: str  # ``module:name``, so that the caller need not import it
    arguments: tuple[Any, ...]  # sent by pickle
    seconds: float = 0.0  # time limit; 0 for no limit
    memory: int = 0  # limit in bytes; 0 for no limit
    keywords: Mapping[str, Any] = field(default_factory=dict)  # sent by pickle
    folder: str = field(default_factory=_current_folder)  # current folder of the call
    plugins: tuple[str, ...] = field(default_factory=loaded_files)  # files of plug-ins
    # Environment variables to set in the process before this call.
    environment: Mapping[str, str] = field(default_factory=dict)
    # True to pass the function a keyword argument ``emit``. ``emit(value)`` sends the value to the
    # caller at once and waits until the caller has room; the time limit excludes the wait.
    parts: bool = False


@dataclass(frozen=True)
class ClipLimits:
    seconds: float = 60.0  # for a small file; as much again for every 30 MB; 0 for no limit
    memory: float = 4.0  # GiB in addition to an idle worker's memory; 0 for no limit

    def of_file(self, path: Path) -> tuple[float, int]:
        """Return the time limit in seconds and the memory limit in bytes for a file."""
        size = 0
        with suppress(OSError):
            size = path.stat().st_size
        return self.seconds * (1.0 + size / _BYTES_PER_PERIOD), round(self.memory * 2**30)


@dataclass(frozen=True)
class CallResult:
    """Result of one call in a worker: a value, an error, or a part of what it emits."""

    index: int = 0  # index of the call
    value: Any = None
    error: BaseException | None = None  # the function's error, or `WorkerDied`
    last: bool = True  # False for a part

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_HEADER.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; raise `EOFError` if the other process has ended."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    (size,) = _HEADER.unpack(header)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def resolve(function: str) -> Any:
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def serve(parent: int, preload: str) -> None:
    """Import `preload`, modules joined by commas, and answer calls until input or parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent:
        # Linux kills this process when its parent ends.
        with suppress(AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
    # If memory runs out, the kernel kills this process first: only one clip is lost, not the run.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("800")
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Output that libraries print goes to standard error.
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_read_calls, args=(requests, calls), daemon=True).start()
    if preload:
        with torch_import_without_gc():
            for module in preload.split(","):
                import_module(module)
    send(replies, None)
    while True:
        send(replies, _answer(calls.get(), replies))


def _read_calls(requests: IO[bytes], calls: queue.SimpleQueue[Call]) -> None:
    """Put received calls into the queue; end the process when the parent has ended."""
    with suppress(EOFError, OSError):
        while True:
            calls.put(receive(requests))
    os._exit(0)


def _answer(call: Call, replies: IO[bytes]) -> CallResult:
    alarm = _ALARM_SHARE * call.seconds + 5.0 if call.seconds else 0.0

    def emit(value: Any) -> None:
        _set_alarm(0.0)
        send(replies, CallResult(value=value, last=False))
        _set_alarm(alarm)

    try:
        os.environ.update(call.environment)
        load_files(call.plugins)
        # Import before the limits are set, because the limits are only for the clip.
        function = resolve(call.function)
        if call.folder:
            os.chdir(call.folder)
        keywords = {**call.keywords, "emit": emit} if call.parts else call.keywords
        with _memory_limit(call.memory):
            _set_alarm(alarm)
            return CallResult(value=function(*call.arguments, **keywords))
    except MemoryError:
        limit = f"{call.memory / 2**30:.3g} GiB of" if call.memory else "the available"
        return CallResult(error=OutOfMemory(f"it needs more than {limit} memory"))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return CallResult(error=RuntimeError(f"{type(error).__name__}: {error}"))
        return CallResult(error=error)
    finally:
        _set_alarm(0.0)


def _set_alarm(seconds: float) -> None:
    """Let the system end this process after `seconds`, even inside a library; 0 cancels."""
    # SIGALRM has no handler, so it ends the process.
    signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Limit this process to `size` bytes more than it uses now; 0 for no limit."""
    pages = system_text("self/statm").split()[:1] if size else []
    if not pages:
        yield
        return
    used = int(pages[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    # A limit above the hard limit is refused, so that the hard limit stays in force.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (used + size, before[1]))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def torch_import_without_gc() -> Iterator[None]:
    """Keep the garbage collector from the objects that importing torch creates."""
    # Their collection would take 0.7 s of the 2.2 s in which a worker starts and ends.
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def system_text(name: str) -> str:
    """Return the text of a file of Linux in ``/proc``, or '' if there is none."""
    try:
        return Path("/proc", name).read_text(encoding="utf-8")
    except OSError:
        return ""


def kibibytes(text: str, field: str) -> int:
    """Return the bytes that a field of a file in ``/proc`` states in kB, or 0."""
    match = re.search(rf"^{field}:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds that a running process has used, or 0 if unknown."""
    # Fields `utime` and `stime`.
    fields = system_text(f"{pid}/stat").rpartition(")")[2].split()[11:13]
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    # This does not use getrusage, which counts the memory of the forking process for children.
    return kibibytes(system_text(f"{pid}/status"), "VmHWM")
