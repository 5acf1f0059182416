"""Reading a cache: readers never write, and see the cache as it was last closed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.encoding import row_checksum
from mvemo.cache.storage.layout import (
    Index,
    feature_label,
    read_curves,
    read_failures,
    read_feature,
    read_index,
    read_provenance,
    read_spec,
    read_table,
    values_array,
)
from mvemo.cache.storage.opening import DAMAGE, open_file, reason
from mvemo.cache.storage.plain import array_of, attribute, part
from mvemo.cache.storage.scanning import Scan
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32, Bools, Curves, Ints

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Failure:
    """One thing that went wrong with one clip.

    Parameters
    ----------
    clip_id
        The clip.
    stage
        What failed, ``decode:audio``.
    reason
        Why, in one line.
    time, version
        When, as ISO 8601 in UTC, and of mvemo; empty in files of mvemo 0.1.
    """

    clip_id: str
    stage: str
    reason: str
    time: str = ""
    version: str = ""


class Cache:
    """An open cache: a context manager, made by `open_cache`.

    Values are read when they are needed. Threads may share a cache; each process opens one
    of its own.

    Parameters
    ----------
    path
        The file.

    See Also
    --------
    open_cache : Opens one, with an example.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = open_file(path)
        self._lock = RLock()
        self.schema = int(self._file.attrs["schema"])
        try:
            self.table: ClipTable = self._read("clip table", read_table)
            self._groups: dict[tuple[str, int | None], tuple[FeatureSpec, str]] = {}
            for group in self._read("features", lambda file: list(file["features"])):
                spec = self._read(f"feature {group}", self._spec_of(group))
                if (spec.name, spec.fold) in self._groups:
                    raise BadCache(f"{path}: {feature_label(spec)} is there twice: extract again")
                self._groups[spec.name, spec.fold] = (spec, group)
        except BaseException:
            self._file.close()
            raise

    # --- contents

    @cached_property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Of all features, by name and fold, `trained_on` filled in."""
        specs = (spec for spec, _ in self._groups.values())
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
        stored = self._read("failures", read_failures)
        return tuple(
            sorted(
                Failure(clip, stage, why.text, why.time, why.version)
                for (clip, stage), why in stored.items()
                if why is not None
            )
        )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the writer stated; that of earlier runs under ``history``."""
        return self._read("provenance", read_provenance)

    @cached_property
    def curves(self) -> Curves:
        """``net@fold0`` to series by name; NaN where a value was not finite."""
        return self._read("curves", read_curves)

    def digest(self) -> str:
        """SHA-256 of the clips and of all features' specs, keys and row checksums.

        Two caches of one digest hold the same values; failures, curves and provenance do
        not count. Whether the values fit their checksums is checked by `verify_cache`.
        """
        state = hashlib.sha256()
        state.update(
            self._read("clip table", lambda f: str(attribute(f["clips"], "checksum", str))).encode()
        )
        for spec in self.specs:
            group = self._groups[spec.name, spec.fold][1]
            checksum = self._read(f"feature {group}", _checksum_of(group))
            state.update(f"{spec.digest} {checksum}\n".encode())
        return state.hexdigest()

    # --- values

    def spec(self, name: str, fold: int | None = None) -> FeatureSpec:
        """The spec that `vectors` and `sequence` use for these arguments."""
        return self._find(name, fold)[0]

    def vectors(self, name: str, fold: int | None = None) -> tuple[F32, Bools]:
        """All vectors of a feature.

        Parameters
        ----------
        name
            The feature.
        fold
            Which net's, under ``crossfit``. A feature of one variant for all folds is
            given whatever the fold.

        Returns
        -------
        float32 (clips, dim), NaN rows where missing; bool (clips,), True where present.

        Raises
        ------
        BadCache
            No such feature or fold, a sequence, or values that are damaged: every row is
            compared with its checksum.
        """
        spec, group = self._find(name, fold)
        if spec.kind == "sequence":
            raise BadCache(f"{self.path}: {name} is a sequence: read it clip by clip")

        def read(file: Any) -> tuple[F32, Index, bool]:
            stored = read_feature(_feature(file, group), self.table.clip_ids, spec)
            index = stored.index
            values: F32 = np.empty((len(self.table), spec.dim), "<f4")
            scan = Scan(stored.values, values)
            sound = all((ok == index.present[rows]).all() for rows, _, ok in scan.blocks())
            if stored.checksum:
                return values, index, sound and scan.checksum() == stored.checksum
            return values, index, sound and self._rows_fit(index, values)

        values, index, sound = self._read(f"feature {group}", read)
        if not sound:
            raise self._damaged(spec)
        return values, index.present

    def present(self, name: str, fold: int | None = None) -> Bools:
        """bool (clips,): which clips have the feature."""
        group = self._find(name, fold)[1]
        return self._read(
            f"feature {group}",
            lambda f: array_of(_feature(f, group), "present", np.bool_, (len(self.table),)).read(),
        )

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
        spec, group = self._find(name, fold)
        if spec.kind != "sequence":
            raise BadCache(f"{self.path}: {name} is a vector: read it by vectors()")
        row = self._row.get(clip_id)
        if row is None:
            raise BadCache(f"{self.path}: there is no clip {clip_id!r}")
        index, starts = self._index(group)
        if not index.present[row]:
            return None
        start, stop = int(starts[row]), int(starts[row + 1])
        values: F32 = self._read(
            f"feature {group}",
            lambda f: values_array(_feature(f, group), spec, index.frames).read(start, stop),
        )
        if not (np.isfinite(values).all() and self._row_fits(index, row, values)):
            raise self._damaged(spec)
        return values

    def _rows_fit(self, index: Index, values: F32) -> bool:
        """Whether all rows fit their checksums: caches of mvemo 0.1 have no other."""
        present = np.flatnonzero(index.present).tolist()
        return all(self._row_fits(index, i, values[i]) for i in present)

    def _row_fits(self, index: Index, i: int, row: F32) -> bool:
        checksum = row_checksum(self.table.clip_ids[i], bytes(index.keys[i]), row)
        return bool(checksum == index.checksums[i].tobytes())

    def _damaged(self, spec: FeatureSpec) -> BadCache:
        return BadCache(
            f"{self.path}: the values of {feature_label(spec)} are damaged: "
            f"'mvemo cache verify {self.path}' lists them, 'mvemo cache repair' drops them"
        )

    def _spec_of(self, group: str) -> Callable[[Any], FeatureSpec]:
        return lambda file: read_spec(_feature(file, group), self.table.clip_ids)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {clip: i for i, clip in enumerate(self.table.clip_ids)}

    @cached_property
    def _indexes(self) -> dict[str, tuple[Index, Ints]]:
        return {}

    def _index(self, group: str) -> tuple[Index, Ints]:
        """A sequence's index, and the first row of each clip; read once."""
        known = self._indexes.get(group)
        if known is None:
            index = self._read(
                f"feature {group}", lambda f: read_index(_feature(f, group), self.table.clip_ids)
            )
            known = index, np.concatenate([[0], np.cumsum(index.frames)])
            self._indexes[group] = known
        return known

    def _find(self, name: str, fold: int | None) -> tuple[FeatureSpec, str]:
        group = self._groups.get((name, fold)) or self._groups.get((name, None))
        if group is None:
            folds = ", ".join(str(spec.fold) for spec in self.variants(name))
            given = "none was given" if fold is None else f"not {fold}"
            raise BadCache(f"{self.path}: {name} has a variant for each fold {folds}; {given}")
        return group

    # --- the file

    def _read(self, what: str, read: Callable[[Any], T]) -> T:
        with self._lock:
            if self._file is None:
                raise BadCache(f"{self.path}: this cache is closed: open it again")
            try:
                return read(self._file)
            except DAMAGE as error:
                raise BadCache(
                    f"{self.path}: its {what} cannot be read ({reason(error)}): "
                    f"run 'mvemo cache verify {self.path}', or copy the file again"
                ) from None

    def close(self) -> None:
        """Close the file; arrays already read stay."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checksum_of(group: str) -> Callable[[Any], str]:
    return lambda file: str(attribute(_feature(file, group), "checksum", str))


def _feature(file: Any, group: str) -> Any:
    return part(file["features"], group, h5py.Group)


def open_cache(path: Path | str) -> Cache:
    """Open a cache for reading.

    Raises
    ------
    MissingCache
        There is no such file.
    BadCache
        It is no feature cache, is damaged, or is of a newer schema than this code's.

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
