"""Commands of the desk: ``mvemo serve``, ``mvemo playlist`` and ``mvemo tag``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.commands.options import INPUT_FILE, OUT_FILE, OUT_FOLDER, PATH, flag
from mvemo.pipeline.console.messages import tell_note

# Packages of the page.
PACKAGES = ("mutagen", "starlette", "uvicorn")


@click.command(short_help="Open a page to listen to your clips, correct them and learn.")
@argument("source", metavar="[FOLDER|PREDICTIONS|RUN]", type=PATH, default=Path())
@shared.model_option
@shared.device_option
@option("--work", type=OUT_FOLDER, help="Folder for all that it writes.  [default: FOLDER/.mvemo]")
@option("--port", type=click.IntRange(0, 65535), help="Port.  [default: 8400, or a free one]")
@option("--host", default="127.0.0.1", help="Address to listen on; others need --token.")
@option("--token", help="Token of the address.  [default: a random one]")
@flag("--no-open", "Do not open the browser.")
@option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=2000,
    metavar="MB",
    help="Largest file that can be dropped on the page.",
)
def serve(source: Path, model_name: str | None, device: str, **options: Any) -> None:
    """Open a page to listen to the clips of FOLDER, correct their moods, and learn from that.

    The clips are predicted in the background. The page shows each prediction as soon as it is
    made, and the next mvemo serve shows it again. PREDICTIONS is a CSV or JSON file of mvemo
    predict. RUN is a folder of mvemo fuse --final: its confusions and hard clips can be heard.
    The page is served on this machine only; the address that is printed opens it.

    \b
    Examples:
      mvemo serve songs/
      mvemo serve emotions.csv --no-open --port 8000
    """
    if not source.exists():
        raise BadOption(f"{source}: no such file or folder")
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise BadOption(f"needs {', '.join(missing)}: run pip install 'mvemo[serve]'")
    from mvemo.extract.training import devices
    from mvemo.fuse.final import model_files
    from mvemo.pipeline.desk.serve import server
    from mvemo.pipeline.models import boxed
    from mvemo.pipeline.prediction import new_clips

    devices.pick_device(device)
    if model_name is None and (source / "model" / model_files.MODEL).is_file():
        model_name = str(source / "model")
    in_use = boxed.model_folder(model_name) if model_name else None
    folder = in_use or server.default_model(source, options["work"])
    predict = new_clips.PredictSettings(device=device)
    server.serve(source, server.ServeSettings(folder, predict, **options))


mood_options: shared.Decorator = shared.together(
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


@click.command(short_help="Write playlists: one per mood, or from calm to lively.")
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
@shared.force_option
def playlist(
    predictions: Path, corrections: Path | None, least: float | None, out: Path, **options: Any
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
    from mvemo.pipeline.desk import playlists

    line = options["line"]
    if line is not None and options["by_mood"]:
        raise BadOption("--by-mood, --path: expected one of them, got both")
    ends = None if line is None else playlists.parse_line(line)
    moods = playlists.read_moods(predictions, corrections, least)
    present = [mood for mood in moods if Path(mood.path).is_file()]
    if len(present) < len(moods):
        tell_note(f"{len(moods) - len(present)} of {len(moods)} files are gone: left out")
    if ends is None:
        lists = playlists.lists_by_mood(present)
    else:
        lists = {line: playlists.along_line(present, ends)}
    lists = {name: listed for name, listed in lists.items() if listed}
    if not lists:
        problem = "no class or tag: give --path" if ends is None else "no place on this line"
        raise BadOption(f"{predictions}: its {len(present)} clips have {problem}")
    if left := len({m.path for m in present} - {m.path for of in lists.values() for m in of}):
        tell_note(f"{left} of {len(present)} clips are in no playlist")
    playlists.write_playlists(lists, out, options["kind"], options["force"])


@click.command(short_help="Write predicted moods into the tags of your files, or undo it.")
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
    --undo takes back the last tagging, and if called again the one before; files that were
    changed meanwhile stay as they are. The mood is written to TMOO in MP3, WAV and AIFF, to
    MOOD in Ogg, Opus and FLAC, and to a free-form atom in MP4; other formats are listed.

    \b
    Examples:
      mvemo tag emotions.csv
      mvemo tag emotions.csv --corrections mine.csv --write
      mvemo tag --undo emotions.csv.tags.jsonl --write
    """
    from mvemo.pipeline.desk import playlists, tagging

    if predictions is not None and undo is None:
        journal = journal or predictions.with_name(f"{predictions.name}.tags.jsonl")
        moods = playlists.read_moods(predictions, corrections, least)
        changes, skipped = tagging.plan_tags(playlists.tags_of(moods))
    elif predictions is None and undo is not None:
        changes, skipped = tagging.plan_undo(journal := undo)
    else:
        raise BadOption("mvemo tag: expected either PREDICTIONS or --undo JOURNAL")
    for line in skipped:
        tell_note(line)
    failed: list[str] = []
    if write:
        failed = tagging.write_tags(changes, journal)
    elif changes:
        tagging.show(changes)
    for line in failed:
        click.echo(f"error: {line}", err=True)
    n = len(changes) - len(failed)
    click.echo(f"{n} files {'tagged' if write else 'to tag'}, {len(skipped)} skipped")
    if write and n and undo is None:
        click.echo(f"undo: mvemo tag --undo {journal} --write")
    elif n and not write:
        click.echo("nothing was written: add --write")
    return int(bool(failed))
