"""Files of a cache: opening with checks of the header, and reading of their parts on demand."""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import h5py

from mvemo.cache.errors import BadCache, CacheError, DamagedCache, MissingCache
from mvemo.cache.failures import Failures
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.index import feature_label, read_spec
from mvemo.cache.storage.layout import read_curves, read_failures, read_provenance, read_table
from mvemo.cache.storage.plain import attribute, has_attribute, part, write_attribute
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Curves
from mvemo.manifests.files import shown

T = TypeVar("T")
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
        _check_header(file, path)
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


def _check_header(file: Any, path: Path) -> None:
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


def cache_files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or the shards of a folder: its ``*.h5`` files, by name."""
    if not path.is_dir():
        return (path,)
    files = tuple(sorted(p for p in path.glob("*.h5") if p.is_file() and p.name[0] != "."))
    finished = {parts_folder(file) for file in files}
    for parts in sorted(path.glob("*.h5.parts")):
        if parts not in finished and any(parts.glob("[0-9]*-*.h5")):
            shard = parts.name.removesuffix(".parts")
            raise MissingCache(
                f"{path}: its shard {shard} is not finished, rows of it lie in {parts.name}: run "
                f"its command again, or 'mvemo cache repair {path / shard}'"
            )
    if not files:
        raise MissingCache(f"{path}: a folder without shards of a feature cache (*.h5)")
    return files


def refuse_folder(path: Path) -> None:
    """Raise BadCache for a folder of shards, which cannot be changed."""
    if path.is_dir():
        raise BadCache(
            f"{path}: a folder, where a feature cache is to be written; shards in a folder are "
            f"read only: change each, or 'mvemo cache merge {path} --out features.h5'"
        )


class FilePool:
    """Open files; if there are many, the least recently used are closed.

    A file that is opened again must be unchanged.
    """

    def __init__(self, limit: int = 64) -> None:
        self.lock = RLock()
        self._limit = limit
        self._files: OrderedDict[Path, Any] = OrderedDict()
        self._known: dict[Path, tuple[int, int, int]] = {}
        self._closed = False

    def get(self, path: Path) -> Any:
        """Return the open file of a path."""
        with self.lock:
            if self._closed:
                raise BadCache(f"{path}: this cache is closed: open it again")
            file = self._files.pop(path, None)
            if file is None:
                file = open_file(path)
                self._check_same(path, file)
            self._files[path] = file
            while len(self._files) > self._limit:
                self._files.popitem(last=False)[1].close()
            return file

    def _check_same(self, path: Path, file: Any) -> None:
        facts = path.stat()
        identity = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if self._known.setdefault(path, identity) != identity:
            file.close()
            raise BadCache(f"{path}: was replaced while it was read: open the cache again")

    def close(self) -> None:
        """Close all files; the pool cannot be used again."""
        with self.lock:
            self._closed = True
            while self._files:
                self._files.popitem()[1].close()


class CacheFile:
    """File of a cache, with its clips and specs in memory; everything else is read on demand.

    Attributes
    ----------
    table
        Clips of the file; a shard often has only some of the cache's.
    groups
        (feature, fold) to its spec, with `trained_on`, and the name of its HDF5 group.
    """

    def __init__(self, path: Path, pool: FilePool) -> None:
        self.path = path
        self._pool = pool
        self.schema = int(pool.get(path).attrs["schema"])
        self.table: ClipTable = self.read("clip table", read_table)
        self.groups: dict[tuple[str, int | None], tuple[FeatureSpec, str]] = {}
        for group in self.read("features", lambda file: list(file["features"])):
            spec = self.read_feature(group, lambda item: read_spec(item, self.table.clip_ids))
            if (spec.name, spec.fold) in self.groups:
                raise BadCache(f"{path}: {feature_label(spec)} is there twice: extract again")
            self.groups[spec.name, spec.fold] = (spec, group)

    @property
    def name(self) -> str:
        """Name in messages."""
        return str(self.path)

    @property
    def failures(self) -> Failures:
        """Failures, read on each access."""
        return self.read("failures", read_failures)

    @property
    def curves(self) -> Curves:
        """Training curves, read on each access."""
        return self.read("curves", read_curves)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Provenance that the writer stated."""
        return self.read("provenance", read_provenance)

    def index_checksum(self, name: str, fold: int | None) -> str:
        """Return the stated checksum of a feature's index."""
        group = self.groups[name, fold][1]
        return self.read_feature(group, lambda item: str(attribute(item, "checksum", str)))

    def read_feature(self, group: str, read: Callable[[Any], T]) -> T:
        """Call `read` with the HDF5 group of a feature."""
        return self.read(f"feature {group}", lambda file: read(part(file["features"], group)))

    def read(self, what: str, read: Callable[[Any], T]) -> T:
        """Call `read` with the open file; raise BadCache if it is damaged."""
        with self._pool.lock:
            file = self._pool.get(self.path)
            try:
                return read(file)
            except DAMAGE as error:
                raise BadCache(
                    f"{self.path}: its {what} cannot be read ({reason(error)}): "
                    f"run 'mvemo cache verify {self.path}', or copy the file again"
                ) from None
