"""``mvemo compare``: evaluations of the same clips on the same folds, side by side."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN..."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
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
def compare(runs: tuple[Path, ...], out: Path | None, n_resamples: int, seed: int) -> None:
    """Compare models of several RUNs, folders that `mvemo fuse` or `mvemo-cv` wrote.

    Each model is compared with the same model of the first RUN, on the same clips and
    folds: difference, 95 % interval (paired group bootstrap) and a corrected test.
    """
    from mvemo.fuse.compare_runs import compare_runs, format_run_comparison, run_comparison_dict
    from mvemo.fuse.report.page import write_files
    from mvemo.manifests.files import dump_json

    found = compare_runs(runs, n_resamples=n_resamples, seed=seed)
    table = format_run_comparison(found)
    click.echo(table)
    if out is not None:
        values = run_comparison_dict(found)
        write_files(out, {"comparison.json": dump_json(values), "comparison.txt": f"{table}\n"})
        click.echo(f"\ncomparison: {out / 'comparison.json'}")
