"""Union of the files of one manifest: their clips, rows, failures and curves.

Rewriting stores the union in a file; reading a folder of shards uses it directly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvemo.cache.cache_file import CacheFile
from mvemo.cache.errors import BadCache
from mvemo.cache.index import Index, in_table_order
from mvemo.cache.schema import to_json
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.table import SINGLE, ClipTable, Curves, Failures, contradictions, rows_in, subset
from mvemo.manifests.array_types import F64, Ints

# Values of clips that must be equal in all files.
ROWS = ("labels", "groups", "folds", "splits")


def merge_tables(files: Sequence[CacheFile]) -> ClipTable:
    """Return a table of all clips, in the order of the file with all clips, or sorted by id."""
    first, *others = tables = [file.table for file in files]
    if not others:
        return first
    for file in files[1:]:
        _refuse(file, contradictions(first, file.table, SINGLE))
        if (file.table.splits is None) != (first.splits is None):
            _refuse(file, ["only some of the caches have splits"])
    ids = [clip for table in tables for clip in table.clip_ids]
    place: dict[str, int] = {}
    rows = [place.setdefault(clip, i) for i, clip in enumerate(ids)]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in ("labels", "folds", *["splits"] * (first.splits is not None))
    }
    together = replace(
        first,
        name=min(table.name for table in tables),
        clip_ids=tuple(ids),
        groups=tuple(group for table in tables for group in table.groups),
        disagreement=_joined_disagreement(tables),
        **arrays,
    )
    if len(place) < len(ids):
        stop = 0
        for file in files:
            start, stop = stop, stop + len(file.table)
            stated = subset(together, rows[start:stop])
            _refuse(file, contradictions(stated, file.table, ROWS))
    whole = [table for table in tables if len(table) == len(place)]
    if whole:
        chosen = min(whole, key=lambda t: (t.disagreement is None, t.clip_ids))
        return replace(chosen, name=together.name)
    return subset(together, [place[clip] for clip in sorted(place)])


def _refuse(file: CacheFile, contradictory: Sequence[str]) -> None:
    if contradictory:
        raise BadCache(
            f"{file.path}: does not match the other caches ({'; '.join(contradictory)}): all must "
            "be of one manifest"
        )


def _joined_disagreement(tables: Sequence[ClipTable]) -> F64 | None:
    """Return the annotators' disagreement of all tables, NaN for tables that do not state it."""
    # Some tables may lack the columns with votes for classes.
    width = max(0 if t.disagreement is None else t.disagreement.shape[1] for t in tables)
    joined = [np.full((len(t), width), np.nan) for t in tables]
    for rows, t in zip(joined, tables, strict=True):
        if t.disagreement is not None:
            rows[:, : t.disagreement.shape[1]] = t.disagreement
    return np.concatenate(joined) if width else None


@dataclass
class Plan:
    """Complete content of a file, and the sources of its values."""

    table: ClipTable  # clips in the order of all rows
    sources: Sequence[Any] = ()  # files, or rows in memory; `Index.origin` has their numbers
    features: dict[str, Index] = field(default_factory=dict)  # by digest, most recent last
    failures: Failures = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    merged: tuple[str, ...] = ()  # names of the parts among the sources


# Part of a feature: number and name of its source, the table row of each clip, and its index.
FeaturePart = tuple[int, str, Ints, Index]


def plan_feature(table: ClipTable, parts: Sequence[FeaturePart], where: object = None) -> Index:
    """Align the rows of all parts of one feature, oldest first; later rows replace earlier ones.

    If `where` (for messages) is given, raise BadCache for rows that differ between parts.
    """
    spec = parts[0][3].spec
    whole = Index.empty(spec, len(table))
    names = {number: name for number, name, _, _ in parts}
    for number, name, places, index in parts:
        rows = np.flatnonzero(index.present & (places >= 0))
        to = places[rows]
        if where:
            other_key = whole.keys[to] != index.keys[rows]
            differ = other_key | (whole.checksums[to] != index.checksums[rows]).any(axis=1)
            clashes = np.flatnonzero(whole.present[to] & differ)
            if len(clashes):
                first = clashes[0]
                more = f", and {len(clashes) - 1} more such rows" if len(clashes) > 1 else ""
                raise BadCache(
                    f"{where}: {spec.label} of clip {table.clip_ids[to[first]]!r} has "
                    f"{'another key' if other_key[first] else 'other values'} in {name} than in "
                    f"{names[whole.origin[to[first]]]}{more}"
                )
        whole.origin[to] = number
        whole.row[to] = rows
        for planned, stored in zip(whole.columns, index.columns, strict=True):
            planned[to] = stored[rows]
    seen = {clip for _, _, _, index in parts for clip in index.spec.trained_on}
    stated = max(index.n_trained_on for _, _, _, index in parts)
    return replace(
        whole,
        spec=in_table_order(replace(spec, trained_on=tuple(seen)), table.clip_ids),
        n_trained_on=0 if len(seen) >= stated else stated,
    )


