"""Command ``mvemo tag``: predicted moods in the tags of the user's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import INPUT_FILE, OUT_FILE, flag
from mvemo.pipeline.commands.playlist import mood_options
from mvemo.pipeline.console.messages import tell_note

if TYPE_CHECKING:
    from mvemo.pipeline.moods import Mood
    from mvemo.pipeline.tagging import Change


@click.command()
@argument("predictions", type=INPUT_FILE, required=False)
@mood_options
@flag("--write", "Write the tags; otherwise they are only listed.")
@option("--journal", type=OUT_FILE, help="File for --undo.  [default: PREDICTIONS.tags.jsonl]")
@option("--undo", type=INPUT_FILE, metavar="JOURNAL", help="Restore the tags of a journal's files.")
def tag(
    predictions: Path | None,
    corrections: Path | None,
    least: float | None,
    write: bool,
    journal: Path | None,
    undo: Path | None,
) -> int:
    """Write the moods and ratings of PREDICTIONS into the tags of the files themselves.

    PREDICTIONS is a CSV or JSON file of mvemo predict. Without --write the changes are only
    listed. Each file is replaced by a tagged copy after its sound and pictures were compared.
    --undo takes back the last tagging, then the one before; changed files stay.
    MP3, WAV and AIFF get TMOO, Ogg, Opus and FLAC MOOD, MP4 a free-form atom; other formats
    are listed.

    \b
    Examples:
      mvemo tag emotions.csv
      mvemo tag emotions.csv --corrections mine.csv --write
      mvemo tag --undo emotions.csv.tags.jsonl --write
    """
    from mvemo.pipeline.tagging import plan_tags, plan_undo, write_tags

    if (predictions is None) == (undo is None):
        raise BadOption("mvemo tag: expected either PREDICTIONS or --undo JOURNAL")
    if predictions is None:
        assert undo is not None
        changes, skipped = plan_undo(undo)
    else:
        from mvemo.pipeline.moods import read_moods

        journal = journal or predictions.with_name(f"{predictions.name}.tags.jsonl")
        moods = read_moods(predictions, corrections, least)
        changes, skipped = plan_tags(_wanted(moods))
    for line in skipped:
        tell_note(line)
    failed: list[str] = []
    if write:
        failed = write_tags(changes, undo or journal)
    elif changes:
        _show(changes)
    for line in failed:
        click.echo(f"error: {line}", err=True)
    n = len(changes) - len(failed)
    click.echo(f"{n} files {'tagged' if write else 'to tag'}, {len(skipped)} skipped")
    if write and n and undo is None:
        click.echo(f"undo: mvemo tag --undo {journal} --write")
    elif n and not write:
        click.echo("nothing was written: add --write")
    return int(bool(failed))


def _wanted(moods: list[Mood]) -> dict[Path, dict[str, list[str]]]:
    """Return the values of each file's tags, without files that have neither mood nor rating."""
    wanted: dict[Path, dict[str, list[str]]] = {}
    files = [os.path.abspath(mood.path) for mood in moods]
    for mood, file in zip(moods, files, strict=True):
        if len({*files}) < len(files) and files.count(file) > 1:
            raise BadOption(f"{mood.path}: has two predictions: expected whole files, each once")
        for name in {"mood", "model"} & {*map(str.lower, mood.ratings)}:
            raise BadOption(f"{mood.path}: a rating named {name} would have the tag of the {name}")
        values = {"mood": [*mood.moods]} if mood.moods else {}
        values |= {name: [f"{value:.3g}"] for name, value in mood.ratings.items()}
        if values:
            model = "corrected" if mood.is_corrected else mood.model
            wanted[mood.path] = {**values, "model": [model]}
    if len(wanted) < len(moods):
        tell_note(f"{len(moods) - len(wanted)} of {len(moods)} files have no mood to write")
    return wanted


def _show(changes: list[Change]) -> None:
    """Print a table with the old and the new value of each tag."""
    from mvemo.manifests.text_table import align_columns

    rows = [
        [str(change.path), name, "; ".join(change.old[name] or ["-"]), "; ".join(value or ["-"])]
        for change in changes
        for name, value in change.new.items()
        if value != change.old[name]
    ]
    for line in align_columns([["file", "tag", "old", "new"], *rows], left=range(4)):
        click.echo(line)
