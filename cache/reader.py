"""Reading a cache: readers never write, and see the cache as it was last closed."""

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
from mvemo.cache.pieces import Piece, pieces_of
from mvemo.cache.rows import (
    KnownVectors,
    known_vectors,
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

# Bytes of values that `Cache.blocks` gives at a time.
BLOCK = 16 << 20


class Cache:
    """An open cache: a context manager, made by `open_cache`.

    Values are read when they are needed. Threads may share a cache; each process opens one
    of its own.

    Parameters
    ----------
    path
        The file, or a folder of shards: files of clips of one manifest, made with the same
        settings. They are read as the one file that merging them would give.

    Attributes
    ----------
    table
        The clips, in the order of all rows.

    See Also
    --------
    open_cache : Opens one, with an example.
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
        """One line, whatever it holds."""
        return f"<Cache {self.path.name}: {self._caption()}: {listed(self.names())}>"

    def _repr_html_(self) -> str:
        """For notebooks: its features."""
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
        """Of its file, or the newest of its shards."""
        return max(piece.file.schema for piece in self._union.pieces)

    @property
    def n_bytes(self) -> int:
        """Size of its file, or of all shards."""
        return sum(piece.file.path.stat().st_size for piece in self._union.pieces)

    @cached_property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Of all features, by name and fold, `trained_on` filled in."""
        specs = self._union.specs.values()
        return tuple(sorted(specs, key=lambda s: (s.name, -1 if s.fold is None else s.fold)))

    def names(self) -> tuple[str, ...]:
        """Names of all features, sorted."""
        return tuple(sorted({spec.name for spec in self.specs}))

    def variants(self, name: str) -> tuple[FeatureSpec, ...]:
        """Specs of a name: one, or one for each fold under ``crossfit``.

        Raises
        ------
        BadCache
            There is no such feature.
        """
        variants = tuple(spec for spec in self.specs if spec.name == name)
        if not variants:
            names = ", ".join(self.names()) or "none"
            raise BadCache(f"{self.path}: no feature {name!r}; there are {names}")
        return variants

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """By clip id and stage."""
        return tuple(
            sorted(
                Failure(clip, stage, why.text, why.time, why.version)
                for (clip, stage), why in union_failures(self._union.files).items()
                if why is not None
            )
        )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the writer stated; that of earlier runs under ``history``."""
        return union_provenance(self._union.files)

    @cached_property
    def curves(self) -> Curves:
        """``net@fold0`` to series by name; NaN where a value was not finite."""
        return union_curves(self._union.files)

    def digest(self) -> str:
        """SHA-256 of the clips and of all features' specs, keys and row checksums.

        Two caches of one digest hold the same values; failures, curves and provenance do
        not count. Whether the values fit their checksums is checked by `verify_cache`.
        """
        state = hashlib.sha256(table_checksum(self.table).encode())
        for spec in self.specs:
            state.update(f"{spec.digest} {self._union.index_checksum(spec)}\n".encode())
        return state.hexdigest()

    # --- values

    def spec(self, name: str, fold: int | None = None) -> FeatureSpec:
        """The spec that `vectors` and `sequence` use for these arguments."""
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
        """All vectors of a feature.

        Parameters
        ----------
        name
            The feature.
        fold
            Which net's, under ``crossfit``. A feature of one variant for all folds is
            given whatever the fold.
        columns
            Those to keep; None for all. Memory is for these alone, though all are read to be
            compared with their checksums.

        Returns
        -------
        float32 (clips, columns), NaN rows where missing; bool (clips,), True where present.

        Raises
        ------
        BadCache
            No such feature or fold, a sequence, or values that are damaged: all are
            compared with their checksum.

        See Also
        --------
        blocks : The same by rows, in bounded memory.
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
        """The vectors of a feature in blocks of rows: as many as fit into memory, or more.

        Parameters
        ----------
        name, fold
            As of `vectors`.
        n_bytes
            Of a block's values, about; one row at least.

        Yields
        ------
        int64 (rows,): rows of the table that have the feature, each once; float32 (rows, dim).

        Raises
        ------
        BadCache
            As `vectors`; values that are damaged after a file's last block, since only the
            whole has a checksum.
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
        """bool (clips,): which clips have the feature."""
        return self._union.present(self.spec(name, fold))

    def keys(self, name: str, fold: int | None = None) -> NDArray[np.bytes_]:
        """Return the `FeatureSpec.key` of each clip's row, bytes (clips,), empty if missing."""
        return self._union.plan(self.spec(name, fold)).keys

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Ids of the clips whose row of a feature is up to date.

        Parameters
        ----------
        spec
            The feature.
        keys
            Clip id to `FeatureSpec.key` of its media as they are now.
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
        """One clip's sequence.

        Returns
        -------
        float32 (frames, dim); None where missing.

        Raises
        ------
        BadCache
            No such feature, fold or clip, a vector, or values that are damaged.
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
        """A sequence's index in a file, and the first row of each clip; read once."""
        at = piece.file.path, spec.digest
        known = self._indexes.get(at)
        if known is None:
            index = piece.index(spec)
            known = index, np.concatenate([[0], np.cumsum(index.frames)])
            self._indexes[at] = known
        return known

    def close(self) -> None:
        """Close the file; arrays already read stay."""
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
        A file, or a folder of shards (`Cache`).

    Raises
    ------
    MissingCache
        There is no such file, or the folder has no shards.
    BadCache
        It is no feature cache, is damaged, or is of a newer schema than this code's; shards
        are of other manifests or settings, or hold the same row with other values.

    See Also
    --------
    CacheWriter : Writes a cache.
    verify_cache : Checks every value.

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
