"""Lock of a cache, which allows only one writer at a time, and parts of an unfinished run."""

import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from mvemo.cache.cache_file import CacheFile, FilePool, part_paths, parts_folder, refuse_folder
from mvemo.cache.errors import BadCache, CacheBusy
from mvemo.manifests.errors import MissingFile, MvemoError
from mvemo.manifests.text_files import read_json

# Environment variable to set to 1 for file systems without locks. A second writer is then not
# refused, and the writer that finishes last drops the other's rows; readers are safe.
NO_LOCK = "MVEMO_NO_LOCK"


@contextmanager
def locked_cache(path: Path) -> Iterator[FilePool]:
    """Hold the exclusive lock ``<cache>.lock`` for writing, and yield a pool of files to read."""
    if not path.parent.is_dir():
        raise MissingFile(f"{path}: its folder does not exist: create it first")
    refuse_folder(path)
    # A separate file is used because some systems do not let others read a locked file.
    holder = parts_folder(path) / "holder.json"
    lock = filelock.FileLock(path.with_name(path.name + ".lock"), thread_local=False)
    try:
        if os.environ.get(NO_LOCK, "") in ("", "0"):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        raise CacheBusy(f"{path}: is locked by another writer: {_writer(holder)}") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise MvemoError(
            f"{path}: cannot be locked for writing ({why}): if its file system has no locks, set "
            f"{NO_LOCK}=1, and write the file with only one program at a time"
        ) from None
    try:
        try:
            holder.parent.mkdir(exist_ok=True)
            facts = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            holder.write_text(json.dumps(facts), encoding="utf-8")
        except OSError as error:
            raise MvemoError(f"{holder.parent}: cannot be written: {error.strerror}") from None
        with closing(FilePool()) as pool:
            yield pool
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
            holder.parent.rmdir()
        lock.release()


def _writer(holder: Path) -> str:
    try:
        facts = read_json(holder)
        return f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just started or is about to end"


def part_number(path: Path) -> int:
    """Return the number in a part's name."""
    return int(path.name[:8])


def refuse_parts(path: Path) -> None:
    """Raise BadCache if there are rows of an unfinished run next to a cache."""
    if part_paths(path):
        raise BadCache(
            f"{path}: rows of an unfinished run are in {parts_folder(path).name}: finish that run, "
            f"or run 'mvemo cache repair {path}'"
        )


def read_parts(cache: Path, pool: FilePool, main: CacheFile | None) -> list[CacheFile]:
    """Return the committed parts, oldest first; damaged parts are left out with a warning."""
    parts: list[CacheFile] = []
    merged = () if main is None else main.merged
    for path in part_paths(cache):
        if path.name in merged:
            # A process was killed while it removed merged parts.
            path.unlink()
            continue
        try:
            parts.append(CacheFile(path, pool).load())
        except BadCache as error:
            warnings.warn(f"{error}; the rows of this part are extracted again", stacklevel=2)
    sources = parts if main is None else [main, *parts]
    for digest in dict.fromkeys(digest for source in sources for digest in source.indexes):
        # Features are left out if the sources do not name all training clips of the net.
        indexes = [source.indexes[digest] for source in sources if digest in source.indexes]
        named = {clip for index in indexes for clip in index.spec.trained_on}
        if len(named) < max(index.n_trained_on for index in indexes):
            for source in sources:
                source.indexes.pop(digest, None)
            warnings.warn(
                f"{indexes[0].spec.label}: the part with its training clips is lost; the rows of "
                "this feature are extracted again",
                stacklevel=2,
            )
    return parts


def remove_parts(cache: Path) -> None:
    """Remove merged parts and temporary files; parts that remain are merged again later."""
    with suppress(OSError):
        folder = parts_folder(cache)
        for path in [*part_paths(cache), *folder.glob("*.tmp"), folder / "table.h5"]:
            path.unlink(missing_ok=True)
