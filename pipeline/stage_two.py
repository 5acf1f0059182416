"""Stage two as a function: evaluate a feature cache, write the report, save the heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mvemo.cache import open_cache
from mvemo.fuse import (
    EvaluationSettings,
    evaluate,
    format_table,
    write_report,
)
from mvemo.manifests import read_folds
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.provenance import provenance


def run_fuse(
    features: Path,
    settings: EvaluationSettings,
    *,
    out: Path,
    protocol: str | None = None,
    fold_file: Path | None = None,
) -> str:
    """Evaluate every model over the cache and write the report.

    Parameters
    ----------
    features
        The cache; nothing else is read.
    settings
        Of the evaluation. Where heads are refitted they are saved, per fold and over all
        clips, as ``heads.npz``.
    out
        Folder of the run (`mvemo.fuse.write_report`); made if needed.
    protocol
        What the features are expected to be.
    fold_file
        The folds, in place of those of the settings (`mvemo.manifests.read_folds`).

    Returns
    -------
    The table for the terminal, with where the report lies.
    """
    with open_cache(features) as cache:
        protocols = sorted({spec.protocol for spec in cache.specs if spec.kind == "vector"})
        if protocol is not None and protocols and protocol not in protocols:
            raise BadOption(
                f"{features}: its features are made under {', '.join(protocols)}, not {protocol!r}"
            )
        if fold_file is not None:
            settings = replace(settings, folds=read_folds(fold_file, cache.table))
        results = evaluate(cache, settings)
        results = replace(
            results,
            provenance={
                **results.provenance,
                **provenance(cache=features.name),
                "stage_one": cache.provenance,
            },
        )
    write_report(results, out, heads=settings.refit)
    lines = [format_table(results), "", f"report: {out / 'report.html'}"]
    if settings.refit:
        lines.append(f"heads: {out / 'heads.npz'}")
    return "\n".join(lines)
