"""Files of a cache: opened with checks of the header; their parts are read on demand."""

from __future__ import annotations

import stat
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.cache import schema, table
from mvemo.cache.errors import BadCache, DamagedCache
from mvemo.cache.index import STEP, Index, is_whole, read_index, read_spec, values_array
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.untrusted import PlainArray, attribute, group_of
from mvemo.manifests.array_files import DAMAGED
from mvemo.manifests.array_types import F32, Ints
from mvemo.manifests.errors import MissingFile, MvemoError
from mvemo.manifests.files import Stamp, shown, stamp_of

T = TypeVar("T")

# Maximum number of open files.
MOST_OPEN = 64


def reason(error: BaseException) -> str:
    """Return in one line why a part of a file cannot be read."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


def parts_folder(path: Path) -> Path:
    """Return the folder of the parts of an unfinished run."""
    return path.with_name(path.name + ".parts")


def part_paths(path: Path) -> list[Path]:
    """Return the paths of the parts of an unfinished run, oldest first."""
    return sorted(parts_folder(path).glob("[0-9]*-*.h5"))


def open_file(path: Path) -> Any:
    """Open a cache file; raise a MvemoError unless it is a complete cache of a known schema."""
    try:
        # Opening a pipe would block.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise BadCache(f"{path}: expected a feature cache, got a pipe or a device")
        with path.open("rb") as raw:
            start = raw.read(8)
    except FileNotFoundError:
        hint = part_paths(path) and (
            f", but an unfinished run left rows in {parts_folder(path).name}: run the same command "
            f"again, or run 'mvemo cache repair {path}'"
        )
        raise MissingFile(f"{path}: no such file{hint or ''}") from None
    except IsADirectoryError:
        raise BadCache(f"{path}: expected a feature cache (HDF5 file), got a folder") from None
    except OSError as error:
        raise MvemoError(f"{path}: {error.strerror}") from None
    if start != b"\x89HDF\r\n\x1a\n":
        what = f"another file, which starts with {start!r}" if start else "an empty file"
        raise BadCache(f"{path}: expected a feature cache (HDF5 file), got {what}")
    try:
        file = _open_hdf5(path)
    except DAMAGED as error:
        what = "truncated" if "truncated" in str(error) else f"damaged ({error})"
        raise DamagedCache(
            f"{path}: is a {what} HDF5 file: copy it again, or extract again with --force"
        ) from None
    try:
        _check_header(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _open_hdf5(path: Path) -> Any:
    """Open with h5py's default locking flags; if the lock fails, try other flags."""
    # HDF5 refuses to open a file twice in one program (such as a notebook) with different flags.
    # Nobody writes to a finished cache, so locks do not matter.
    for options in ({}, {"locking": False}, {"locking": True}):
        try:
            return h5py.File(path, "r", **options)
        except OSError as error:
            if "lock" not in str(error) or options == {"locking": True}:
                raise
    raise AssertionError


def _check_header(file: Any, path: Path) -> None:
    """Raise BadCache for a file that is not a complete cache of a known schema."""
    version, made_by = 0, ""
    try:
        is_cache = attribute(file, "format", str, "") == schema.FORMAT
        if is_cache:
            version = attribute(file, "schema", int)
            made_by = shown(attribute(file, "mvemo", str)).strip("'")
            for name in ("clips", "features"):
                group_of(file, name)
    except DAMAGED as error:
        raise BadCache(
            f"{path}: its header is damaged ({reason(error)}): copy it again, or extract again"
        ) from None
    if not is_cache:
        raise BadCache(f"{path}: is an HDF5 file, but not a feature cache of mvemo")
    if version < schema.SCHEMA:
        raise BadCache(
            f"{path}: expected schema {schema.SCHEMA}, got {version}, of an earlier mvemo: delete "
            "it, and make it again with 'mvemo extract', or for imported features 'mvemo cache "
            "import'"
        )
    if version > schema.SCHEMA:
        raise BadCache(
            f"{path}: has schema {version}, but mvemo {schema.code_version()} reads only schema "
            f"{schema.SCHEMA}: install mvemo {made_by} or later"
        )


