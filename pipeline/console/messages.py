"""What is said on the way, as far as ``--verbose`` and ``--quiet`` ask for it.

Results go to stdout and errors to stderr, always; what is said here goes to stderr.
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
    """How much a program says; the ``obj`` of its outermost click context.

    `resumable` is True once it works on what a later call of the same command goes on from;
    `told` has the notes so far.
    """

    level: Level = "normal"
    resumable: bool = False
    told: set[str] = field(default_factory=set)


_silenced = ContextVar("_silenced", default=False)
_notes: ContextVar[list[str] | None] = ContextVar("_notes", default=None)


@contextmanager
def silenced() -> Iterator[None]:
    """Within it, as with ``--quiet``: for work that is only a measurement."""
    token = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(token)


def verbosity() -> Level:
    """That of the running command; ``normal`` outside of one, as in a notebook."""
    if _silenced.get():
        return "quiet"
    return shared.level if (shared := _shared()) else "normal"


def set_verbosity(context: click.Context, level: Level) -> None:
    """For the running program."""
    root = context.find_root()
    if not isinstance(root.obj, Verbosity):
        root.obj = Verbosity()
    root.obj.level = level


def note_resumable() -> None:
    """Have the line of an interrupted program say that the same command goes on."""
    if shared := _shared():
        shared.resumable = True


def _shared() -> Verbosity | None:
    """Return that of the running program; None outside of one."""
    context = click.get_current_context(silent=True)
    shared = None if context is None else context.find_root().obj
    return shared if isinstance(shared, Verbosity) else None


def tell(text: str) -> None:
    """Say how it goes, unless ``--quiet``."""
    if verbosity() != "quiet":
        click.echo(text, err=True)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """A list of the lasting notes that are told within, or would be but for ``--quiet``."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def tell_note(text: str, *, lasting: bool = True) -> None:
    """Say once what a user should know and may want to change, unless ``--quiet``.

    One that is true of this run alone, and not of the same command again, is not `lasting`:
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


def tell_detail(text: str) -> None:
    """Say what only somebody who looks for a fault wants to know: with ``--verbose``."""
    if verbosity() == "verbose":
        click.echo(text, err=True)
