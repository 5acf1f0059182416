"""Reader of caches; it never writes, and reads the state after the last `CacheWriter.close`."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.cache import union
from mvemo.cache.cache_file import CacheFile, FilePool, cache_files
from mvemo.cache.errors import BadCache
from mvemo.cache.index import Index, finite_rows
from mvemo.cache.schema import table_checksum
from mvemo.cache.spec import UNDIGESTED, FeatureSpec
from mvemo.cache.table import ClipTable, Curves, Failure, rows_in
from mvemo.manifests.array_types import F32, Bools, Ints
from mvemo.manifests.text_table import html_table, listed

# Approximate bytes of a block of `Cache.blocks`.
BLOCK = 16 << 20
# The same of a block that fits into the CPU's cache.
_IN_CACHE = 2 << 20


class Cache:
    """Open cache; a context manager, returned by `open_cache`.

    Values are read when they are needed. Threads may share a cache; each process opens its own.

    Parameters
    ----------
    path
        File, or folder of shards. Shards are files with clips of one manifest and equal
        settings; they are read like the file that merging them would give.

    Attributes
    ----------
    table
        Clips, in the order of all rows.
    """

    def __init__(self, path: Path, files: Sequence[CacheFile] = ()) -> None:
        self.path = path
        self._pool = FilePool()
        self._plans: dict[str, Index] = {}
        try:
            self._files = [*files] or [CacheFile(file, self._pool) for file in cache_files(path)]
            self.table: ClipTable = union.merge_tables(self._files)
            # For each file, int64 (clips of the file,): rows of its clips in `table`.
            self._places = rows_in(self.table, [file.table for file in self._files])
            union.refuse_rivals(self._files, path)
            #: Specs of all features by name and fold, with `trained_on`.
            self.specs: tuple[FeatureSpec, ...] = tuple(union.merge_specs(self._files, self.table))
            self._specs = {(spec.name, spec.fold): spec for spec in self.specs}
            if sum(map(len, self._places)) > len(self.table):
                for spec in self.specs:
                    self._feature(spec)
        except BaseException:
            self._pool.close()
            raise

    def __repr__(self) -> str:
        """Return one line with name, clips and features."""
        return f"<Cache {self.path.name}: {self._caption()}: {listed(self.names())}>"

    def _repr_html_(self) -> str:
        """Return a table of the features for notebooks."""
        rows = []
        for name in self.names():
            first, *others = self.variants(name)
            nets = f"{1 + len(others)} folds" if first.fold is not None else ""
            numbers, protocol = str(first.dim), f"{first.protocol} {nets}"
            rows.append((name, first.modality, first.kind, numbers, protocol))
        head = ("feature", "modality", "kind", "numbers", "protocol")
        return html_table(f"{self.path.name}: {self._caption()}", head, rows)

    def _caption(self) -> str:
        n = len(self.names())
        return f"{len(self.table)} clips of {self.table.name!r}, {n} feature{'s' * (n != 1)}"

    @property
    def schema(self) -> int:
        """Schema version of the file, or the newest of the shards."""
        return max(file.schema for file in self._files)

    @property
    def n_bytes(self) -> int:
        """Size of the file or of all shards, in bytes."""
        return sum(file.path.stat().st_size for file in self._files)

    def names(self) -> tuple[str, ...]:
        """Return the names of all features, sorted."""
        return tuple(sorted({spec.name for spec in self.specs}))

    def variants(self, name: str) -> tuple[FeatureSpec, ...]:
        """Return the specs of a feature: one, or one per fold under ``crossfit``."""
        variants = tuple(spec for spec in self.specs if spec.name == name)
        if not variants:
            raise unknown_feature(self.path, name, self.names())
        return variants

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Failures by clip id and stage."""
        return tuple(sorted(filter(None, union.merge_failures(self._files).values())))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Provenance from the writer; earlier runs are under ``history``."""
        return union.merge_provenance(self._files)

    @cached_property
    def curves(self) -> Curves:
        """Training curves: ``net@fold0`` -> series by name; NaN for values that were not finite."""
        return union.merge_curves(self._files)

    def digest(self) -> str:
        """Return the SHA-256 of the clips and of all features' specs, keys and row checksums.

        Two caches with equal digests hold equal values. Failures, curves, provenance and the times
        of reading in a catalogue are not included. `verify_cache` checks that the values match
        their checksums.
        """
        state = hashlib.sha256(table_checksum(self.table).encode())
        for spec in (spec for spec in self.specs if UNDIGESTED not in spec.params):
            checksum = self._feature(spec).checksum()
            state.update(f"{spec.digest} {checksum}\n".encode())
        return state.hexdigest()

    def spec(self, name: str, fold: int | None = None) -> FeatureSpec:
        """Return the spec that `vectors` and `sequence` use for these arguments."""
        spec = self._specs.get((name, fold)) or self._specs.get((name, None))
        if spec is None:
            folds = ", ".join(str(spec.fold) for spec in self.variants(name))
            given = "none was given" if fold is None else f"got {fold}"
            raise BadCache(f"{self.path}: {name} needs a fold, one of {folds}; {given}")
        return spec

    def vectors(
        self,
        name: str,
        fold: int | None = None,
        *,
        columns: slice | None = None,
        clips: Sequence[str] | None = None,
    ) -> tuple[F32, Bools]:
        """Return the vectors of a feature, of all clips or only of some.

        Parameters
        ----------
        name
            Name of the feature.
        fold
            Fold of the net, under ``crossfit``; ignored for a feature with one variant.
        columns
            Columns to return; None for all. Only these take memory, but all columns are read and
            compared with their checksum.
        clips
            Ids of the clips to return, in this order; None for all clips of the table. Only their
            rows are read and compared with their own checksums.

        Returns
        -------
        float32 (clips, columns), with NaN for missing rows; bool (clips,), True for present rows.

        Raises
        ------
        BadCache
            The feature, fold or a clip does not exist, is a sequence, or is damaged.

        Examples
        --------
        >>> from mvemo.cache import import_feature
        >>> table = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
        ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
        >>> _ = import_feature("some.h5", "mean", "audio", np.eye(2), table=table)
        >>> with open_cache("some.h5") as cache:
        ...     cache.vectors("mean", clips=["b"])
        (array([[0., 1.]], dtype=float32), array([ True]))
        """
        spec = self._vector(name, fold)
        kept, index = columns or slice(None), self._feature(spec)
        if clips is not None:
            return self._vectors_of(spec, clips, kept)
        if columns is None and len(self._files) == 1:
            values = np.empty((len(self.table), spec.dim), "<f4")
            deque(_vector_blocks(self._files[0], index, _IN_CACHE, values), maxlen=0)
            values[~index.present] = np.nan
            return values, index.present.copy()
        values = np.full((len(self.table), len(range(*kept.indices(spec.dim)))), np.nan, "<f4")
        for rows, block in self.blocks(name, fold, n_bytes=_IN_CACHE):
            values[rows] = block[:, kept]
        return values, index.present.copy()

    def _vectors_of(
        self, spec: FeatureSpec, clips: Sequence[str], columns: slice
    ) -> tuple[F32, Bools]:
        """Return the vectors of some clips; their rows are compared with their own checksums."""
        index, rows = self._feature(spec), np.array([*map(self._place, clips)], np.int64)
        values = np.full((len(rows), spec.dim), np.nan, "<f4")
        for number in np.unique(index.origin[rows]):
            if number >= 0:
                file = self._files[number]
                # Rows of a file are read in order.
                at = np.flatnonzero(index.origin[rows] == number)
                at = at[np.argsort(index.row[rows[at]], kind="stable")]
                block = np.empty((len(at), spec.dim), "<f4")
                file.fill(block, spec.digest, index.row[rows[at]])
                ids = [clips[i] for i in at.tolist()]
                if not (np.isfinite(block).all() and all(map(index.fits, rows[at], ids, block))):
                    raise _damaged(file, spec)
                values[at] = block
        return values[:, columns], index.present[rows]

    def blocks(
        self, name: str, fold: int | None = None, *, n_bytes: int = BLOCK
    ) -> Iterator[tuple[Ints, F32]]:
        """Yield the vectors of a feature in blocks of rows, for features larger than memory.

        Parameters
        ----------
        name, fold
            Same as for `vectors`.
        n_bytes
            Approximate bytes of a block's values; a block has at least one row.

        Yields
        ------
        int64 (rows,), rows of the table that have the feature, without repetition; float32
        (rows, dim), their values. Damage may be reported only after a file's last block, because
        the checksum covers all values of the file.
        """
        spec = self._vector(name, fold)
        index = self._feature(spec)
        for number, file in enumerate(self._files):
            rows = np.flatnonzero(index.origin == number)
            if not len(rows):
                continue
            # Rows of the table for the rows of the file; another file may have the same rows.
            place = np.full(len(file.table), -1)
            place[index.row[rows]] = rows
            for start, block in _vector_blocks(file, file.index(spec.digest), n_bytes):
                at = place[start : start + len(block)]
                if (at >= 0).any():
                    yield (at, block) if (at >= 0).all() else (at[at >= 0], block[at >= 0])

    def present(self, name: str, fold: int | None = None) -> Bools:
        """Return bool (clips,), True for clips that have the feature."""
        return self._feature(self.spec(name, fold)).present.copy()

    def keys(self, name: str, fold: int | None = None) -> NDArray[np.bytes_]:
        """Return the `FeatureSpec.key` of each clip's row, bytes (clips,), empty if missing."""
        return self._feature(self.spec(name, fold)).keys

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Return the ids of the clips whose row has the given key and so is up to date."""
        if spec not in self.specs:
            return frozenset()
        stored = zip(self.table.clip_ids, self._feature(spec).keys.tolist(), strict=True)
        return frozenset(c for c, key in stored if c in keys and key == keys[c].encode())

    def sequence(self, name: str, clip_id: str, fold: int | None = None) -> F32 | None:
        """Return the sequence of one clip, float32 (frames, dim), or None if missing.

        Raises
        ------
        BadCache
            The feature, fold or clip does not exist, is a vector, or is damaged.
        """
        spec = self.spec(name, fold)
        if spec.kind != "sequence":
            raise BadCache(f"{self.path}: {name} is a vector: read it with Cache.vectors")
        i, index = self._place(clip_id), self._feature(spec)
        if not index.present[i]:
            return None
        file, values = self._files[index.origin[i]], np.empty((index.frames[i], spec.dim), "<f4")
        file.fill(values, spec.digest, index.row[i : i + 1])
        if not (np.isfinite(values).all() and index.fits(i, clip_id, values)):
            raise _damaged(file, spec)
        return values

    def _vector(self, name: str, fold: int | None) -> FeatureSpec:
        spec = self.spec(name, fold)
        if spec.kind == "sequence":
            raise BadCache(f"{self.path}: {name} is a sequence: read it with Cache.sequence")
        return spec

    def _place(self, clip_id: str) -> int:
        """Return the row of a clip."""
        if clip_id not in self._rows:
            raise BadCache(f"{self.path}: there is no clip {clip_id!r}")
        return self._rows[clip_id]

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Row of each clip."""
        return {clip: i for i, clip in enumerate(self.table.clip_ids)}

    def _feature(self, spec: FeatureSpec) -> Index:
        """Return an index of all files' rows, with the source of each; see `union.Plan`."""
        if spec.digest not in self._plans:
            parts = [
                (number, file.name, places, file.index(spec.digest))
                for number, (file, places) in enumerate(zip(self._files, self._places, strict=True))
                if spec.digest in file.specs
            ]
            if len(self._files) == 1:
                index, rows = parts[0][-1], np.arange(len(self.table))
                plan = replace(index, origin=np.where(index.present, 0, -1), row=rows)
            else:
                plan = union.plan_feature(self.table, parts, self.path)
            self._plans[spec.digest] = plan
        return self._plans[spec.digest]

    def plan(self) -> union.Plan:
        """Return the plan of a file with the whole content; everything but values is read."""
        features = {spec.digest: self._feature(spec) for spec in self.specs}
        extras = union.merge_failures(self._files), self.curves, self.provenance
        return union.Plan(self.table, self._files, features, *extras)

    def close(self) -> None:
        """Close the file; arrays that were read stay valid."""
        self._pool.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _vector_blocks(
    file: CacheFile, index: Index, n_bytes: int, out: F32 | None = None
) -> Iterator[tuple[int, F32]]:
    """Yield number of the first row and values of blocks of a file's vectors; may fill `out`."""
    spec, state, n = index.spec, xxhash.xxh3_128(), len(index.present)
    step = max(1, n_bytes // (4 * spec.dim))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        block = np.empty((len(rows), spec.dim), "<f4") if out is None else out[start : start + step]
        file.fill(block, spec.digest, rows)
        state.update(block.astype(spec.dtype, copy=False).data)
        if (finite_rows(block) != index.present[start : start + step]).any():
            raise _damaged(file, spec)
        yield start, block
    if state.hexdigest() != index.values_checksum:
        raise _damaged(file, spec)


def clip_reader(cache: Cache, spec: FeatureSpec) -> Callable[[int], F32]:
    """Return a function that reads the values of one clip, given a row that is present."""
    if spec.kind != "sequence":
        return cache.vectors(spec.name, spec.fold)[0].__getitem__
    return lambda row: cast(F32, cache.sequence(spec.name, cache.table.clip_ids[row], spec.fold))


def unknown_feature(path: Path, name: str, names: Iterable[str]) -> BadCache:
    """Return the error for a feature that a cache does not have."""
    listing = ", ".join(sorted(names)) or "none"
    return BadCache(f"{path}: has no feature {name!r}; the features are {listing}")


def _damaged(file: CacheFile, spec: FeatureSpec) -> BadCache:
    return BadCache(
        f"{file.path}: the values of {spec.label} are damaged: list them with "
        f"'mvemo cache verify {file.path}', or drop them with 'mvemo cache repair {file.path}'"
    )


def open_cache(path: Path | str) -> Cache:
    """Open a cache for reading.

    Parameters
    ----------
    path
        Path of a file, or of a folder of shards (`Cache`).

    Raises
    ------
    MissingFile
        The file does not exist, or the folder has no shards.
    BadCache
        The file is not a feature cache, is damaged, or has a newer schema; or shards differ in
        their manifests or settings, or in the values of a row.

    Examples
    --------
    >>> from mvemo.cache import import_feature
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> values = np.array([[0.5, 1.5], [2.0, 4.0]])
    >>> _ = import_feature("features.h5", "mean", "audio", values, table=clips)
    >>> with open_cache("features.h5") as cache:
    ...     cache.names(), cache.vectors("mean")
    (('mean',), (array([[0.5, 1.5], [2. , 4. ]], dtype=float32), array([ True,  True])))
    """
    return Cache(Path(path))