def cache_files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or the shards of a folder: its ``*.h5`` files, sorted by name."""
    if not path.is_dir():
        return (path,)
    files = tuple(sorted(p for p in path.glob("*.h5") if p.is_file() and p.name[0] != "."))
    for parts in sorted(path.glob("*.h5.parts")):
        shard = parts.with_suffix("")
        if shard not in files and part_paths(shard):
            raise MissingFile(
                f"{path}: shard {shard.name} is not finished (rows of it are in {parts.name}): run "
                f"its command again, or run 'mvemo cache repair {shard}'"
            )
    if not files:
        raise MissingFile(f"{path}: the folder has no shards of a feature cache (*.h5)")
    return files


def refuse_folder(path: Path) -> None:
    """Raise BadCache for a folder of shards, which cannot be changed."""
    if path.is_dir():
        raise BadCache(
            f"{path}: is a folder; a folder of shards cannot be changed: change each shard, or run "
            f"'mvemo cache merge {path} --out features.h5' first"
        )


class FilePool:
    """Pool of open files: the least recently used is closed; reopened ones must be unchanged."""

    def __init__(self) -> None:
        self.lock: Any = RLock()
        self._files: OrderedDict[Path, Any] = OrderedDict()
        self._known: dict[Path, Stamp] = {}
        self._closed = False

    def get(self, path: Path) -> Any:
        """Return the open file of a path."""
        with self.lock:
            if self._closed:
                raise BadCache(f"{path}: this cache is closed: open it again")
            file = self._files.pop(path, None)
            if file is None:
                file = open_file(path)
                stamp = stamp_of(path)
                if self._known.setdefault(path, stamp) != stamp:
                    file.close()
                    raise BadCache(
                        f"{path}: was replaced while it was being read: open the cache again"
                    )
            self._files[path] = file
            while len(self._files) > MOST_OPEN:
                self._files.popitem(last=False)[1].close()
            return file

    def close(self) -> None:
        """Close all files; the pool cannot be used again."""
        with self.lock:
            self._closed = True
            while self._files:
                self._files.popitem()[1].close()


class CacheFile:
    """File of a cache: clips and specs are in memory, other parts are read on demand.

    With `tolerant`, unreadable parts are listed in `lost` instead of raising an error.
    """

    def __init__(self, path: Path, pool: FilePool, *, tolerant: bool = False) -> None:
        self.path = path
        self.name: str = str(path)
        self.lost: list[str] = []  # unreadable parts, if `tolerant`
        self._pool = pool
        self._tolerant = tolerant
        self.schema: int = int(pool.get(path).attrs["schema"])
        self.table: table.ClipTable = self.read("clip table", schema.read_table)
        self._groups: dict[str, str] = {}
        self._indexes: dict[str, Index] = {}
        self._values: dict[str, tuple[Any, PlainArray]] = {}  # by digest, with their open file
        found: list[tuple[int, FeatureSpec]] = []
        for group in self.read("features", lambda file: list(file["features"])):
            if header := self._readable(
                f"feature {group}", partial(self._header, group=group), None
            ):
                found.append(header)
                self._groups[header[1].digest] = group
        # By digest, oldest first, with `trained_on`.
        ordered = sorted(found, key=lambda item: item[0])
        self.specs: dict[str, FeatureSpec] = {spec.digest: spec for _, spec in ordered}

    def _header(self, file: Any, group: str) -> tuple[int, FeatureSpec]:
        item = group_of(file["features"], group)
        return attribute(item, "order", int), read_spec(item, self.table.clip_ids)

    def load(self) -> CacheFile:
        """Read everything except values, so that damage is found before anything is written."""
        _ = self.indexes, self.failures, self.curves, self.provenance, self.merged
        return self

    @cached_property
    def indexes(self) -> dict[str, Index]:
        """Indexes of all features by digest, oldest first."""
        stored = {digest: self.readable_feature(digest) for digest in self.specs}
        return {digest: feature[0] for digest, feature in stored.items() if feature is not None}

    def readable_feature(self, digest: str) -> tuple[Index, PlainArray] | None:
        """Read a feature's index; return None if it is damaged and the file tolerant."""
        group, spec = self._groups[digest], self.specs[digest]

        def read(file: Any) -> tuple[Index, PlainArray]:
            index, values = read_index(group_of(file["features"], group), spec, len(self.table))
            self._values[digest] = file, values
            return index, values

        return self._readable(f"feature {group}", read, None)

    @cached_property
    def failures(self) -> table.Failures:
        """Failures; a part also has cleared failures."""
        return self._readable("failures", schema.read_failures, {})

    @cached_property
    def curves(self) -> table.Curves:
        """Training curves."""
        return self._readable("curves", schema.read_curves, {})

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Provenance from the writer."""
        return self._readable("provenance", schema.read_provenance, {})

    @cached_property
    def merged(self) -> tuple[str, ...]:
        """Names of the parts that were merged into this file."""
        return self._readable("list of merged parts", partial(schema.read_texts, name="merged"), ())

    def index(self, digest: str) -> Index:
        """Return a feature's index, which is read only once."""
        known: dict[str, Index] = vars(self).get("indexes", self._indexes)
        if digest not in known:
            stored = self.readable_feature(digest)
            assert stored is not None  # a damaged index is None only in a tolerant file
            known[digest] = stored[0]
        return known[digest]

    def stored(self, index: Index, start: int, stop: int) -> NDArray[Any]:
        """Return rows of a feature's vectors, or of all its frames, (rows, dim)."""
        return self._read_values(index, lambda values: values.read(start, stop))

    def is_whole(self, digest: str) -> bool:
        """Read all values of a feature; return True if they match their checksum."""
        index = self.indexes[digest]
        with suppress(*DAMAGED):
            return self._read_values(index, partial(is_whole, index))
        return False

    def fill(
        self,
        block: F32,
        digest: str,
        rows: Ints,
        use: Callable[[int, NDArray[Any]], None] = lambda *_: None,
    ) -> None:
        """Fill `block` with vectors, or with the frames of sequences.

        Consecutive rows are read together. `use` is called with the number of the first value
        that was read, and with all values of the read.
        """
        index = self.index(digest)
        ends = [0, *(1 + np.flatnonzero(np.diff(rows) != 1)).tolist(), len(rows)]

        def read(values: PlainArray) -> None:
            filled = 0
            for first, end in pairwise(ends):
                start, stop = (int(index.bounds[i]) for i in (rows[first], rows[end - 1] + 1))
                part = stored = block[filled : filled + stop - start]
                if values.dtype == block.dtype:
                    values.read_into(part, start)
                else:
                    stored = values.read(start, stop)
                    part[:] = stored
                use(start, stored)
                filled += len(part)

        self._read_values(index, read)

    def _read_values(self, index: Index, read: Callable[[PlainArray], T]) -> T:
        """Call `read` with the values of a feature, which stay open as long as the file."""
        digest, group = index.spec.digest, self._groups[index.spec.digest]

        def open_and_read(file: Any) -> T:
            opened, values = self._values.get(digest, (None, None))
            if opened is not file or values is None:
                values = values_array(group_of(file["features"], group), index)
                self._values[digest] = file, values
            return read(values)

        return self.read(f"feature {group}", open_and_read)

    def read(self, what: str, read: Callable[[Any], T]) -> T:
        """Call `read` with the open file; raise BadCache if it is damaged."""
        with self._pool.lock:
            file = self._pool.get(self.path)
            try:
                return read(file)
            except DAMAGED as error:
                repair = f"run 'mvemo cache repair {self.path}'"
                again = "extract again" if what == "clip table" else repair
                raise BadCache(
                    f"{self.path}: its {what} cannot be read ({reason(error)}): {again}, or copy "
                    "the file again"
                ) from None

    def _readable(self, what: str, read: Callable[[Any], T], default: T) -> T:
        """Read a part; if it is damaged and the file tolerant, note it and return `default`."""
        if not self._tolerant:
            return self.read(what, read)
        try:
            return read(self._pool.get(self.path))
        except DAMAGED as error:
            part_name = what if what.startswith("feature ") else f"the {what}"
            self.lost.append(f"{part_name} cannot be read ({reason(error)})")
            return default


