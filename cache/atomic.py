"""Files that appear whole or not at all, and disk errors as one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvemo.cache.errors import CacheError

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]


@contextmanager
def replacing(path: Path, temp: Path, kept: str = "") -> Iterator[Path]:
    """Write `temp`, then make it `path` in one step that survives a power cut.

    Parameters
    ----------
    path
        The file to make or replace.
    temp
        Where to write first: a name on the same file system, which nothing else uses.
    kept
        What a failure leaves untouched, for the message.

    Raises
    ------
    CacheError
        The disk is full, or may not be written; `path` is as it was.
    """
    try:
        yield temp
        sync(temp)
        os.replace(temp, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{path}: cannot be written: {cause(error)}{kept}") from None
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def require_room(path: Path, n_bytes: int) -> None:
    """Raise OSError where a file of this size cannot be written.

    HDF5 does not survive a disk that fills up under it: the library ends the process when
    what it could not write is still unwritten at exit.
    """
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY and limit < n_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def sync(path: Path) -> None:
    """Have the file's bytes on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk, where the system allows it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse; the file itself is safe already.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def cause(error: BaseException) -> str:
    """An error's cause in a few words; HDF5 hides the system's in its own text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    found = re.search(r"errno = (\d+)", text)
    if found:
        number = int(found.group(1))
        return "no space left on the disk" if number == errno.ENOSPC else os.strerror(number)
    return text.splitlines()[0] if text else type(error).__name__
