"""Messages during a command, subject to ``--verbose`` and ``--quiet``, and safe output streams.

Messages and errors go to stderr, results to stdout. Outside a command, messages go to the logger
``mvemo`` (notes as warnings, others as information), which prints nothing by default.

The name of a clip may contain an escape sequence that moves the cursor, hides text or retitles the
window. All output passes through the streams, so the escaping is done there.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal
from uuid import uuid4

import click

Level = Literal["quiet", "normal", "verbose"]


@dataclass
class Verbosity:
    """Message level and state of a program; the ``obj`` of its outermost click context."""

    level: Level = "normal"
    resumable: bool = False  # True if running the same command again continues the work
    told: set[str] = field(default_factory=set)  # notes printed so far
    in_json: bool = False  # True for ``--log-format json``
    run: str = field(default_factory=lambda: uuid4().hex[:12])  # id of the run in JSON lines
    start: float = field(default_factory=time.monotonic)


_log = logging.getLogger("mvemo")
_log.addHandler(logging.NullHandler())
_library = _program = Verbosity()  # outside a program
_silenced = ContextVar("_silenced", default=False)
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress messages inside the context, as ``--quiet`` does."""
    token = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(token)


def verbosity() -> Level:
    """Return the level of the running command; ``normal`` outside a command."""
    return "quiet" if _silenced.get() else _shared().level


def note_resumable() -> None:
    """Make an interruption message say that the same command continues the work."""
    _shared().resumable = True


@contextmanager
def running(program: Verbosity) -> Iterator[None]:
    """Print the messages of all threads while a program runs."""
    global _program
    former, _program = _program, program
    try:
        yield
    finally:
        _program = former


def in_program() -> bool:
    """Return True inside a program, whose messages are printed."""
    return _shared() is not _library


def in_json() -> bool:
    """Return True if ``--log-format json`` asks for lines of JSON."""
    return _shared().in_json


def _shared() -> Verbosity:
    """Return the state of the running program, or of the library outside a program."""
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Verbosity)) or _program


def tell(text: str, level: int = logging.INFO) -> None:
    """Print a message, unless ``--quiet``; outside a program, log it."""
    if verbosity() == "quiet":
        return
    if _shared().in_json:
        log_event("message", level=logging.getLevelName(level).lower(), text=text)
    elif in_program():
        click.echo(f"note: {text}" if level == logging.WARNING else text, err=True)
    else:
        _log.log(level, escaped(text))


def log_event(event: str, **facts: Any) -> None:
    """Print a line of JSON to stderr with time, run and facts, if ``--log-format json`` asks."""
    shared = _shared()
    if shared.in_json:
        time_text = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = {"time": time_text, "run": shared.run, "event": event, **facts}
        click.echo(json.dumps(record), err=True)


def tell_error(line: str) -> None:
    """Print the line of an error, also with ``--quiet``."""
    if _shared().in_json:
        log_event("error", text=line)
    else:
        click.echo(line, err=True)


def log_end(status: int) -> None:
    """Log the end of the program with its exit status and its seconds."""
    log_event("end", status=status, seconds=round(time.monotonic() - _shared().start, 3))


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Yield a list that collects the lasting notes inside the context, also if quiet."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def tell_note(text: str, *, lasting: bool = True) -> None:
    """Print a note once; `collected_notes` leaves out a note that is not `lasting`."""
    notes, told = _notes.get(), _shared().told
    if notes is not None and lasting and text not in notes:
        notes.append(text)
    if text in told or _silenced.get():
        return
    told.add(text)
    tell(text, logging.WARNING)


def tell_notes(notes: Iterable[object]) -> None:
    for note in notes:
        tell_note(str(note))


# --- streams

# Control characters except newline and tab, characters that change the direction of text, and
# surrogates, which stand for bytes of file names that are not UTF-8.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escaped(text: str) -> str:
    """Replace control characters by backslash escapes; newlines and tabs stay."""
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


class GuardedStream:
    """A text stream that escapes all text, and otherwise behaves like the given stream."""

    def __init__(self, stream: Any) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        self.unguarded.write(escaped(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard stdout and stderr of this program inside the context."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, GuardedStream) else GuardedStream(stream)
        for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unguarded(stream: Any) -> Any:
    """Return the original stream, for bars and colours."""
    return stream.unguarded if isinstance(stream, GuardedStream) else stream
