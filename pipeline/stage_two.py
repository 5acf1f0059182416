"""Stage two as a function: evaluate a feature cache, write the report, save the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mvemo.cache import open_cache
from mvemo.fuse import evaluate, format_table, save_heads, write_report
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import FuseSettings


def run_fuse(
    features: Path,
    settings: FuseSettings,
    *,
    out: Path,
    k: int | None = None,
    seed: int | None = None,
    models: Sequence[str] | None = None,
    permute_labels: bool = False,
    protocol: str | None = None,
    save: bool = True,
) -> str:
    """Evaluate every model over the cache and write the report.

    Parameters
    ----------
    features
        The cache; nothing else is read.
    settings
        Of the heads.
    out
        Folder of ``report.html``, ``metrics.json`` and ``predictions.csv``; made if
        needed, and nothing else in it is touched.
    k, seed
        Number of folds, and the seed of folds made here; None for the cache's own.
    models
        Names of those to evaluate; None for all that the features allow.
    permute_labels
        Shuffle the labels first: a check that must come out at chance.
    protocol
        What the features are expected to be; ``shared`` accepts optimistic scores.
    save
        Also fit and save the heads, per fold and over all clips, as ``heads.npz``.

    Returns
    -------
    The table for the terminal, with where the report lies.
    """
    with open_cache(features) as cache:
        held = sorted({spec.protocol for spec in cache.specs if spec.kind == "vector"})
        if protocol is not None and held and protocol not in held:
            raise BadOption(
                f"{features}: its features are made under {', '.join(held)}, not {protocol!r}"
            )
        results = evaluate(
            cache,
            k=k,
            seed=seed,
            permute_labels=permute_labels,
            allow_leak=protocol == "shared",
            models=models,
            C=settings.C,
            refit=save,
        )
        results = replace(
            results,
            provenance={
                **results.provenance,
                **provenance(features=features.name, settings=asdict(settings)),
                "stage_one": cache.provenance,
            },
        )
        out.mkdir(parents=True, exist_ok=True)
        write_report(results, out)
        lines = [format_table(results), "", f"report: {out / 'report.html'}"]
        if save:
            save_heads(out / "heads.npz", results)
            lines.append(f"heads: {out / 'heads.npz'}")
    return "\n".join(lines)
