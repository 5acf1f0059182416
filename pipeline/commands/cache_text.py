"""Text for the terminal about a feature cache."""

from collections.abc import Sequence

import numpy as np

from mvemo.cache import TEST, TRAIN, VALIDATION, Cache, failures_by_reason
from mvemo.manifests.text_table import align_columns


def cache_lines(cache: Cache) -> list[str]:
    """Return lines on the file, its clips, features, failures by reason, and origin."""
    table, facts = cache.table, dict(cache.provenance)
    synthetic = "synthetic " if table.synthetic else ""
    division = f"{table.k} folds (seed {table.fold_seed})" if table.k else "no folds"
    if table.splits is not None:
        n = np.bincount(table.splits, minlength=3).tolist()
        division = f"{n[TRAIN]} training, {n[VALIDATION]} validation, {n[TEST]} test clips"
    kinds = failures_by_reason([(f.clip_id, f.stage, f.reason) for f in cache.failures])
    if isinstance(facts.get("versions"), dict):
        facts["versions"] = ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
    return [
        f"{cache.path}: schema {cache.schema}, {cache.n_bytes / 1e6:.1f} MB, "
        f"digest {cache.digest()[:16]}",
        f"{table.name}: {len(table)} {synthetic}clips in {len(set(table.groups))} groups, "
        f"{division}",
        f"{table.task}: {', '.join(table.classes)}".removesuffix(": "),
        "",
        *_feature_lines(cache),
        "",
        f"{len(cache.failures)} failures{', by reason:' * bool(kinds)}",
        *(f"  {kind.text()}" for kind in kinds),
        *(f"{key}: {facts[key]}" for key in ("command", "versions") if key in facts),
    ]


def _feature_lines(cache: Cache) -> list[str]:
    rows = [("feature", "kind", "dim", "made by", "protocol", "folds", "clips")]
    for name in cache.names():
        specs = cache.variants(name)
        counts = [int(cache.present(name, spec.fold).sum()) for spec in specs]
        n_present = " to ".join(map(str, sorted({min(counts), max(counts)})))
        first = specs[0]
        rows.append(
            (
                name,
                f"{first.modality} {first.kind}",
                str(first.dim),
                f"{first.extractor} {first.version}",
                first.protocol,
                _fold_range([spec.fold for spec in specs if spec.fold is not None]),
                f"{n_present} of {len(cache.table)}",
            )
        )
    return align_columns(rows, left=range(7))


def failure_table(cache: Cache) -> list[str]:
    rows = [
        (f.clip_id, f.stage, f.time or "unknown", f.version or "unknown", f.reason)
        for f in cache.failures
    ]
    return align_columns([("clip", "stage", "time", "mvemo", "reason"), *rows], left=range(5))


def _fold_range(folds: Sequence[int]) -> str:
    """Format folds: ``0-5`` if consecutive, otherwise ``0,2,5``; ``-`` if there are none."""
    if len(folds) > 2 and (np.diff(folds) == 1).all():
        return f"{folds[0]}-{folds[-1]}"
    return ",".join(map(str, folds)) or "-"
