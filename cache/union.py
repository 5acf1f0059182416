"""Union of caches of one manifest: their clips, rows, failures and curves.

Merging writes the union to a file; reading a folder of shards uses it directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache
from mvemo.cache.failures import Failures
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.index import Index, feature_label
from mvemo.cache.storage.layout import CHECKSUM, to_json
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Bools, Bytes, Curves, Ints


class Part(Protocol):
    """Cache that is part of a union."""

    @property
    def path(self) -> Path: ...

    @property
    def table(self) -> ClipTable: ...

    @property
    def failures(self) -> Failures: ...

    @property
    def curves(self) -> Curves: ...

    @property
    def provenance(self) -> dict[str, Any]: ...


class Rows(Protocol):
    """Rows of features in one source; the rows of `indexes` follow `table`."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    @property
    def table(self) -> ClipTable: ...

    @property
    def indexes(self) -> Mapping[str, Index]:
        """Index by spec digest, oldest first."""
        ...


# --- clips


def union_table(parts: Sequence[Part]) -> ClipTable:
    """Return a table of all clips, in the order of the part that has them all, or by id."""
    first = parts[0]
    for part in parts[1:]:
        _refuse_other_manifest(part, first)
    tables = [part.table for part in parts]
    number: dict[str, int] = {}
    # For the concatenated rows of all tables: clip number, and first row of each clip.
    clip = np.array([number.setdefault(c, len(number)) for t in tables for c in t.clip_ids], int)
    _, met = np.unique(clip, return_index=True)
    groups = np.array([group for t in tables for group in t.groups], object)
    labels = np.concatenate([t.labels for t in tables])
    folds = np.concatenate([t.folds for t in tables])
    splits = None
    if first.table.splits is not None:
        splits = np.concatenate([t.splits for t in tables if t.splits is not None])
    if len(met) < len(clip):
        other = met[clip]
        same = (groups == groups[other]) & (folds == folds[other]) & _equal(labels, labels[other])
        if splits is not None:
            same &= splits == splits[other]
        if not same.all():
            _refuse_row(int(np.flatnonzero(~same)[0]), other, parts)
    name = min(table.name for table in tables)
    whole = [table for table in tables if len(table) == len(met)]
    if whole:
        return replace(min(whole, key=lambda t: t.clip_ids), name=name)
    ids = sorted(number)
    rows = met[[number[c] for c in ids]]
    return replace(
        first.table,
        name=name,
        clip_ids=tuple(ids),
        groups=tuple(groups[rows].tolist()),
        labels=labels[rows],
        folds=folds[rows],
        splits=None if splits is None else splits[rows],
    )


def _refuse_other_manifest(part: Part, first: Part) -> None:
    for what in (
        "digest",
        "task",
        "classes",
        "k",
        "fold_seed",
        "synthetic",
        "scale",
        "predicted_by",
    ):
        value, first_value = getattr(part.table, what), getattr(first.table, what)
        if value != first_value:
            raise BadCache(
                f"{part.path}: {what.replace('_', ' ')} {value!r}, but {first.path} has "
                f"{first_value!r}: only caches of one manifest go together"
            )
    if (part.table.splits is None) != (first.table.splits is None):
        raise BadCache(
            f"{part.path}: its clips are {'not ' * (part.table.splits is None)}split, those of "
            f"{first.path} are otherwise: only caches of one manifest go together"
        )


def _equal(a: NDArray[Any], b: NDArray[Any]) -> Bools:
    """Return True for each row of labels that is equal in both arrays, NaN included."""
    same = a == b
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return np.asarray(same.reshape(len(a), -1).all(axis=1), np.bool_)


def _refuse_row(row: int, other: Ints, parts: Sequence[Part]) -> None:
    ends = np.cumsum([len(part.table) for part in parts])
    part, earlier = (parts[int(np.searchsorted(ends, r, "right"))] for r in (row, other[row]))
    start = int(ends[parts.index(part)]) - len(part.table)
    clip = part.table.clip_ids[row - start]
    raise BadCache(
        f"{part.path}: label, group, fold or split of clip {clip!r} differ from those in "
        f"{earlier.path}"
    )


def rows_in(table: ClipTable, parts: Sequence[ClipTable]) -> list[Ints]:
    """Return for each table int64 (clips,), the rows of its clips in `table`, or -1."""
    position = {clip: i for i, clip in enumerate(table.clip_ids)}
    return [np.array([position.get(c, -1) for c in part.clip_ids], np.int64) for part in parts]


# --- features


@dataclass
class PlannedFeature:
    """Source of each row of one feature; `Index` explains the other fields."""

    spec: FeatureSpec  # `trained_on` is the union over all sources
    origin: Ints  # (clips,), number of the source, or -1 if no source has the row
    row: Ints  # (clips,), row in that source
    keys: NDArray[np.bytes_]
    checksums: Bytes
    frames: Ints
    n_trained_on: int = 0

    @property
    def index(self) -> Index:
        """Index of the whole feature."""
        present = self.origin >= 0
        return Index(self.spec, present, self.keys, self.checksums, self.frames, self.n_trained_on)

    def drop(self, rows: Ints) -> None:
        """Make rows missing."""
        self.origin[rows] = -1
        self.keys[rows] = b""
        self.checksums[rows] = 0
        self.frames[rows] = 0


class Clash(Exception):
    """Error for sources that disagree; each argument is a sentence."""

    def __str__(self) -> str:
        more = f", and {len(self.args) - 1} more such rows" if len(self.args) > 1 else ""
        return f"{self.args[0]}{more}"


