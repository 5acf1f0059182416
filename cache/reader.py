"""Reader of caches; it never writes, and sees a cache as it was last closed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache
from mvemo.cache.failures import Failure
from mvemo.cache.pieces import (
    KnownVectors,
    Piece,
    known_vectors,
    pieces_of,
    read_sequence,
    read_vectors,
    vector_blocks,
)
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import FilePool
from mvemo.cache.storage.index import Index
from mvemo.cache.storage.layout import table_checksum
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Bools, Curves, Ints
from mvemo.cache.union import union_curves, union_failures, union_provenance
from mvemo.manifests.text_table import html_table, listed

# Approximate bytes of a block of `Cache.blocks`.
BLOCK = 16 << 20


class Cache:
    """Open cache; a context manager, returned by `open_cache`.

    Values are read when they are needed. Threads may share a cache; each process opens its own.

    Parameters
    ----------
    path
        File, or folder of shards. Shards are files with clips of one manifest and the same
        settings; they are read like the file that merging them would give.

    Attributes
    ----------
    table
        Clips, in the order of all rows.

    See Also
    --------
    open_cache : Open a cache; has an example.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool = FilePool()
        try:
            self._union = pieces_of(path, self._pool)
        except BaseException:
            self._pool.close()
            raise
        self.table: ClipTable = self._union.table

    # --- contents

    def __repr__(self) -> str:
        """Return one line, for any content."""
        return f"<Cache {self.path.name}: {self._caption()}: {listed(self.names())}>"

    def _repr_html_(self) -> str:
        """Return a table of the features for notebooks."""
        rows = []
        for name in self.names():
            first, *others = self.variants(name)
            nets = f"{1 + len(others)} folds" if first.fold is not None else ""
            rows.append(
                (name, first.modality, first.kind, str(first.dim), f"{first.protocol} {nets}")
            )
        head = ("feature", "modality", "kind", "numbers", "protocol")
        return html_table(f"{self.path.name}: {self._caption()}", head, rows)

    def _caption(self) -> str:
        n = len(self.names())
        return f"{len(self.table)} clips of {self.table.name!r}, {n} feature{'s' * (n != 1)}"

    @property
    def schema(self) -> int:
        """Schema version of the file, or the newest of the shards."""
        return max(piece.file.schema for piece in self._union.pieces)

    @property
    def n_bytes(self) -> int:
        """Size of the file or of all shards, in bytes."""
        return sum(piece.file.path.stat().st_size for piece in self._union.pieces)

    @cached_property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Specs of all features by name and fold, with `trained_on`."""
        specs = self._union.specs.values()
        return tuple(sorted(specs, key=lambda s: (s.name, -1 if s.fold is None else s.fold)))

    def names(self) -> tuple[str, ...]:
        """Return the names of all features, sorted."""
        return tuple(sorted({spec.name for spec in self.specs}))

    def variants(self, name: str) -> tuple[FeatureSpec, ...]:
        """Return the specs of a feature: one, or one per fold under ``crossfit``.

        Raises
        ------
        BadCache
            The feature does not exist.
        """
        variants = tuple(spec for spec in self.specs if spec.name == name)
        if not variants:
            names = ", ".join(self.names()) or "none"
            raise BadCache(f"{self.path}: no feature {name!r}; there are {names}")
        return variants

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Failures by clip id and stage."""
        return tuple(
            sorted(
                Failure(clip, stage, why.text, why.time, why.version)
                for (clip, stage), why in union_failures(self._union.files).items()
                if why is not None
            )
        )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Provenance that the writer stated; earlier runs are under ``history``."""
        return union_provenance(self._union.files)

    @cached_property
    def curves(self) -> Curves:
        """Training curves: ``net@fold0`` to series by name; NaN for values that were not finite."""
        return union_curves(self._union.files)

    def digest(self) -> str:
        """Return the SHA-256 of the clips and of all features' specs, keys and row checksums.

        Two caches with one digest hold the same values. Failures, curves and provenance do not
        count. `verify_cache` checks that the values match their checksums.
        """
        state = hashlib.sha256(table_checksum(self.table).encode())
        for spec in self.specs:
            state.update(f"{spec.digest} {self._union.index_checksum(spec)}\n".encode())
        return state.hexdigest()

    # --- values

    def spec(self, name: str, fold: int | None = None) -> FeatureSpec:
        """Return the spec that `vectors` and `sequence` use for these arguments."""
        specs = self._union.specs
        spec = specs.get((name, fold)) or specs.get((name, None))
        if spec is None:
            folds = ", ".join(str(spec.fold) for spec in self.variants(name))
            given = "none was given" if fold is None else f"not {fold}"
            raise BadCache(f"{self.path}: {name} has a variant for each fold {folds}; {given}")
        return spec

    def vectors(
        self, name: str, fold: int | None = None, *, columns: slice | None = None
    ) -> tuple[F32, Bools]:
        """Return all vectors of a feature.

        Parameters
        ----------
        name
            Name of the feature.
        fold
            Fold of the net, under ``crossfit``. It is ignored for a feature with one variant
            for all folds.
        columns
            Columns to return; None for all. Memory is used only for these columns, but all
            are read and compared with their checksum.

        Returns
        -------
        float32 (clips, columns), with NaN for missing rows; bool (clips,), True for present
        rows.

        Raises
        ------
        BadCache
            The feature or fold does not exist, the feature is a sequence, or the values do
            not match their checksum.

        See Also
        --------
        blocks : Yield the same values by rows, in bounded memory.
        """
        spec = self._vector(name, fold)
        pieces = self._union.pieces
        if columns is None and len(pieces) == 1:
            values: F32 = np.empty((len(self.table), spec.dim), "<f4")
            return values, read_vectors(pieces[0], spec, values)
        kept = columns or slice(None)
        values = np.full((len(self.table), len(range(*kept.indices(spec.dim)))), np.nan, "<f4")
        present = np.zeros(len(self.table), np.bool_)
        for rows, block in self.blocks(name, fold):
            values[rows] = block[:, kept]
            present[rows] = True
        return values, present

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
        int64 (rows,), rows of the table that have the feature, each once; float32 (rows, dim),
        their values.

        Raises
        ------
        BadCache
            Same as for `vectors`. Damage may be reported only after a file's last block,
            because the checksum covers all values of the file.
        """
        spec = self._vector(name, fold)
        given = np.zeros(len(self.table), np.bool_)
        for piece in self._union.having(spec):
            at = piece.file.path, spec.digest
            if at not in self._known:
                self._known[at] = known_vectors(piece, spec)
            for rows, block in vector_blocks(piece, spec, self._known[at], n_bytes):
                new = ~given[rows]
                given[rows] = True
                if new.any():
                    yield (rows, block) if new.all() else (rows[new], block[new])

    def present(self, name: str, fold: int | None = None) -> Bools:
        """Return bool (clips,), True for clips that have the feature."""
        return self._union.present(self.spec(name, fold))

    def keys(self, name: str, fold: int | None = None) -> NDArray[np.bytes_]:
        """Return the `FeatureSpec.key` of each clip's row, bytes (clips,), empty if missing."""
        return self._union.plan(self.spec(name, fold)).keys

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Return the ids of the clips whose row of a feature is up to date.

        Parameters
        ----------
        spec
            Spec of the feature.
        keys
            `FeatureSpec.key` of each clip's current media, by clip id.
        """
        known = self._union.specs.get((spec.name, spec.fold))
        if known is None or known.digest != spec.digest:
            return frozenset()
        found: set[str] = set()
        for piece in self._union.having(spec):
            stored = zip(piece.clip_ids, piece.index(spec).keys.tolist(), strict=True)
            found |= {clip for clip, key in stored if clip in keys and key == keys[clip].encode()}
        return frozenset(found)

    def sequence(self, name: str, clip_id: str, fold: int | None = None) -> F32 | None:
        """Return the sequence of one clip.

        Returns
        -------
        float32 (frames, dim), or None if missing.

        Raises
        ------
        BadCache
            The feature, fold or clip does not exist, the feature is a vector, or the values
            are damaged.
        """
        spec = self.spec(name, fold)
        if spec.kind != "sequence":
            raise BadCache(f"{self.path}: {name} is a vector: read it by vectors()")
        row = self._row.get(clip_id)
        if row is None:
            raise BadCache(f"{self.path}: there is no clip {clip_id!r}")
        for piece in self._union.having(spec):
            piece_row = piece.row(row)
            if piece_row < 0:
                continue
            index, starts = self._starts(piece, spec)
            if index.present[piece_row]:
                return read_sequence(
                    piece, index, piece_row, slice(starts[piece_row], starts[piece_row + 1])
                )
        return None

    def _vector(self, name: str, fold: int | None) -> FeatureSpec:
        spec = self.spec(name, fold)
        if spec.kind == "sequence":
            raise BadCache(f"{self.path}: {name} is a sequence: read it clip by clip")
        return spec

    @cached_property
    def _row(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.table.clip_ids)}

    @cached_property
    def _known(self) -> dict[tuple[Path, str], KnownVectors]:
        return {}

    @cached_property
    def _indexes(self) -> dict[tuple[Path, str], tuple[Index, Ints]]:
        return {}

    def _starts(self, piece: Piece, spec: FeatureSpec) -> tuple[Index, Ints]:
        """Return a sequence's index in a file, and the first frame of each clip; cached."""
        at = piece.file.path, spec.digest
        known = self._indexes.get(at)
        if known is None:
            index = piece.index(spec)
            known = index, np.concatenate([[0], np.cumsum(index.frames)])
            self._indexes[at] = known
        return known

    def close(self) -> None:
        """Close the file; arrays that were read stay valid."""
        self._pool.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_cache(path: Path | str) -> Cache:
    """Open a cache for reading.

    Parameters
    ----------
    path
        Path of a file, or of a folder of shards (`Cache`).

    Raises
    ------
    MissingCache
        The file does not exist, or the folder has no shards.
    BadCache
        The file is not a feature cache, is damaged, or has a newer schema; or shards differ in
        their manifests or settings, or in the values of a row.

    See Also
    --------
    CacheWriter : Write a cache.
    verify_cache : Check every value.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.cache import import_feature
    >>> path = Path(tempfile.mkdtemp()) / "features.h5"
    >>> clips = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> values = np.array([[0.5, 1.5], [2.0, 4.0]])
    >>> _ = import_feature(path, "mean", "audio", values, table=clips)
    >>> with open_cache(path) as cache:
    ...     values, present = cache.vectors("mean")
    ...     names, specs, table = cache.names(), cache.specs, cache.table
    >>> values
    array([[0.5, 1.5], [2. , 4. ]], dtype=float32)
    >>> present
    array([ True,  True])
    >>> names, specs[0].protocol, table.labels
    (('mean',), 'imported', array([0, 1]))
    """
    return Cache(Path(path))
