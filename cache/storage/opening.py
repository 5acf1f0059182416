"""Opening of cache files, with checks that a file is a cache."""

from __future__ import annotations

import stat
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py

from mvemo.cache.errors import BadCache, CacheError, DamagedCache, MissingCache
from mvemo.cache.storage.plain import attribute, has_attribute, part, write_attribute
from mvemo.manifests.files import shown

FORMAT = "mvemo features"
SCHEMA = 1
# File format of HDF5 1.10, which checksums its metadata, unlike the default.
LIBVER = ("v110", "v110")

# Exceptions of h5py and of our readers on a damaged file. RuntimeError includes RecursionError.
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)


def reason(error: BaseException) -> str:
    """Return in one line why a part of a file cannot be read."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


def parts_folder(path: Path) -> Path:
    """Return the folder of the shards of an unfinished run."""
    return path.with_name(path.name + ".parts")


def open_file(path: Path) -> Any:
    """Open a cache file for reading.

    It raises MissingCache for a missing file, BadCache for a file that is not a complete cache of a
    known schema, and CacheError for a file that cannot be read.
    """
    try:
        # A pipe would block.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise BadCache(f"{path}: no plain file, where a feature cache is needed")
        with path.open("rb") as raw:
            start = raw.read(8)
    except FileNotFoundError:
        parts = parts_folder(path)
        hint = (
            f"; an unfinished run left rows in {parts.name}: run the same command again, or "
            f"'mvemo cache repair {path}'"
            if any(parts.glob("[0-9]*-*.h5"))
            else ""
        )
        raise MissingCache(f"{path}: there is no such file{hint}") from None
    except IsADirectoryError:
        raise BadCache(f"{path}: a folder, where a feature cache (HDF5 file) is needed") from None
    except OSError as error:
        raise CacheError(f"{path}: {error.strerror}") from None
    if start != b"\x89HDF\r\n\x1a\n":
        what = "an empty file" if not start else f"no HDF5 file (it starts with {start!r})"
        raise BadCache(f"{path}: {what}, where a feature cache is needed")
    try:
        file = _open_hdf5(path)
    except DAMAGE as error:
        text = str(error)
        what = "truncated" if "truncated" in text else f"damaged ({text})"
        raise DamagedCache(
            f"{path}: a {what} HDF5 file: copy it again, or extract again with --force"
        ) from None
    try:
        check_header(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _open_hdf5(path: Path) -> Any:
    """Open with h5py's default locking flags, so that a notebook can open the same file.

    HDF5 refuses to open a file twice in one program with different flags. Nobody ever writes to a
    finished cache, so locks do not matter: if the default flags fail because of locks, others are
    tried.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "lock" not in str(error):
            raise
        try:
            return h5py.File(path, "r", locking=False)
        except OSError:
            return h5py.File(path, "r", locking=True)


def check_header(file: Any, path: Path) -> None:
    """Raise BadCache for a file that is not a cache of a known schema."""
    try:
        kind = attribute(file, "format", str) if has_attribute(file, "format") else ""
    except DAMAGE as error:
        raise BadCache(f"{path}: a damaged HDF5 file ({reason(error)}): copy it again") from None
    if kind != FORMAT:
        raise BadCache(f"{path}: an HDF5 file, but no feature cache of mvemo")
    try:
        schema = attribute(file, "schema", int)
        made_by = shown(attribute(file, "mvemo", str)).strip("'")
    except DAMAGE as error:
        raise BadCache(f"{path}: its header is damaged ({reason(error)}): copy it again") from None
    if schema < 1:
        raise BadCache(f"{path}: schema {schema!r} is none of mvemo's: copy or extract it again")
    for name in ("clips", "features", "failures"):
        try:
            part(file, name)
        except DAMAGE as error:
            raise BadCache(
                f"{path}: no whole cache ({reason(error)}): copy it again, or extract again"
            ) from None
    if schema > SCHEMA:
        raise BadCache(
            f"{path}: schema {schema}, but mvemo {code_version()} reads up to schema {SCHEMA}: "
            f"install mvemo {made_by} or later"
        )


@cache
def code_version() -> str:
    """Return the version of the installed mvemo."""
    try:
        return metadata.version("mvemo")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_header(file: Any) -> None:
    """Mark a file as a cache of the current schema."""
    write_attribute(file, "format", FORMAT)
    file.attrs["schema"] = SCHEMA
    write_attribute(file, "mvemo", code_version())
