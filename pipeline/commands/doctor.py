"""``mvemo doctor``: what is here, what is not, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mvemo.pipeline.commands.options import FOLDER
from mvemo.pipeline.console.terminal import escaped, unguarded

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
    """Look at this installation and machine: a line for each finding, with the cure.

    Versions, torch and torchvision as a pair, codecs, GPU, fetched weights and their
    digests, room and a try to write in the folders, and a measured speed. Exit code 1 if
    something that is needed is absent or does not work.

    \b
    Example:
      mvemo doctor --clips 500
    """
    from mvemo.pipeline.console.messages import verbosity
    from mvemo.pipeline.doctor.checks import examine

    n_problems = 0
    for finding in examine(work, n_clips, measure=not no_speed):
        n_problems += finding.status == "problem"
        if verbosity() == "quiet" and finding.status == "ok":
            continue
        # The status alone is coloured.
        line = escaped(finding.line())
        width = len(finding.status)
        status = click.style(line[:width], fg=COLOURS[finding.status])
        click.echo(f"{status}{line[width:]}", file=unguarded(sys.stdout))
    if n_problems:
        click.echo(f"{n_problems} problem{'s' * (n_problems > 1)}", err=True)
    return 1 if n_problems else 0
