"""Atomic file writing, strict JSON, and quoting of values in errors.

Every package reads and writes its files with these functions. A file that cannot be written
raises `DiskFailed`.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mvemo.manifests.errors import DiskFailed, MvemoError

# Size in bytes, times of the last changes of content and inode in ns, and inode number.
Stamp = tuple[int, int, int, int]
# Part of the names of temporary files: a machine removes only its own orphaned files.
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "host"


@contextmanager
def replacing(
    path: Path, temp: Path | None = None, *, kept: str = "", durable: bool = True
) -> Iterator[Path]:
    """Yield a temporary path to write to; on success, rename it to `path`.

    Whenever the process ends, `path` is the old file or the complete new one; with `durable` also
    after a power failure. A device or a pipe, such as ``/dev/stdout``, is written to, not replaced.
    `kept` is added to the message for a file that cannot be written.
    """
    link = path.is_symlink() and path.absolute().parent == Path("/dev")
    to_stream = link or (path.exists() and not (path.is_file() or path.is_dir()))
    if to_stream:
        temp = _temporary(Path(tempfile.gettempdir(), path.name))
    elif temp is None:
        temp = _temporary(path)
        _remove_orphans(path)
    try:
        yield temp
        if to_stream:
            with temp.open("rb") as file, path.open("ab") as stream:
                shutil.copyfileobj(file, stream)
            return
        if durable:
            with temp.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temp, path)
        if durable:
            sync_folder(path.parent)
    except MvemoError:
        raise
    except (OSError, RuntimeError) as problem:
        # HDF5 and torch raise RuntimeError on a full disk.
        raise DiskFailed(f"{path}: cannot be written: {cause(problem)}{kept}") from None
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


@contextmanager
def replacing_together(folder: Path, remove: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty temporary folder; on success, move its files to `folder`, else discard them.

    Files of `folder` that are named in `remove` and were not written again are deleted.
    """
    new_folder = not folder.is_dir()
    temp = _temporary(folder / "new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_orphans(folder / "new")
        temp.mkdir()
        yield temp
        for name in remove:
            if not (temp / name).exists():
                (folder / name).unlink(missing_ok=True)
        for path in filter(Path.is_file, sorted(temp.rglob("*"))):
            target = folder / path.relative_to(temp)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except DiskFailed as problem:
        raise DiskFailed(str(problem).replace(str(temp), str(folder))) from None
    except MvemoError:
        raise
    except OSError as problem:
        raise DiskFailed(f"{folder}: cannot be written: {cause(problem)}") from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        if new_folder:
            with suppress(OSError):
                folder.rmdir()


def _temporary(path: Path) -> Path:
    """Return a hidden temporary path next to `path`, for this process on this machine."""
    # File names have at most 255 bytes: a long one is replaced by its digest.
    name = path.name
    if len(os.fsencode(name)) > 180:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{_HOST}-{os.getpid()}.tmp")


def _remove_orphans(path: Path) -> None:
    """Remove temporary files that killed processes of this machine left behind."""
    front = _temporary(path).name.rpartition("-")[0]
    with suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(f"{front}-")]
        for name in names:
            number, _, end = name[len(front) + 1 :].partition(".")
            if end == "tmp" and number.isdecimal() and not _alive(int(number[:12])):
                orphan = path.with_name(name)
                shutil.rmtree(orphan) if orphan.is_dir() else orphan.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Return True if a process of this machine is running, or if this is unknown."""
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path, durable=durable) as temp:
        temp.write_bytes(content)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write UTF-8 text atomically, lone surrogates as backslash escapes (valid in JSON)."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `dump_json(value)` atomically; see `replacing`."""
    write_text(path, dump_json(value), durable=durable)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system allows it."""
    handle = os.open(folder, os.O_RDONLY)
    # Some network file systems refuse this; the file itself is already safe.
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def stamp_of(file: Path | int) -> Stamp:
    """Return the stamp of a regular file (path or open file); raise `OSError` for anything else."""
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise OSError(None, f"it is {kind}, not a file")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def find_stamp(path: str | Path) -> list[int] | None:
    """Return the stamp of a file as a JSON value, or None if there is no such file."""
    try:
        return list(stamp_of(Path(path)))
    except (OSError, ValueError):
        return None


def cause(problem: BaseException) -> str:
    """Return in a few words why a file could not be written, also for h5py, NumPy and torch."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    text = str(problem)
    if number := re.search(r"errno = (\d+)", text):
        code = int(number[1])
        return "no space left on the disk" if code == errno.ENOSPC else os.strerror(code)
    if re.search("PytorchStreamWriter|inline_container|unexpected pos", text):
        # These are torch's messages for a failed write.
        return "perhaps no space is left on the disk"
    if isinstance(problem, OSError):
        return f"perhaps no space is left on the disk ({problem})"
    return text.splitlines()[0] if text else type(problem).__name__


def shown(text: str, most: int = 80) -> str:
    """Return a value as messages quote it: escaped, in quotes, at most `most` characters."""
    if len(text) <= most:
        return repr(text)
    return f"{text[: most - 3]!r} ({len(text)} characters)"


def dump_json(value: Any) -> str:
    """Return strict, indented JSON text of `to_json_values(value)`."""
    values = to_json_values(value)
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_json_values(value: Any, where: str | None = None) -> Any:
    """Convert to JSON values, NaN to null, other types to text.

    If `where` (the name of the value in messages) is given, other types raise TypeError instead.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    # `Mapping` alone would take ten times as long for a `dict`.
    if isinstance(value, (dict, Mapping)):
        return {str(k): to_json_values(v, where and f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_values(v, where and f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json_values(v, where) for v in value), key=str)
    if hasattr(value, "tolist"):  # an array or a number of NumPy, which --help does not import
        return to_json_values(value.tolist(), where)
    if where is not None and not isinstance(value, Path):
        raise TypeError(f"{where} is of type {type(value).__name__}, which JSON cannot hold")
    return str(value)
