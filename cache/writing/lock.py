"""Lock of a cache, which allows one writer at a time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from mvemo.cache.errors import CacheBusy, CacheError, MissingCache
from mvemo.cache.storage.files import FilePool, parts_folder, refuse_folder
from mvemo.manifests.files import parse_json

# Environment variable, set to 1 for file systems without locks.
NO_LOCK = "MVEMO_NO_LOCK"


class WriterLock:
    """Exclusive right to write one cache, from construction to `release`.

    The operating system holds the lock (on ``<cache>.lock``, an empty file that stays), so it ends
    with the process in any case. The holder is written to a file next to the shards, because the
    content of a lock file cannot be read on every system.

    With the environment variable ``MVEMO_NO_LOCK=1`` nothing is locked, for file systems without
    locks. Then two writers at the same time are not refused, and the one that finishes last drops
    the other's rows. Readers are safe in any case.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise MissingCache(f"{path}: its folder does not exist: make it first")
        refuse_folder(path)
        self._holder = parts_folder(path) / "holder.json"
        self._lock = filelock.FileLock(path.with_name(path.name + ".lock"), thread_local=False)
        try:
            if os.environ.get(NO_LOCK, "") in ("", "0"):
                self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CacheBusy(f"{path}: another writer holds it: {self._who()}") from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CacheError(
                f"{path}: cannot be locked for writing: {reason}; if its file system has no "
                f"locks, set {NO_LOCK}=1, and let no two programs write it at once"
            ) from None
        try:
            self._holder.parent.mkdir(exist_ok=True)
            facts = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            self._holder.write_text(json.dumps(facts), encoding="utf-8")
        except OSError as error:
            self._lock.release()
            raise CacheError(
                f"{self._holder.parent}: cannot be written: {error.strerror}"
            ) from None

    def _who(self) -> str:
        try:
            facts = parse_json(self._holder.read_text(encoding="utf-8"))
            return f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "a process that has just started or is about to end"

    def release(self) -> None:
        """Release the lock, and remove the shards' folder if it is empty."""
        with suppress(OSError):
            self._holder.unlink(missing_ok=True)
            self._holder.parent.rmdir()
        self._lock.release()


@contextmanager
def locked_files(path: Path) -> Iterator[FilePool]:
    """Lock a cache for writing, and give a pool for the files that are read meanwhile."""
    lock = WriterLock(path)
    pool = FilePool()
    try:
        yield pool
    finally:
        pool.close()
        lock.release()
