"""Whether a media file is still the one that was digested."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mvemo.extract.errors import MediaUnavailable

# Size, times of the last change of content and of the entry in ns, and number in its folder.
Stamp = tuple[int, int, int, int]


def stamp_of(path: Path) -> Stamp:
    """What changes when the file does."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise OSError(None, f"it is {kind}, not a file")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def digest_file(path: Path) -> tuple[str, Stamp]:
    """SHA-256 of a file's bytes, and the stamp that it had."""
    # Not at the top: it brings HDF5, which workers do not need.
    from mvemo.cache.spec import content_digest

    before = stamp_of(path)
    digest = content_digest(path)
    if stamp_of(path) != before:
        raise MediaUnavailable(f"{path}: changes while it is read: run again when it is whole")
    return digest, before


def check_unchanged(path: Path, content: str, stamp: Stamp) -> Stamp:
    """Refuse a file that is not the one that was digested any more; its stamp now.

    Another stamp with the same bytes, as of a copy put in its place, is no change.
    """
    now = stamp_of(path)
    if now == stamp:
        return now
    found, now = digest_file(path)
    if found != content:
        raise MediaUnavailable(f"{path}: changed after it was digested: run again")
    return now
