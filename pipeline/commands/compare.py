"""Command ``mvemo compare``: models of several evaluations on the same clips and folds."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.commands.options import (
    OUT_FOLDER,
    paper_options,
)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:MODEL]...")
@click.option(
    "--out",
    type=OUT_FOLDER,
    default=None,
    help="Also write comparison.json and comparison.txt into this folder.",
)
@click.option(
    "--resamples",
    "n_resamples",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Of the bootstrap.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."
)
@paper_options
def compare(
    runs: tuple[str, ...],
    out: Path | None,
    n_resamples: int,
    seed: int,
    latex: Path | None,
    markdown: Path | None,
) -> None:
    """Compare models of several RUNs, folders that `mvemo fuse`, `cv` or `report` wrote.

    If two RUNs have names of models in common, these are compared with each other;
    otherwise every model is compared with every model. RUN:MODEL selects one model. Each
    pair is compared on the same clips and folds: difference, 95 % interval (paired group
    bootstrap) and a corrected test.

    \b
    Examples:
      mvemo compare out theirs
      mvemo compare out:integrated out:musicnn
    """
    from mvemo.fuse.compare_runs import (
        compare_runs,
        comparison_tables,
        format_run_comparison,
        run_comparison_dict,
    )
    from mvemo.fuse.report.files import write_texts
    from mvemo.fuse.report.paper import write_paper
    from mvemo.manifests.files import dump_json

    comparison = compare_runs(runs, n_resamples=n_resamples, seed=seed)
    table = format_run_comparison(comparison)
    click.echo(table)
    write_paper(comparison_tables(comparison), latex, markdown)
    if out is not None:
        values = dump_json(run_comparison_dict(comparison))
        write_texts(out, {"comparison.json": values, "comparison.txt": f"{table}\n"})
        click.echo(f"\ncomparison: {out / 'comparison.json'}")
