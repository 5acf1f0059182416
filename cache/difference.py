"""Comparison of two caches."""

from pathlib import Path

import numpy as np

from mvemo.cache.reader import Cache, clip_reader, open_cache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.table import SHOWN, common_rows, names_of, table_differences
from mvemo.manifests.text_table import listed


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
        ours, theirs = ({(f.clip_id, f.stage, f.reason) for f in c.failures} for c in (a, b))
        if differing := sorted({failure[:2] for failure in ours ^ theirs}):
            named = [f"{clip!r} ({stage})" for clip, stage in differing]
            lines.append(f"failures differ for {listed(named, SHOWN)}")
    return lines


def _feature_lines(a: Cache, b: Cache, one: FeatureSpec, other: FeatureSpec) -> list[str]:
    label = one.label
    lines = [f"{label}: {change}" for change in _spec_changes(one, other)]
    rows_a, rows_b = common_rows(a.table, b.table)
    in_a, in_b = a.present(one.name, one.fold)[rows_a], b.present(one.name, one.fold)[rows_b]
    for where, only in (("first", in_a & ~in_b), ("second", in_b & ~in_a)):
        if only.any():
            clips = names_of(a.table, rows_a[only])
            lines.append(f"{label}: only the {where} has clips {clips}")
    if (one.kind, one.dim) != (other.kind, other.dim):
        return lines
    read_a, read_b = clip_reader(a, one), clip_reader(b, other)
    both, differing, most = in_a & in_b, [], 0.0
    for i, j in zip(rows_a[both].tolist(), rows_b[both].tolist(), strict=True):
        x, y = read_a(i), read_b(j)
        if not np.array_equal(x, y):
            differing.append(i)
            apart = np.abs(x.astype(float) - y).max() if x.shape == y.shape else np.inf
            most = max(most, float(apart))
    if differing:
        lines.append(
            f"{label}: values of {len(differing)} of {both.sum()} clips differ by at most "
            f"{most:.3g}: {names_of(a.table, differing)}"
        )
    return lines


def _spec_changes(one: FeatureSpec, other: FeatureSpec) -> list[str]:
    changes = []
    for what in ("modality", "kind", "dim", "extractor", "version", "protocol", "weights"):
        if (x := getattr(one, what)) != (y := getattr(other, what)):
            changes.append(f"different {what}: {str(x)[:12]!r} and {str(y)[:12]!r}")
    for key in sorted({*one.params, *other.params}):
        if (x := one.params.get(key)) != (y := other.params.get(key)):
            changes.append(f"different parameter {key}: {str(x)[:60]} and {str(y)[:60]}")
    return changes
