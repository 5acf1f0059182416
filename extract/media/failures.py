"""Conversion of the media libraries' errors to this package's errors."""

from __future__ import annotations

import errno
from pathlib import Path

import av.error
import cv2

from mvemo.extract.errors import BadMedia, ExtractError, MediaUnavailable
from mvemo.extract.media.checks import error_line

# Errors of the machine, not of the file.
_PASSING = frozenset(
    getattr(errno, name)
    for name in ("ENOMEM", "EMFILE", "ENFILE", "EIO", "EAGAIN", "ENOSPC", "ESTALE", "ETIMEDOUT")
    if hasattr(errno, name)
)


def media_error(path: Path, error: Exception) -> ExtractError:
    """Convert a library's error to `BadMedia`, or to `MediaUnavailable` if it may pass."""
    if isinstance(error, MemoryError):
        return MediaUnavailable(
            f"{path}: reading it takes more memory than there is, or than a clip may have"
        )
    if isinstance(error, OSError) and error.errno in _PASSING:
        return MediaUnavailable(f"{path}: cannot be read now: {error_line(error)}")
    # Other errors name the library's objects, not the file: a stream without a codec has None
    # for its context, and streams may be gone when a file is opened again.
    reason = "damaged, or of an unknown codec"
    if isinstance(error, (av.error.FFmpegError, cv2.error, OSError, RuntimeError, ValueError)):
        reason = error_line(error)
    return BadMedia(f"{path}: cannot be read as media: {reason}")
