"""Size and cleaning of the working folder."""

import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from mvemo.cache.parts import locked_cache
from mvemo.manifests.errors import BadOption

# Subfolders of stage one: decoded media and trained nets.
DECODED, NETS = "decoded", "nets"
GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True)
class WorkSize:
    """Size of a working folder, in bytes."""

    decoded: int  # decoded media and their descriptors
    nets: int  # trained nets

    def text(self) -> str:
        total = size_text(self.decoded + self.nets)
        return f"{total}: decoded media {size_text(self.decoded)}, trained nets " + (
            size_text(self.nets)
        )


def size_text(n_bytes: float) -> str:
    """Format a number of bytes in GiB or MiB."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= 0.95 * GIB else f"{n_bytes / MIB:.0f} MiB"


def measure_work(work: Path) -> WorkSize:
    """Return the size of a working folder; 0 if it does not exist."""
    return WorkSize(_bytes_in(work / DECODED), _bytes_in(work / NETS))


def clean_work(work: Path, *, nets: bool = False, dry_run: bool = False) -> WorkSize:
    """Remove decoded media, and with `nets` also trained nets; return their size."""
    if not (work / DECODED).is_dir() and not (work / NETS).is_dir():
        raise BadOption(f"{work}: is not a work folder of 'mvemo extract': it has no {DECODED}")
    size = measure_work(work)
    size = size if nets else WorkSize(size.decoded, 0)
    if dry_run:
        return size
    caches = sorted([*work.glob("*.h5.lock"), *work.glob("*.shards/*.h5.lock")])
    with ExitStack() as locks:
        for path in caches:
            locks.enter_context(locked_cache(path.with_suffix("")))
        for name in (DECODED, NETS)[: 1 + nets]:
            folder = work / name
            if folder.is_symlink():
                raise BadOption(f"{folder}: is a link to another folder: remove that folder")
            if folder.is_dir():
                shutil.rmtree(folder)
    return size


def _bytes_in(folder: Path) -> int:
    """Return the total size of all files below a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            # Another process may be removing the file.
            with suppress(OSError):
                total += os.lstat(Path(place, name)).st_size
    return total
