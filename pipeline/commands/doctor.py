"""Command ``mvemo doctor``: a check of the installation and of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mvemo.pipeline.commands.options import FOLDER
from mvemo.pipeline.console.messages import escaped, unguarded

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command()
@click.option("--work", type=FOLDER, default=Path("work"), show_default=True, help="Folder to try.")
@click.option(
    "--clips",
    "n_clips",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Tell how long so many clips would take.",
)
@click.option("--no-speed", is_flag=True, help="Do not measure the speed, which takes longest.")
def doctor(work: Path, n_clips: int, no_speed: bool) -> int:
    """Check this installation and machine: one line for each finding, with the cure.

    It checks versions, torch and torchvision as a pair, codecs, GPU, fetched weights and
    their digests, free space in the folders and that they can be written, and measures
    the speed. The exit code is 1 if something needed is absent or does not work.

    \b
    Example:
      mvemo doctor --clips 500
    """
    from mvemo.pipeline.console.messages import verbosity
    from mvemo.pipeline.doctor import examine

    n_problems = 0
    for finding in examine(work, n_clips, measure=not no_speed):
        n_problems += finding.status == "problem"
        if verbosity() == "quiet" and finding.status == "ok":
            continue
        # Only the status is coloured.
        line = escaped(finding.line())
        width = len(finding.status)
        status = click.style(line[:width], fg=COLOURS[finding.status])
        click.echo(f"{status}{line[width:]}", file=unguarded(sys.stdout))
    if n_problems:
        click.echo(f"{n_problems} problem{'s' * (n_problems > 1)}", err=True)
    return 1 if n_problems else 0
