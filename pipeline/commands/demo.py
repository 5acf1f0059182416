"""Command ``mvemo demo``: from generated clips to a report."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.commands.options import OUT_FOLDER


@click.command()
@click.argument("folder", type=OUT_FOLDER, default=Path("mvemo-demo"))
def demo(folder: Path) -> None:
    """Make a small synthetic data set in FOLDER, train on it, and write a report.

    The data set has 96 clips of 4 seconds with sound and pictures, in six classes. All of
    it takes minutes on two cores. An interrupted run keeps its finished parts. FOLDER is
    mvemo-demo by default; everything is in it, so delete it when done. In a clone,
    `make extract fuse` does the same.

    \b
    Example:
      mvemo demo try-it
    """
    from mvemo.pipeline.settings_files import load_settings
    from mvemo.pipeline.stage_one.run import run_extract
    from mvemo.pipeline.stage_two import run_fuse, settings_for

    features = folder / "work" / "features.h5"
    summary = run_extract(None, load_settings("demo"), work=folder / "work", out=features)
    click.echo(f"{summary.text()}\n")
    click.echo(run_fuse(features, settings_for(features, "demo"), out=folder / "out"))
