"""Command ``mvemo serve``: a page to listen to predicted clips and to correct them."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import OUT_FOLDER, PATH, device_option, flag, model_option

PACKAGES = ("mutagen", "starlette", "uvicorn")


@click.command()
@argument("source", metavar="[FOLDER|PREDICTIONS|RUN]", type=PATH, default=Path())
@model_option
@device_option
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
    from mvemo.extract.training.devices import pick_device
    from mvemo.fuse.final.model import MODEL
    from mvemo.pipeline.models.boxed import model_folder
    from mvemo.pipeline.prediction.new_clips import PredictSettings
    from mvemo.pipeline.serve.server import ServeSettings, serve

    pick_device(device)
    if model_name is None and (source / "model" / MODEL).is_file():
        model_name = str(source / "model")
    model = model_folder(model_name) if model_name else _default_model(source, options["work"])
    serve(
        source,
        ServeSettings(
            model=model,
            work=options["work"],
            port=options["port"],
            host=options["host"],
            token=options["token"] or "",
            open=not options["no_open"],
            most_upload=options["max_upload"] * 1_000_000,
            predict=PredictSettings(device=device),
        ),
    )


def _default_model(source: Path, work: Path | None) -> Path:
    """Return the model that made PREDICTIONS, or the default for the files and the corrections."""
    from mvemo.manifests import read_manifest
    from mvemo.manifests.errors import MvemoError
    from mvemo.manifests.layouts.scan import find_media
    from mvemo.pipeline.models.boxed import boxed_names, model_folder, pick_model
    from mvemo.pipeline.moods import read_records
    from mvemo.pipeline.prediction.new_clips import NewClip, have_pictures

    clips, task, folder = list[NewClip](), "", source
    if source.is_dir():
        found = find_media(source, [], follow_links=False)
        clips = [NewClip(name, source / name) for name in found]
    else:
        folder, first = source.parent, next(read_records(source), {})
        made_by = str(first.get("model")).partition("/")[0]
        if made_by in boxed_names():
            return model_folder(made_by)
    # Corrections of a former call stay valid if the folder now has other kinds of files.
    with suppress(MvemoError):
        task = read_manifest((work or folder / ".mvemo") / "corrections.csv", media=False).task
    return pick_model(None, have_pictures(clips), task)
