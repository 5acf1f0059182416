"""Stamps and digests of media files, which show that a file changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mvemo.extract.errors import MediaUnavailable

# Size, time of the last change of content and of the inode in ns, and inode number.
Stamp = tuple[int, int, int, int]


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a regular file; anything else, such as a pipe, is an `OSError`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise OSError(None, f"it is {kind}, not a file")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def digest_file(path: Path) -> tuple[str, Stamp]:
    """Return the SHA-256 of a file's bytes, and its stamp."""
    # Imported here because it imports HDF5, which workers do not need.
    from mvemo.cache.spec import content_digest

    before = stamp_of(path)
    digest = content_digest(path)
    if stamp_of(path) != before:
        raise MediaUnavailable(f"{path}: changes while it is read: run again when it is whole")
    return digest, before


def check_unchanged(path: Path, content: str, stamp: Stamp) -> Stamp:
    """Check that the file's content did not change, and return its present stamp.

    If the stamp differs, the content is digested again: a copy with the same bytes is accepted.
    """
    now = stamp_of(path)
    if now == stamp:
        return now
    found, now = digest_file(path)
    if found != content:
        raise MediaUnavailable(f"{path}: changed after it was digested: run again")
    return now
