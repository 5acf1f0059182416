"""Union of the files of one manifest: their clips, rows, failures and curves.

Rewriting stores the union in a file; reading a folder of shards uses it directly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.cache_file import CacheFile
from mvemo.cache.errors import BadCache
from mvemo.cache.index import Index
from mvemo.cache.schema import to_json
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.table import ClipTable, Curves, Failures, subset
from mvemo.manifests.array_types import F64, Bools, Ints

# --- clips


def merge_tables(files: Sequence[CacheFile]) -> ClipTable:
    """Return a table of all clips, in the order of the file with all clips, or sorted by id."""
    first = files[0].table
    if len(files) == 1:
        return first
    for file in files[1:]:
        _refuse_other_manifest(file, files[0])
    tables = [file.table for file in files]
    # For each of the concatenated rows of all tables, the first row of its clip.
    place: dict[str, int] = {}
    ids = [clip for table in tables for clip in table.clip_ids]
    first_rows = np.array([place.setdefault(clip, i) for i, clip in enumerate(ids)])
    together = replace(
        first,
        name=min(table.name for table in tables),
        clip_ids=tuple(ids),
        groups=tuple(group for t in tables for group in t.groups),
        labels=np.concatenate([t.labels for t in tables]),
        folds=np.concatenate([t.folds for t in tables]),
        splits=np.concatenate([t.splits for t in tables if t.splits is not None])
        if first.splits is not None
        else None,
        disagreement=_joined_disagreement(tables),
    )
    if len(place) < len(ids):
        _refuse_other_rows(together, first_rows, files)
    whole = [table for table in tables if len(table) == len(place)]
    if whole:
        chosen = min(whole, key=lambda t: (t.disagreement is None, t.clip_ids))
        return replace(chosen, name=together.name)
    return subset(together, [place[clip] for clip in sorted(place)])


def _joined_disagreement(tables: Sequence[ClipTable]) -> F64 | None:
    """Return the annotators' disagreement of all tables, NaN for tables that do not state it."""
    stated = [t.disagreement for t in tables if t.disagreement is not None]
    if not stated:
        return None
    # Of classes, only some tables may have votes.
    joined, start = np.full((sum(map(len, tables)), max(d.shape[1] for d in stated)), np.nan), 0
    for t in tables:
        if t.disagreement is not None:
            joined[start : start + len(t), : t.disagreement.shape[1]] = t.disagreement
        start += len(t)
    return joined


def _refuse_other_manifest(file: CacheFile, first: CacheFile) -> None:
    fields = ["digest", "task", "classes", "k", "fold_seed", "synthetic", "scale", "predicted_by"]
    for what in fields:
        value, first_value = getattr(file.table, what), getattr(first.table, what)
        if value != first_value:
            raise BadCache(
                f"{file.path}: {what.replace('_', ' ')}: expected {first_value!r}, as in "
                f"{first.path}, got {value!r}: all caches must be of one manifest"
            )
    if (file.table.splits is None) != (first.table.splits is None):
        with_splits, other = (first, file) if file.table.splits is None else (file, first)
        raise BadCache(
            f"{file.path}: the clips of {with_splits.path} have splits, but those of {other.path} "
            "do not: all caches must be of one manifest"
        )


def _refuse_other_rows(together: ClipTable, first_rows: Ints, files: Sequence[CacheFile]) -> None:
    """Refuse files that disagree about a clip; row `first_rows[i]` is the first of row i's clip."""
    columns = [together.labels, np.array(together.groups, object), together.folds]
    columns += [] if together.splits is None else [together.splits]
    same = np.all([equal_rows(column, column[first_rows]) for column in columns], axis=0)
    if same.all():
        return
    row = int(same.argmin())
    file_of = [file for file in files for _ in file.table.clip_ids]
    file, earlier = file_of[row], file_of[first_rows[row]]
    raise BadCache(
        f"{file.path}: the label, group, fold or split of clip {together.clip_ids[row]!r} differs "
        f"from that in {earlier.path}"
    )


def equal_rows(a: NDArray[Any], b: NDArray[Any]) -> Bools:
    """Return True for each row that is equal in both arrays; NaN equals NaN."""
    if a.shape != b.shape:
        return np.zeros(len(a), np.bool_)
    same = a == b
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return np.asarray(same.all(axis=tuple(range(1, a.ndim))), np.bool_)


