"""Commands of the desk: ``mvemo serve``, ``mvemo playlist`` and ``mvemo tag``."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.commands.options import INPUT_FILE, OUT_FILE, OUT_FOLDER, PATH, flag
from mvemo.pipeline.console.messages import tell_note

if TYPE_CHECKING:
    from mvemo.fuse.final.clip_prediction import ClipPrediction
    from mvemo.pipeline.desk import tagging

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

    The clips are predicted in the background; what is done is shown at once, also by the next
    mvemo serve. PREDICTIONS is a CSV or JSON file of mvemo predict. RUN is a folder of mvemo
    fuse --final: its confusions and hard clips can be heard. The page is served on this
    machine only; the address that is printed opens it.

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
    from mvemo.fuse.final import model as models
    from mvemo.pipeline.desk.serve import server
    from mvemo.pipeline.models import boxed
    from mvemo.pipeline.prediction import new_clips

    devices.pick_device(device)
    if model_name is None and (source / "model" / models.MODEL).is_file():
        model_name = str(source / "model")
    in_use = boxed.model_folder(model_name) if model_name else None
    server.serve(
        source,
        server.ServeSettings(
            model=in_use or _default_model(source, options["work"]),
            work=options["work"],
            port=options["port"],
            host=options["host"],
            token=options["token"] or "",
            open=not options["no_open"],
            most_upload=options["max_upload"] * 1_000_000,
            predict=new_clips.PredictSettings(device=device),
        ),
    )


def _default_model(source: Path, work: Path | None) -> Path:
    """Return the model that made PREDICTIONS, or the default for the files and the corrections."""
    from mvemo.fuse.final import prediction_records
    from mvemo.manifests import read_manifest
    from mvemo.manifests.layouts import scan
    from mvemo.pipeline.models import boxed
    from mvemo.pipeline.prediction import new_clips

    clips, task, folder = list[new_clips.NewClip](), "", source
    if source.is_dir():
        found = scan.find_media(source, [], follow_links=False)
        clips = [new_clips.NewClip(name, source / name) for name in found]
    else:
        folder, first = source.parent, next(prediction_records.read_predictions(source), None)
        made_by = (first.model if first else None) or ""
        if (name := made_by.partition("/")[0]) in boxed.boxed_names():
            return boxed.model_folder(name)
    # Corrections of a former call stay valid if the folder now has other kinds of files.
    with suppress(MvemoError):
        task = read_manifest((work or folder / ".mvemo") / "corrections.csv", media=False).task
    return boxed.pick_model(None, new_clips.have_pictures(clips), task)


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
    _write(lists, out, options["kind"], options["force"])


def _write(lists: dict[str, list[ClipPrediction]], out: Path, kind: Any, force: bool) -> None:
    """Write the playlists and print a line for each."""
    from mvemo.extract.store import contents
    from mvemo.pipeline.desk import playlists, tagging

    files: dict[Path, list[ClipPrediction]] = {}
    for name, listed in lists.items():
        stem = playlists.file_stem(name) or "_"
        # Two moods may have one file name, also where upper and lower case are the same.
        taken = {file.stem.lower() for file in files}
        stem += f" {len(files) + 1}" * (stem.lower() in taken)
        files[out / f"{stem}.{kind}"] = listed
    for file in files:
        shared.refuse_replacing(file, force)
    clips: dict[str, dict[str, Any]] = {}
    every = {mood.path: mood for listed in lists.values() for mood in listed}
    found = contents.contents_of([Path(path) for path in every])
    for (path, mood), content in zip(every.items(), found, strict=True):
        clips[path] = {**tagging.song_facts(Path(path)), "content": content.digest}
        clips[path]["duration"] = clips[path]["duration"] or mood.facts.get("duration")
    out.mkdir(parents=True, exist_ok=True)
    for file, listed in files.items():
        text = playlists.write_playlist([clips[mood.path] for mood in listed], file, kind)
        n = text.count("#EXTINF:" if kind == "m3u8" else "<track>")
        click.echo(f"{file}: {n} clips")


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
    --undo takes back the last tagging, then the one before; changed files stay.
    MP3, WAV and AIFF get TMOO, Ogg, Opus and FLAC MOOD, MP4 a free-form atom; other formats
    are listed.

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
        changes, skipped = tagging.plan_tags(_wanted(moods))
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


def _wanted(moods: list[ClipPrediction]) -> dict[Path, dict[str, list[str]]]:
    """Return the values of each file's tags, without files that have neither mood nor rating."""
    wanted: dict[Path, dict[str, list[str]]] = {}
    counts = Counter(os.path.abspath(mood.path) for mood in moods)
    for mood in moods:
        if counts[os.path.abspath(mood.path)] > 1:
            raise BadOption(f"{mood.path}: has two predictions: expected whole files, each once")
        for name in {"mood", "model"} & {*map(str.lower, mood.ratings)}:
            raise BadOption(f"{mood.path}: a rating named {name} would have the tag of the {name}")
        values = {"mood": [*mood.moods]} if mood.moods else {}
        values |= {name: [f"{value:.3g}"] for name, value in mood.ratings.items()}
        if values:
            model = "corrected" if mood.is_corrected else mood.model or ""
            wanted[Path(mood.path)] = {**values, "model": [model]}
    if len(wanted) < len(moods):
        tell_note(f"{len(moods) - len(wanted)} of {len(moods)} files have no mood to write")
    return wanted


def _show(changes: list[tagging.Change]) -> None:
    """Print a table with the old and the new value of each tag."""
    from mvemo.manifests import text_table

    rows = [
        [str(change.path), name, "; ".join(change.old[name] or ["-"]), "; ".join(value or ["-"])]
        for change in changes
        for name, value in change.new.items()
        if value != change.old[name]
    ]
    for line in text_table.align_columns([["file", "tag", "old", "new"], *rows], left=range(4)):
        click.echo(line)
