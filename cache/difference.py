"""Comparison of two caches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache.reader import Cache, open_cache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.table import ClipTable
from mvemo.manifests.text_table import listed

# Maximum number of names in a list; further names are counted.
SHOWN = 3
# Compared parts of a clip table.
FIELDS = ("task", "classes", "k", "fold_seed", "digest", "labels", "groups", "folds", "splits")


def diff_caches(first: Path | str, second: Path | str) -> list[str]:
    """Return the differences of two caches, one sentence each; empty if they are equal.

    Compared are clips, labels, groups, folds and failures; features by name and fold, with their
    settings, present clips and values. Provenance and curves are ignored, as in `Cache.digest`.

    Examples
    --------
    >>> from mvemo.cache import ClipTable, import_feature
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> for name in ("mean", "deviation"):
    ...     _ = import_feature(f"{name}.h5", name, "audio", np.eye(2), table=clips)
    >>> diff_caches("mean.h5", "deviation.h5")
    ['feature mean is only in the first', 'feature deviation is only in the second']
    """
    with open_cache(first) as a, open_cache(second) as b:
        lines = table_differences(a.table, b.table)
        one, other = ({(s.name, s.fold): s for s in cache.specs} for cache in (a, b))
        for have, lack, where in ((one, other, "first"), (other, one, "second")):
            labels = [spec.label for at, spec in have.items() if at not in lack]
            lines += [f"feature {label} is only in the {where}" for label in labels]
        for at in filter(other.__contains__, one):
            lines += _feature_lines(a, b, one[at], other[at])
        reasons = [{(f.clip_id, f.stage): f.reason for f in cache.failures} for cache in (a, b)]
        differing = sorted(
            at for at in {*reasons[0], *reasons[1]} if reasons[0].get(at) != reasons[1].get(at)
        )
        if differing:
            named = [f"{clip!r} ({stage})" for clip, stage in differing]
            lines.append(f"failures differ for {listed(named, SHOWN)}")
    return lines


def table_differences(
    a: ClipTable,
    b: ClipTable,
    fields: Iterable[str] = FIELDS,
    names: tuple[str, str] = ("first", "second"),
) -> list[str]:
    """Return the differences of two clip tables, one sentence each; clips are matched by id."""
    lines = []
    for one, other, where in ((a, b, names[0]), (b, a, names[1])):
        clips = sorted({*one.clip_ids}.difference(other.clip_ids))
        if clips:
            lines.append(f"only in the {where}: clips {_names_of(clips)}")
    both = _common_rows(a, b)
    for what in fields:
        one, other = getattr(a, what), getattr(b, what)
        name = what.replace("_", " ")
        if what not in ("labels", "groups", "folds", "splits"):
            lines += [f"different {name}: {one!r} and {other!r}"] if one != other else []
        elif one is None or other is None:
            lines += [f"only one of the caches has {name}"] if one is not other else []
        else:
            differing = [a.clip_ids[i] for i, j in both if not _equal(one[i], other[j])]
            if differing:
                lines.append(f"{name} differ for clips {_names_of(differing)}")
    return lines


def _common_rows(a: ClipTable, b: ClipTable) -> list[tuple[int, int]]:
    """Return the rows of the clips that both tables have."""
    row = {clip: i for i, clip in enumerate(b.clip_ids)}
    return [(i, row[clip]) for i, clip in enumerate(a.clip_ids) if clip in row]


def _feature_lines(a: Cache, b: Cache, one: FeatureSpec, other: FeatureSpec) -> list[str]:
    label, ids = one.label, a.table.clip_ids
    lines = [f"{label}: {change}" for change in _spec_changes(one, other)]
    present_a, present_b = a.present(one.name, one.fold), b.present(one.name, one.fold)
    both = _common_rows(a.table, b.table)
    for where, clips in (
        ("first", [ids[i] for i, j in both if present_a[i] and not present_b[j]]),
        ("second", [ids[i] for i, j in both if present_b[j] and not present_a[i]]),
    ):
        if clips:
            lines.append(f"{label}: only the {where} has clips {_names_of(clips)}")
    if (one.kind, one.dim) != (other.kind, other.dim):
        return lines
    vectors = one.kind != "sequence"
    values = [c.vectors(one.name, one.fold)[0] if vectors else None for c in (a, b)]
    n_common, differing, most = 0, [], 0.0
    x: Any
    y: Any
    for i, j in both:
        if not (present_a[i] and present_b[j]):
            continue
        n_common += 1
        x, y = (
            block[row] if block is not None else cache.sequence(one.name, ids[i], one.fold)
            for cache, block, row in zip((a, b), values, (i, j), strict=True)
        )
        if not np.array_equal(x, y):
            differing.append(ids[i])
            apart = np.abs(x.astype(float) - y).max() if x.shape == y.shape else np.inf
            most = max(most, float(apart))
    if differing:
        lines.append(
            f"{label}: values of {len(differing)} of {n_common} clips differ by at most "
            f"{most:.3g}: {_names_of(differing)}"
        )
    return lines


def _spec_changes(one: FeatureSpec, other: FeatureSpec) -> list[str]:
    changes = []
    for what in ("modality", "kind", "dim", "extractor", "version", "protocol", "weights"):
        x, y = getattr(one, what), getattr(other, what)
        if x != y:
            changes.append(f"different {what}: {str(x)[:12]!r} and {str(y)[:12]!r}")
    for key in sorted({*one.params, *other.params}):
        x, y = one.params.get(key), other.params.get(key)
        if x != y:
            changes.append(f"different parameter {key}: {str(x)[:60]} and {str(y)[:60]}")
    return changes


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return bool(one == other)
    return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))


def _names_of(clips: Iterable[str]) -> str:
    return listed([*map(repr, clips)], SHOWN)
