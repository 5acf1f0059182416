"""``mvemo predict``: the emotion of new clips."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.commands.options import model_option
from mvemo.pipeline.errors import BadOption


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="FILE|FOLDER|GLOB|LIST.csv...")
@model_option
@click.option(
    "--modality",
    type=click.Choice(["audio", "video", "both"]),
    default="both",
    show_default=True,
    help="Read sound alone, pictures alone, or both.",
)
@click.option(
    "--weights",
    "weight_files",
    multiple=True,
    metavar="NET=FILE",
    help="Pretrained weights of a net, where they are not fetched ones.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write the predictions to this file, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
def predict(
    inputs: tuple[str, ...],
    model_name: str | None,
    modality: str,
    weight_files: tuple[str, ...],
    device: str,
    csv_file: Path | None,
    as_json: bool,
) -> int:
    """Predict the emotion of new clips: sound, videos, or a list of them.

    A folder stands for all media files in it. LIST.csv needs a column path and no labels.
    A file that cannot be read is reported, and the others are predicted; where none can be,
    the exit code is 2.

    Without --model a model that comes with mvemo predicts; the public weights that its
    nets need are fetched once.

    \b
    Examples:
      mvemo predict song.mp3
      mvemo predict clips/ more/*.mp4 --model out/model --csv emotions.csv
    """
    weights = dict(map(_net_and_file, weight_files))

    from mvemo.fuse.errors import FuseError
    from mvemo.manifests.files import dump_json, write_text
    from mvemo.pipeline.models.boxed import pick_model
    from mvemo.pipeline.models.fetching import fetch_model_weights
    from mvemo.pipeline.prediction.inputs import find_clips, modalities_of
    from mvemo.pipeline.prediction.output import predictions_csv, predictions_table, records
    from mvemo.pipeline.prediction.run import PredictSettings, predict_files

    folder, clips = pick_model(model_name), find_clips(inputs)
    modalities = modalities_of(clips) if modality == "both" else (modality,)
    fetch_model_weights(folder, modalities, but=weights)
    settings = PredictSettings(modalities, weights, device)
    model, predictions = predict_files(folder, clips, settings)
    if csv_file is not None:
        write_text(csv_file, predictions_csv(model, predictions), error=FuseError)
    if as_json:
        click.echo(dump_json(records(model, predictions)), nl=False)
    else:
        click.echo(predictions_table(model, predictions))
    return 2 if all(prediction.problem for prediction in predictions) else 0


def _net_and_file(entry: str) -> tuple[str, Path]:
    """The two parts of ``NET=FILE``."""
    net, equals, file = entry.partition("=")
    if not equals or not net:
        raise BadOption(f"--weights {entry!r}: write it as NET=FILE, as i3d=weights.npz")
    if not Path(file).is_file():
        raise BadOption(f"--weights {entry!r}: there is no file {file}")
    return net, Path(file)
