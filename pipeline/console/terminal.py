"""Escaping of control characters in terminal output.

The name of a clip may contain an escape sequence that moves the cursor, hides text or retitles
the window. All output passes through the stream, so the escaping is done there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Control characters except newline and tab, and characters that change the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Replace control characters by backslash escapes; newlines and tabs stay.

    Examples
    --------
    >>> print(escaped("a\x1b[31mb\rc"))
    a\x1b[31mb\x0dc
    """
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


class GuardedStream:
    """A text stream that writes everything `escaped` and otherwise acts as the given stream."""

    def __init__(self, stream: Any) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        """Write text and return its length."""
        self.unguarded.write(escaped(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
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
