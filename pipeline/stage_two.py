"""Stage two as a function: evaluate a feature cache, write the report, save the heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mvemo.cache import open_cache
from mvemo.fuse import (
    EvaluationSettings,
    evaluate,
    format_table,
    output_table,
    save_heads,
    write_output_report,
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
        Folder of ``report.html``, ``metrics.json`` and ``predictions.csv``; made if
        needed, and nothing else in it is touched.
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
    out.mkdir(parents=True, exist_ok=True)
    if results.task.decides_songs:
        write_report(results, out)
        table = format_table(results)
    else:
        write_output_report(results, out)
        table = output_table(results)
    lines = [table, "", f"report: {out / 'report.html'}"]
    if settings.refit:
        save_heads(out / "heads.npz", results)
        lines.append(f"heads: {out / 'heads.npz'}")
    return "\n".join(lines)