def plan_rows(table: ClipTable, sources: Sequence[Any]) -> dict[str, Index]:
    """Plan all features with their newest rows, by spec digest, the most recent last."""
    parts: dict[str, list[FeaturePart]] = {}
    places = rows_in(table, [source.table for source in sources])
    for number, source in enumerate(sources):
        for digest, index in source.indexes.items():
            # It is removed and added again, so that the most recent feature comes last.
            parts[digest] = parts.pop(digest, [])
            parts[digest].append((number, source.name, places[number], index))
    return {digest: plan_feature(table, of_one) for digest, of_one in parts.items()}


def in_order(features: Mapping[str, Index]) -> dict[str, Index]:
    """Sort features by name and fold."""
    return dict(sorted(features.items(), key=lambda f: (f[1].spec.name, f[1].spec.fold or 0, f[0])))


def refuse_rivals(files: Sequence[CacheFile], where: object) -> None:
    """Raise BadCache for different specs with one name, unless they are nets of two folds."""
    known: dict[str, tuple[FeatureSpec, CacheFile]] = {}
    for file in files:
        for digest, spec in file.specs.items():
            for other, other_file in () if digest in known else known.values():
                if spec.name == other.name and not spec.goes_with(other):
                    raise BadCache(
                        f"{where}: {spec.label} differs: {other.digest[:12]} in {other_file.path}, "
                        f"{spec.digest[:12]} in {file.path}: extract both with the same "
                        "parameters, weights and protocol"
                    )
            known.setdefault(digest, (spec, file))


def merge_specs(files: Sequence[CacheFile], table: ClipTable) -> list[FeatureSpec]:
    """Return the specs of all files by name and fold, with the training clips from all files."""
    specs: dict[str, FeatureSpec] = {}
    seen: dict[str, set[str]] = {}
    for file in files:
        for digest, spec in file.specs.items():
            specs.setdefault(digest, spec)
            seen.setdefault(digest, set()).update(spec.trained_on)
    if len(files) > 1:
        specs = {
            digest: in_table_order(replace(spec, trained_on=tuple(seen[digest])), table.clip_ids)
            for digest, spec in specs.items()
        }
    return sorted(specs.values(), key=lambda spec: (spec.name, spec.fold or 0))


def merge_failures(files: Sequence[CacheFile]) -> Failures:
    """Return all failures; if reasons differ, the first in alphabetical order."""
    union: Failures = {}
    for file in files:
        for at, failure in file.failures.items():
            if failure is not None:
                union[at] = min(failure, union.get(at) or failure)
    return union


def merge_curves(files: Sequence[CacheFile]) -> Curves:
    """Return all curves; raise BadCache if two curves with one name differ."""
    union: Curves = {}
    for file in files:
        for name, curve in file.curves.items():
            first = union.setdefault(name, curve)
            if to_json(first) != to_json(curve):
                raise BadCache(
                    f"{file.path}: training curve {name!r} differs from that in another cache; the "
                    "nets were trained separately: embed all clips with the same nets"
                )
    return dict(sorted(union.items()))


def merge_provenance(files: Sequence[CacheFile]) -> dict[str, Any]:
    """Return the provenance of the parts if they agree, otherwise all under ``merged``."""
    each = {to_json(file.provenance): file.provenance for file in files}
    if len(each) == 1:
        return dict(files[0].provenance)
    return {"merged": [each[text] for text in sorted(each)]}