def plan_rows(
    table: ClipTable,
    sources: Sequence[Rows],
    *,
    places: Sequence[Ints] | None = None,
    strict: bool = False,
) -> dict[str, PlannedFeature]:
    """Align the rows of all sources, oldest first, to a table; later rows replace earlier ones.

    With `strict`, Clash is raised if a row has other bytes or another key in two sources.
    """
    places = places or rows_in(table, [source.table for source in sources])
    n = len(table)
    planned: dict[str, PlannedFeature] = {}
    trained_on: dict[str, set[str]] = {}
    clashes: list[str] = []
    for number, source in enumerate(sources):
        for digest, index in source.indexes.items():
            rows = np.flatnonzero(index.present & (places[number] >= 0))
            to = places[number][rows]
            # Removed and added again, so that the most recent feature comes last.
            plan = planned.pop(digest, None)
            if plan is None:
                plan = PlannedFeature(
                    index.spec,
                    np.full(n, -1, np.int64),
                    np.zeros(n, np.int64),
                    np.zeros(n, index.keys.dtype),
                    np.zeros((n, CHECKSUM), np.uint8),
                    np.zeros(n, np.int64),
                )
            if strict:
                clashes += _clashes(plan, index, rows, to, source, sources, table)
            trained_on.setdefault(digest, set()).update(index.spec.trained_on)
            plan.n_trained_on = max(plan.n_trained_on, index.n_trained_on)
            if plan.keys.dtype.itemsize < index.keys.dtype.itemsize:
                plan.keys = plan.keys.astype(index.keys.dtype)
            plan.origin[to] = number
            plan.row[to] = rows
            plan.keys[to] = index.keys[rows]
            plan.checksums[to] = index.checksums[rows]
            plan.frames[to] = index.frames[rows]
            planned[digest] = plan
    if clashes:
        raise Clash(*clashes)
    for digest, plan in planned.items():
        seen = trained_on[digest]
        plan.spec = replace(plan.spec, trained_on=tuple(sorted(seen)))
        if len(seen) >= plan.n_trained_on:
            plan.n_trained_on = 0
    return planned


def _clashes(
    plan: PlannedFeature,
    index: Index,
    rows: Ints,
    to: Ints,
    source: Rows,
    sources: Sequence[Rows],
    table: ClipTable,
) -> list[str]:
    both = plan.origin[to] >= 0
    differ = (plan.keys[to] != index.keys[rows]) | (
        plan.checksums[to] != index.checksums[rows]
    ).any(axis=1)
    clashes = []
    for k in np.flatnonzero(both & differ).tolist():
        what = "another key" if plan.keys[to[k]] != index.keys[rows[k]] else "other values"
        clashes.append(
            f"{feature_label(plan.spec)} of clip {table.clip_ids[to[k]]!r} has {what} in "
            f"{source.name} than in {sources[plan.origin[to[k]]].name}"
        )
    return clashes


def in_order(features: Mapping[str, PlannedFeature]) -> dict[str, PlannedFeature]:
    """Sort features by name and fold."""
    return dict(sorted(features.items(), key=lambda f: (f[1].spec.name, f[1].spec.fold or 0, f[0])))


def same_family(a: FeatureSpec, b: FeatureSpec) -> bool:
    """Return True if a cache may hold both specs of one name: crossfit nets of two folds."""
    return a.fold is not None and b.fold is not None and a.fold != b.fold and a.family == b.family


def refuse_rivals(features: Iterable[tuple[str, Iterable[FeatureSpec]]], where: str) -> None:
    """Raise BadCache for two specs of one name that are not equal or nets of two folds."""
    by_name: dict[str, dict[str, tuple[FeatureSpec, str]]] = {}
    for name, specs in features:
        for spec in specs:
            known = by_name.setdefault(spec.name, {})
            if spec.digest in known:
                continue
            for other, other_name in known.values():
                if not same_family(spec, other):
                    raise BadCache(
                        f"{where}: two kinds of {feature_label(spec)}, {_short(other)} in "
                        f"{other_name} and {_short(spec)} in {name}: other parameters, weights "
                        "or protocol; extract them alike"
                    )
            known[spec.digest] = spec, name


def _short(spec: FeatureSpec) -> str:
    return spec.digest[:12]


# --- the rest


def union_failures(parts: Sequence[Part]) -> Failures:
    """Return all failures; if reasons differ, the first in alphabetical order."""
    union: Failures = {}
    for part in parts:
        for clip_stage, reason in part.failures.items():
            if reason is not None:
                earlier = union.get(clip_stage)
                union[clip_stage] = reason if earlier is None else min(earlier, reason)
    return union


def union_curves(parts: Sequence[Part]) -> Curves:
    """Return all curves; raise BadCache if two of one name differ."""
    union: Curves = {}
    for part in parts:
        for name, curve in part.curves.items():
            first = union.setdefault(name, curve)
            if to_json(first) != to_json(curve):
                raise BadCache(
                    f"{part.path}: curve {name!r} differs from an earlier cache's: the nets "
                    "were trained apart; embed all clips with the same nets"
                )
    return dict(sorted(union.items()))


def union_provenance(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the provenance of the parts if they agree, otherwise all under ``merged``."""
    each = {to_json(part.provenance): part.provenance for part in parts}
    if len(each) == 1:
        return dict(parts[0].provenance)
    return {"merged": [each[text] for text in sorted(each)]}