class RunningChecksum:
    """Reader of a feature's values that computes their checksum if they are read in order."""

    def __init__(self, file: CacheFile, digest: str) -> None:
        self._file, self._index = file, file.indexes[digest]
        self._state = xxhash.xxh3_128()
        self._position = 0  # number of rows in the checksum

    def fill(self, block: F32, digest: str, rows: Ints) -> None:
        """Do the same as `CacheFile.fill`."""
        self._file.fill(block, digest, rows, self._add)

    def _add(self, start: int, block: NDArray[Any]) -> None:
        """Add values from `start` on; values before it that were not needed are read."""
        step = max(1, STEP // (4 * self._index.spec.dim))
        with suppress(*DAMAGED):
            while self._position < start:
                gap = min(step, start - self._position)
                self._update(self._file.stored(self._index, self._position, self._position + gap))
        if self._position == start:
            self._update(block)
        else:
            self._position = sys.maxsize  # These values were not read, or not in this order.

    def _update(self, block: NDArray[Any]) -> None:
        self._position += len(block)
        self._state.update(block.astype(self._index.spec.dtype, copy=False).data)

    def is_whole(self, digest: str) -> bool:
        """Return the same as `CacheFile.is_whole`, but read again only what does not match."""
        n = int(self._index.bounds[-1])
        self._add(n, np.empty(0))
        matches = self._state.hexdigest() == self._index.values_checksum
        return (self._position == n and matches) or self._file.is_whole(digest)
