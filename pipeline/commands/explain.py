"""Command ``mvemo explain``: the parts of a clip that drove its prediction."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.commands.options import (
    OUT_FILE,
    PATH,
)
from mvemo.pipeline.commands.predict import clips_and_settings, model_options


@click.command()
@click.argument("file", type=PATH)
@model_options
@click.option("--of", "output", default=None, help="Class, tag or target.  [default: predicted]")
@click.option("--step", default=1.0, show_default=True, help="Seconds between stretches.")
@click.option("--width", default=3.0, show_default=True, help="Seconds that are left out.")
@click.option(
    "--to",
    type=OUT_FILE,
    default=None,
    help="The page.  [default: NAME.explained.html]",
)
def explain(
    file: Path,
    model_name: str | None,
    modality: str,
    weight_files: tuple[str, ...],
    device: str,
    output: str | None,
    step: float,
    width: float,
    to: Path | None,
) -> int:
    """Show which seconds and which frames of FILE drove the model's decision.

    Stretches of the sound and of the pictures are left out one after the other, and the clip
    is predicted again. The page shows how much each stretch adds, the sound, and the frames.

    \b
    Example:
      mvemo explain song.mp3 --to why.html
    """
    page = to or OUT_FILE.convert(f"{file.stem}.explained.html", None, None)
    options = (model_name, modality, weight_files, device)
    clips, folder, settings = clips_and_settings([str(file)], *options)

    from mvemo.fuse.errors import FuseError
    from mvemo.fuse.final.files import load_model
    from mvemo.manifests.files import write_text
    from mvemo.pipeline.errors import BadOption
    from mvemo.pipeline.prediction.embedding import FeatureMaker
    from mvemo.pipeline.prediction.explain import ExplainSettings, explain_clip
    from mvemo.pipeline.prediction.explain_page import explanation_html, explanation_text
    from mvemo.pipeline.prediction.run import find_ways

    occlusion = ExplainSettings(step, width, output)
    if len(clips) != 1 or clips[0].problem:
        raise BadOption(f"{file}: {clips[0].problem or 'one file at a time is explained'}")
    maker = FeatureMaker(load_model(folder), folder, settings.weights, settings.device)
    find_ways(maker, settings.modalities)
    explanation = explain_clip(maker, clips[0], settings.modalities, occlusion)
    write_text(page, explanation_html(maker.model, explanation), error=FuseError)
    click.echo(explanation_text(maker.model, explanation))
    click.echo(f"page: {page}")
    return 0
