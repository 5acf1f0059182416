"""Shards of an unfinished run, and atomic writing of cache files."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
import warnings
from contextlib import suppress
from pathlib import Path

import h5py

from mvemo.cache.errors import BadCache, CacheError
from mvemo.cache.storage.files import LIBVER, FilePool
from mvemo.cache.storage.index import feature_label
from mvemo.cache.writing.plan import CorruptRows, FileSource, Plan, write_plan
from mvemo.cache.writing.rules import corrupt_stage, reason_now
from mvemo.manifests.files import replacing

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]


def new_shard_path(parts: Path, number: int) -> Path:
    """Return the path of the next shard, with a random part that makes it unique."""
    return parts / f"{number:08d}-{uuid.uuid4().hex[:12]}.h5"


def shard_number(path: Path) -> int:
    """Return the number in a shard's name."""
    return int(path.name[:8])


def shard_paths(parts: Path) -> list[Path]:
    """Return the paths of all committed shards, oldest first."""
    return sorted(parts.glob("[0-9]*-*.h5"))


def read_shards(parts: Path, pool: FilePool, main: FileSource | None) -> list[FileSource]:
    """Return the committed shards, oldest first; damaged ones are left out with a warning.

    Shards that the cache, `main`, lists as merged were left by a process killed while it removed
    them; they are removed now. If a lost shard named training clips of a net, all rows of the net
    are left out, too.
    """
    shards: list[FileSource] = []
    merged = () if main is None else main.merged
    for path in shard_paths(parts):
        if path.name in merged:
            path.unlink()
            continue
        try:
            shards.append(FileSource(path, pool))
        except BadCache as error:
            warnings.warn(f"{error}; its rows are extracted again", stacklevel=2)
    _leave_out_unknown(shards if main is None else [main, *shards])
    return shards


def _leave_out_unknown(sources: list[FileSource]) -> None:
    """Leave out features whose nets saw more clips than all sources name."""
    stated: dict[str, int] = {}
    named: dict[str, set[str]] = {}
    for source in sources:
        for digest, index in source.indexes.items():
            stated[digest] = max(stated.get(digest, 0), index.n_trained_on)
            named.setdefault(digest, set()).update(index.spec.trained_on)
    for digest, n in stated.items():
        if len(named[digest]) < n:
            specs = [source.indexes.pop(digest, None) for source in sources]
            label = next(feature_label(index.spec) for index in specs if index is not None)
            warnings.warn(
                f"{label}: the shard that names its training clips is lost; its rows are "
                "extracted again",
                stacklevel=3,
            )


def remove_shards(parts: Path) -> None:
    """Remove merged shards, and temporary files of killed processes.

    If some cannot be removed, they are merged again later, which does no harm.
    """
    with suppress(OSError):
        for path in [*shard_paths(parts), *parts.glob("*.tmp"), parts / "table.h5"]:
            path.unlink(missing_ok=True)


def write_file(path: Path, plan: Plan, temp: Path, kept: str = "") -> None:
    """Write a plan to a file atomically."""
    with replacing(path, temp, error=CacheError, kept=kept):
        require_room(temp, plan.n_bytes)
        with h5py.File(temp, "w", libver=LIBVER, locking=False) as file:
            write_plan(file, plan)


def require_room(path: Path, n_bytes: int) -> None:
    """Raise OSError if a file of this size cannot be written.

    HDF5 cannot handle a full disk: it ends the process at exit if data is still unwritten.
    """
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY and limit < n_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def write_dropping(path: Path, plan: Plan, temp: Path, kept: str = "") -> list[str]:
    """Write a plan without its corrupt rows, recorded as failures; return a sentence for each."""
    dropped: list[str] = []
    while True:
        try:
            write_file(path, plan, temp, kept)
            return dropped
        except CorruptRows as error:
            plan.features[error.digest].drop(error.rows)
            for row in error.corrupt:
                plan.failures[row.clip_id, corrupt_stage(row.spec)] = reason_now(
                    "the stored values did not fit their checksum and were dropped"
                )
                dropped.append(str(row))
