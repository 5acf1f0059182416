"""Messages during a command, subject to ``--verbose`` and ``--quiet``.

Messages and errors go to stderr, results to stdout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import click

Level = Literal["quiet", "normal", "verbose"]


@dataclass
class Verbosity:
    """Message level and state of a program; the ``obj`` of its outermost click context."""

    level: Level = "normal"
    resumable: bool = False  # True if a later call of the same command can continue the work
    told: set[str] = field(default_factory=set)  # notes so far


_silenced = ContextVar("_silenced", default=False)
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress messages as ``--quiet`` does, for work that is only a measurement."""
    token = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(token)


def verbosity() -> Level:
    """Return the level of the running command; ``normal`` outside a command."""
    if _silenced.get():
        return "quiet"
    return shared.level if (shared := _shared()) else "normal"


def set_verbosity(context: click.Context, level: Level) -> None:
    """Set the message level of the running program."""
    root = context.find_root()
    if not isinstance(root.obj, Verbosity):
        root.obj = Verbosity()
    root.obj.level = level


def note_resumable() -> None:
    """Make an interrupted program say that the same command can continue the work."""
    if shared := _shared():
        shared.resumable = True


def _shared() -> Verbosity | None:
    """Return the state of the running program; None outside a program."""
    context = click.get_current_context(silent=True)
    shared = None if context is None else context.find_root().obj
    return shared if isinstance(shared, Verbosity) else None


def tell(text: str) -> None:
    """Print a message, unless ``--quiet``."""
    if verbosity() != "quiet":
        click.echo(text, err=True)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Yield a list that collects the lasting notes told meanwhile, even with ``--quiet``."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def tell_note(text: str, *, lasting: bool = True) -> None:
    """Print, once, a note that a user may want to act on, unless ``--quiet``.

    A note that holds only for this run, and not if the command is repeated, is not `lasting`;
    `collected_notes` leaves it out.
    """
    told = shared.told if (shared := _shared()) else set()
    if text in told:
        return
    if not _silenced.get():
        told.add(text)
    notes = _notes.get()
    if notes is not None and lasting:
        notes.append(text)
    tell(f"note: {text}")
