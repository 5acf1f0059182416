"""Command ``mvemo playlist``: playlists of predicted clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import (
    INPUT_FILE,
    OUT_FOLDER,
    flag,
    force_option,
    refuse_replacing,
    together,
)
from mvemo.pipeline.console.messages import tell_note

if TYPE_CHECKING:
    from mvemo.pipeline.moods import Mood

mood_options = together(
    [
        option(
            "--corrections", type=INPUT_FILE, help="Manifest of corrected labels, used instead."
        ),
        option(
            "--min-confidence",
            "least",
            type=click.FloatRange(0, 1),
            help="Leave out moods that are less probable, unless a person gave them.",
        ),
    ]
)


@click.command()
@argument("predictions", type=INPUT_FILE)
@mood_options
@option("--out", type=OUT_FOLDER, required=True, help="Folder for the playlists.")
@option(
    "--format",
    "kind",
    type=click.Choice(["m3u8", "xspf"]),
    default="m3u8",
    help="Format of the playlists.",
)
@flag("--by-mood", "One playlist for each class or tag (the default).")
@option(
    "--path",
    "line",
    metavar="START..END",
    help="One playlist along a line through the valence-arousal plane instead.",
)
@force_option
def playlist(
    predictions: Path,
    corrections: Path | None,
    least: float | None,
    out: Path,
    **options: Any,
) -> None:
    """Write playlists of the clips in PREDICTIONS, a CSV or JSON file of mvemo predict.

    The ends of --path are calm, lively, sad, happy, tense, relaxed, or a valence and an arousal
    as ranks among the clips, from 0 (lowest) to 1 (highest). No file is listed twice, and copies of
    a file count as this file.

    \b
    Examples:
      mvemo playlist emotions.csv --out playlists
      mvemo playlist emotions.csv --corrections mine.csv --out lists
      mvemo playlist emotions.csv --path calm..lively --format xspf --out lists
    """
    from mvemo.pipeline.moods import read_moods
    from mvemo.pipeline.playlists import along_line, lists_by_mood, parse_line

    line = options["line"]
    if line is not None and options["by_mood"]:
        raise BadOption("--by-mood, --path: expected one of them, got both")
    ends = None if line is None else parse_line(line)
    moods = read_moods(predictions, corrections, least)
    present = [mood for mood in moods if mood.path.is_file()]
    if len(present) < len(moods):
        tell_note(f"{len(moods) - len(present)} of {len(moods)} files are gone: left out")
    lists = lists_by_mood(present) if ends is None else {line: along_line(present, ends)}
    lists = {name: listed for name, listed in lists.items() if listed}
    if not lists:
        problem = "no class or tag: give --path" if ends is None else "no place on this line"
        raise BadOption(f"{predictions}: its {len(present)} clips have {problem}")
    if left := len({m.path for m in present} - {m.path for of in lists.values() for m in of}):
        tell_note(f"{left} of {len(present)} clips are in no playlist")
    _write(lists, out, options["kind"], options["force"])


def _write(lists: dict[str, list[Mood]], out: Path, kind: Any, force: bool) -> None:
    """Write the playlists and print a line for each."""
    from mvemo.extract.store.contents import contents_of
    from mvemo.pipeline.playlists import file_stem, write_playlist
    from mvemo.pipeline.tagging import song_facts

    files: dict[Path, list[Mood]] = {}
    for name, listed in lists.items():
        stem = file_stem(name) or "_"
        # Two moods may have one file name, also where upper and lower case are the same.
        taken = {file.stem.lower() for file in files}
        stem += f" {len(files) + 1}" * (stem.lower() in taken)
        files[out / f"{stem}.{kind}"] = listed
    for file in files:
        refuse_replacing(file, force)
    clips = {}
    every = [*{id(mood): mood for listed in lists.values() for mood in listed}.values()]
    contents = contents_of([mood.path for mood in every])
    for mood, content in zip(every, contents, strict=True):
        facts = {**song_facts(mood.path), "content": content.digest}
        facts["duration"] = facts["duration"] or mood.seconds
        clips[mood.path] = {"path": mood.path, **facts}
    out.mkdir(parents=True, exist_ok=True)
    for file, listed in files.items():
        text = write_playlist([clips[mood.path] for mood in listed], file, kind)
        n = text.count("#EXTINF:" if kind == "m3u8" else "<track>")
        click.echo(f"{file}: {n} clips")
