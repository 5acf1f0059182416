"""Stage two for tags and dimensions: evaluate, write the report, save the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mvemo.cache import Cache
from mvemo.fuse.outputs_crossval import evaluate_outputs
from mvemo.fuse.outputs_report import output_table, write_output_report
from mvemo.fuse.saved import save_heads
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import FuseSettings


def fuse_outputs(
    cache: Cache,
    settings: FuseSettings,
    *,
    out: Path,
    k: int | None,
    seed: int | None,
    models: Sequence[str] | None,
    permute_labels: bool,
    allow_leak: bool,
    repeats: int,
    learning_curve: bool,
    save: bool,
) -> str:
    """What `run_fuse` does where the cache's task is not multiclass; parameters as there.

    Raises
    ------
    BadOption
        A setting that only heads of classes have.
    """
    for name, used in (
        ("--repeats", repeats > 1),
        ("--learning-curve", learning_curve),
        (f"fuse.kind={settings.kind}", settings.kind != "softmax"),
        ("fuse.choose_C", settings.choose_C),
        ("fuse.class_weight", settings.class_weight != "none"),
    ):
        if used:
            raise BadOption(
                f"{cache.path}: its task is {cache.table.task}; {name} is for multiclass only"
            )
    results = evaluate_outputs(
        cache,
        k=k,
        seed=seed,
        permute_labels=permute_labels,
        allow_leak=allow_leak,
        models=models,
        C=settings.C,
        refit=save,
        draws=settings.draws,
    )
    results = replace(
        results,
        provenance={
            **results.provenance,
            **provenance(features=cache.path.name, settings=asdict(settings)),
            "stage_one": cache.provenance,
        },
    )
    write_output_report(results, out)
    lines = [output_table(results), "", f"report: {out / 'report.html'}"]
    if save:
        save_heads(out / "heads.npz", results)
        lines.append(f"heads: {out / 'heads.npz'}")
    return "\n".join(lines)
