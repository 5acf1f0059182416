"""Comparison of two caches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache.reader import Cache, open_cache
from mvemo.cache.spec import FeatureSpec
from mvemo.manifests.text_table import listed

# Maximum number of names in a list; the rest are counted.
SHOWN = 3


def diff_caches(first: Path | str, second: Path | str) -> list[str]:
    """Return the differences of two caches, one sentence each; empty if they hold the same.

    Compared are clips, labels, groups, folds and failures; features by name and fold, how they were
    made, which clips have them, and by how much their values differ. Provenance and curves are
    ignored, as in `Cache.digest`.

    Raises
    ------
    MissingCache
        A cache does not exist.
    BadCache
        A cache is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.cache import ClipTable, import_feature
    >>> folder = Path(tempfile.mkdtemp())
    >>> clips = ClipTable(
    ...     name="two songs", task="multiclass", classes=("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2,
    ...     fold_seed=0, digest="",
    ... )
    >>> for name in ("mean", "deviation"):
    ...     _ = import_feature(folder / f"{name}.h5", name, "audio", np.eye(2), table=clips)
    >>> for line in diff_caches(folder / "mean.h5", folder / "deviation.h5"):
    ...     print(line)
    feature mean is in the first alone
    feature deviation is in the second alone
    """
    with open_cache(first) as a, open_cache(second) as b:
        lines = _table_lines(a, b)
        specs_a = {(spec.name, spec.fold): spec for spec in a.specs}
        specs_b = {(spec.name, spec.fold): spec for spec in b.specs}
        for one, other, where in ((specs_a, specs_b, "first"), (specs_b, specs_a, "second")):
            labels = [spec.label for at, spec in one.items() if at not in other]
            lines += [f"feature {label} is in the {where} alone" for label in labels]
        for at, spec in specs_a.items():
            if at in specs_b:
                lines += _feature_lines(a, b, spec, specs_b[at])
        reasons = [{(f.clip_id, f.stage): f.reason for f in cache.failures} for cache in (a, b)]
        differing = sorted(
            at for at in {*reasons[0], *reasons[1]} if reasons[0].get(at) != reasons[1].get(at)
        )
        if differing:
            named = [f"{clip!r} ({stage})" for clip, stage in differing]
            lines.append(f"failures differ: {listed(named, SHOWN)}")
    return lines


def _table_lines(a: Cache, b: Cache) -> list[str]:
    lines = []
    for what in ("task", "classes", "k", "fold_seed", "digest"):
        one, other = getattr(a.table, what), getattr(b.table, what)
        if one != other:
            lines.append(f"{what.replace('_', ' ')}: {one!r} and {other!r}")
    ids_a, ids_b = set(a.table.clip_ids), set(b.table.clip_ids)
    for clips, where in ((ids_a - ids_b, "first"), (ids_b - ids_a, "second")):
        if clips:
            lines.append(f"in the {where} alone: clips {_names_of(sorted(clips))}")
    row = {clip: i for i, clip in enumerate(b.table.clip_ids)}
    both = [(i, row[clip]) for i, clip in enumerate(a.table.clip_ids) if clip in row]
    for what in ("labels", "groups", "folds", "splits"):
        one, other = getattr(a.table, what), getattr(b.table, what)
        if one is None or other is None:
            lines += [f"{what}: one has them, the other has not"] if one is not other else []
            continue
        differing = [a.table.clip_ids[i] for i, j in both if not _equal(one[i], other[j])]
        if differing:
            lines.append(f"{what} differ: clips {_names_of(differing)}")
    return lines


def _feature_lines(a: Cache, b: Cache, one: FeatureSpec, other: FeatureSpec) -> list[str]:
    label = one.label
    lines = [f"{label}: {change}" for change in _spec_changes(one, other)]
    row = {clip: i for i, clip in enumerate(b.table.clip_ids)}
    present_a, present_b = a.present(one.name, one.fold), b.present(one.name, one.fold)
    both = [(i, row[clip]) for i, clip in enumerate(a.table.clip_ids) if clip in row]
    for where, clips in (
        ("first", [a.table.clip_ids[i] for i, j in both if present_a[i] and not present_b[j]]),
        ("second", [a.table.clip_ids[i] for i, j in both if present_b[j] and not present_a[i]]),
    ):
        if clips:
            lines.append(f"{label}: only the {where} has clips {_names_of(clips)}")
    if (one.kind, one.dim) != (other.kind, other.dim):
        return lines
    common = [(i, j) for i, j in both if present_a[i] and present_b[j]]
    differing, most = [], 0.0
    if one.kind != "sequence":
        values_a, values_b = a.vectors(one.name, one.fold)[0], b.vectors(one.name, one.fold)[0]
    for i, j in common:
        clip = a.table.clip_ids[i]
        if one.kind != "sequence":
            rows: tuple[Any, Any] = values_a[i], values_b[j]
        else:
            rows = (a.sequence(one.name, clip, one.fold), b.sequence(one.name, clip, one.fold))
        if rows[0].shape != rows[1].shape:
            differing.append(clip)
            most = float("inf")
        elif not np.array_equal(*rows):
            differing.append(clip)
            most = max(most, float(np.abs(rows[0].astype(float) - rows[1]).max()))
    if differing:
        lines.append(
            f"{label}: values of {len(differing)} of {len(common)} clips differ, by {most:.3g} at "
            f"most: {_names_of(differing)}"
        )
    return lines


def _spec_changes(one: FeatureSpec, other: FeatureSpec) -> list[str]:
    changes = []
    for what in ("modality", "kind", "dim", "extractor", "version", "protocol", "weights"):
        x, y = getattr(one, what), getattr(other, what)
        if x != y:
            changes.append(f"{what} {str(x)[:12]!r} and {str(y)[:12]!r}")
    for key in sorted({*one.params, *other.params}):
        x, y = one.params.get(key), other.params.get(key)
        if x != y:
            changes.append(f"parameter {key} {str(x)[:60]} and {str(y)[:60]}")
    return changes


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return bool(one == other)
    return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))


def _names_of(clips: Iterable[str]) -> str:
    return listed([*map(repr, clips)], SHOWN)
