"""Command ``mvemo learn``: a new model from the corrections of a model's predictions."""

from dataclasses import asdict
from pathlib import Path

import click
from click import argument, option

from mvemo.pipeline.commands.options import INPUT, INPUT_FILE, OUT_FOLDER, flag, model_option


@click.command()
@argument("corrections", type=INPUT_FILE)
@option(
    "--features",
    type=INPUT_FILE,
    required=True,
    metavar="CATALOGUE.h5",
    help="File that mvemo predict --cache wrote with the same model.",
)
@model_option
@option(
    "--training",
    type=INPUT,
    metavar="FEATURES.h5",
    help="File that the model was made of: train on its clips, too.",
)
@option("--out", type=OUT_FOLDER, required=True, help="Folder of the new model.")
@flag("--json", "Print the result as JSON.")
def learn(
    corrections: Path,
    features: Path,
    model_name: str | None,
    training: Path | None,
    out: Path,
    json: bool,
) -> None:
    """Make a new model from CORRECTIONS, a manifest of corrected predictions.

    No media are read. The old and the new model are compared on the corrected clips; each is
    scored by a model that was not made of it or its group. Without --training, the heads of
    the model are adapted: they change only as far as the corrections show a pattern.

    \b
    Example:
      mvemo predict songs/ --cache songs.h5 --csv songs.csv
      mvemo learn corrections.csv --features songs.h5 --out my-model
      mvemo predict songs/ --model my-model
    """
    from mvemo.fuse.final.learning import learn
    from mvemo.manifests import read_manifest
    from mvemo.manifests.files import dump_json
    from mvemo.pipeline.models.boxed import pick_model

    model = pick_model(model_name, task=read_manifest(corrections, media=False).task)
    result = learn(corrections, features, model=model, out=out, training=training)
    if json:
        click.echo(dump_json(asdict(result)), nl=False)
        return
    click.echo(f"{result.text}\nmodel: {result.model}")