def rows_in(table: ClipTable, parts: Sequence[ClipTable]) -> list[Ints]:
    """Return for each table in `parts` int64 (clips,), the rows of its clips in `table`, or -1."""
    others = any(part is not table for part in parts)
    position = {clip: i for i, clip in enumerate(table.clip_ids)} if others else {}
    return [
        np.arange(len(table))
        if part is table
        else np.array([position.get(c, -1) for c in part.clip_ids], np.int64)
        for part in parts
    ]


# --- features


# Part of a feature: number and name of its source, the table row of each clip, and its index.
Part = tuple[int, str, Ints, Index]


def plan_feature(table: ClipTable, parts: Sequence[Part], where: object = None) -> Index:
    """Align the rows of all parts of one feature, oldest first; later rows replace earlier ones.

    If `where` (for messages) is given, raise BadCache for rows that differ between parts.
    """
    spec = parts[0][3].spec
    width = max(index.keys.dtype.itemsize for _, _, _, index in parts)
    whole = Index.empty(spec, len(table), width)
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
        whole.present[to] = True
        whole.keys[to] = index.keys[rows]
        whole.checksums[to] = index.checksums[rows]
        whole.frames[to] = index.frames[rows]
    seen = {clip for _, _, _, index in parts for clip in index.spec.trained_on}
    stated = max(index.n_trained_on for _, _, _, index in parts)
    return replace(
        whole,
        spec=replace(spec, trained_on=tuple(sorted(seen))),
        n_trained_on=0 if len(seen) >= stated else stated,
    )


def plan_rows(table: ClipTable, sources: Sequence[Any], where: object = None) -> dict[str, Index]:
    """Plan all features by spec digest, the most recent last; `where` is that of `plan_feature`."""
    parts: dict[str, list[Part]] = {}
    places = rows_in(table, [source.table for source in sources])
    for number, source in enumerate(sources):
        for digest, index in source.indexes.items():
            # It is removed and added again, so that the most recent feature comes last.
            parts[digest] = parts.pop(digest, [])
            parts[digest].append((number, source.name, places[number], index))
    return {digest: plan_feature(table, of_one, where) for digest, of_one in parts.items()}


def in_order(features: Mapping[str, Index]) -> dict[str, Index]:
    """Sort features by name and fold."""
    return dict(sorted(features.items(), key=lambda f: (f[1].spec.name, f[1].spec.fold or 0, f[0])))


def refuse_rivals(files: Sequence[CacheFile], where: object) -> None:
    """Raise BadCache for different specs with one name, unless they are nets of two folds."""
    by_name: dict[str, dict[str, tuple[FeatureSpec, CacheFile]]] = {}
    for file in files:
        for spec in file.specs.values():
            known = by_name.setdefault(spec.name, {})
            if spec.digest in known:
                continue
            for other, other_file in known.values():
                if not spec.goes_with(other):
                    raise BadCache(
                        f"{where}: {spec.label} differs: {other.digest[:12]} in {other_file.path}, "
                        f"{spec.digest[:12]} in {file.path}: extract both with the same "
                        "parameters, weights and protocol"
                    )
            known[spec.digest] = spec, file


def merge_specs(
    files: Sequence[CacheFile], table: ClipTable
) -> dict[tuple[str, int | None], FeatureSpec]:
    """Return the specs of all files by name and fold, with the training clips from all files."""
    specs = {(s.name, s.fold): s for file in reversed(files) for s in file.specs.values()}
    if len(files) == 1:
        if len(specs) < len(files[0].specs):
            raise BadCache(f"{files[0].path}: it has a duplicate feature: extract again")
        return specs
    seen: dict[tuple[str, int | None], set[str]] = {at: set() for at in specs}
    for file in files:
        for spec in file.specs.values():
            seen[spec.name, spec.fold].update(spec.trained_on)
    clips = frozenset(table.clip_ids if any(seen.values()) else ())
    for at, trained_on in seen.items():
        if trained_on:
            ordered = [clip for clip in table.clip_ids if clip in trained_on]
            specs[at] = replace(specs[at], trained_on=(*ordered, *sorted(trained_on - clips)))
    return specs


# --- the rest


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
