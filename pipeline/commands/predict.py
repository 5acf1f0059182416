"""Commands ``mvemo predict``, ``explain`` and ``models``: models and the emotion of new clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvemo.pipeline.commands.options import (
    OUT_FILE,
    OUT_FOLDER,
    PATH,
    device_option,
    flag,
    model_option,
    refuse_address,
    strict_option,
    together,
)
from mvemo.pipeline.console.messages import tell
from mvemo.pipeline.errors import BadOption

if TYPE_CHECKING:
    from mvemo.fuse.final.model import FinalModel
    from mvemo.pipeline.prediction.feature_maker import PredictSettings
    from mvemo.pipeline.prediction.formats import Record
    from mvemo.pipeline.prediction.new_clips import NewClip
    from mvemo.pipeline.prediction.predictions import Prediction

model_options = together(
    [
        model_option,
        click.option(
            "--modality",
            type=click.Choice(["audio", "video", "both"]),
            default="both",
            help="Read only sound, only pictures, or both.",
        ),
        click.option(
            "--weights",
            "weight_files",
            multiple=True,
            metavar="NET=FILE",
            help="Use these instead of a net's downloaded weights; for an encoder, its folder.",
        ),
        device_option,
    ]
)


@click.command()
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="FILE|FOLDER|GLOB|LIST.csv...|FEATURES.h5",
    callback=lambda context, parameter, entries: tuple(map(refuse_address, entries)),
)
@model_options
@click.option(
    "--csv",
    "csv_file",
    type=OUT_FILE,
    help="Also write the predictions to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@flag("--jsonl", "Print a line of JSON for each clip as soon as it is done.")
@click.option(
    "--cache",
    "catalogue",
    type=OUT_FILE,
    help="Keep the clips' features in this file (.h5); the next call reads only new clips.",
)
@strict_option
@flag("--plan", "Only print the time and the memory that it would need.")
@flag(
    "--timeline",
    "Follow the emotion over time; write a page and a CSV file for each clip.",
)
@click.option(
    "--window", type=float, help="Length of the windows of --timeline in seconds.  [default: 20]"
)
@click.option("--hop", type=float, help="Seconds from one window to the next.  [default: 5]")
@click.option("--timeline-to", type=OUT_FOLDER, help="Folder for the pages.  [default: timelines]")
def predict(
    inputs: tuple[str, ...],
    catalogue: Path | None,
    plan: bool,
    timeline: bool,
    timeline_to: Path | None,
    **options: Any,
) -> int:
    """Predict the emotion of new clips: sound, videos, a list of them, or their features.

    A folder stands for all media files in it. LIST.csv needs a column path and no labels.
    FEATURES.h5, written by mvemo extract with the model's nets and settings, needs no
    media. A file that cannot be read is reported, and the others are predicted; if no clip
    can be predicted, the exit code is 2.

    Without --model, the default model of mvemo is used. The public weights that its nets
    need are downloaded once.

    \b
    Examples:
      mvemo predict song.mp3
      mvemo predict clips/ more/*.mp4 --model out/model --csv emotions.csv
      mvemo predict video.mp4 --timeline
      mvemo predict songs/ --cache songs.h5 --csv songs.csv    # each night
    """
    windows = {name: options.pop(name) for name in ("window", "hop")}
    names = ("csv_file", "as_json", "jsonl", "strict")
    chosen = {name: options.pop(name) for name in names}
    shown = ShowSettings(**chosen, facts=catalogue is not None)
    if shown.jsonl and shown.as_json:
        raise BadOption("--json, --jsonl: expected one of them, got both")
    for option, value in {**windows, "timeline-to": timeline_to}.items():
        if value is not None and not timeline:
            raise BadOption(f"--{option} {value} needs a timeline: add --timeline")
    if timeline and catalogue is not None:
        raise BadOption("--cache does not keep windows: leave out --cache or --timeline")
    features = [Path(entry) for entry in inputs if entry.lower().endswith(".h5")]
    if features:
        if len(inputs) > 1 or timeline or shown.facts:
            raise BadOption(
                f"{features[0]}: a feature file cannot be combined with other inputs, "
                "--timeline or --cache"
            )
        return _predict_features(features[0], options, shown)
    clips, folder, settings = clips_and_settings(inputs, **options)
    if plan:
        from mvemo.pipeline.prediction.run import plan_text

        click.echo(plan_text(folder, clips, settings))
        return 0
    if timeline:
        from mvemo.pipeline.prediction.timeline import TimelineSettings, write_timelines

        to = timeline_to or OUT_FOLDER.convert("timelines", None, None)
        given = TimelineSettings(**{k: v for k, v in windows.items() if v is not None})
        return _timelines(write_timelines(folder, clips, settings, given, to), shown)

    from mvemo.pipeline.prediction.run import predict_files

    on_clip = shown.echo_line if shown.jsonl else lambda model, prediction: None
    return _show(*predict_files(folder, clips, settings, catalogue, on_clip), shown)


def _predict_features(file: Path, options: dict[str, Any], shown: ShowSettings) -> int:
    from mvemo.pipeline.models.boxed import pick_model
    from mvemo.pipeline.prediction.predictions import predict_features

    modality = options["modality"]
    modalities = ("audio", "video") if modality == "both" else (modality,)
    model, predictions = predict_features(pick_model(options["model_name"]), file, modalities)
    for prediction in predictions if shown.jsonl else ():
        shown.echo_line(model, prediction)
    return _show(model, predictions, shown)


@dataclass(frozen=True)
class ShowSettings:
    """Requested outputs of the predictions; `facts` adds the facts that a catalogue stores."""

    csv_file: Path | None
    as_json: bool
    jsonl: bool
    strict: bool
    facts: bool = False

    def exit_code(self, failed: Sequence[bool]) -> int:
        """Return 2 if every clip failed, 1 if some failed under ``--strict``, otherwise 0."""
        return 2 if all(failed) else int(self.strict and any(failed))

    def echo_line(self, model: FinalModel, prediction: Prediction) -> None:
        """Print a prediction as one line of JSON."""
        from mvemo.pipeline.prediction.predictions import records

        (record,) = records(model, [prediction], facts=True)
        click.echo(json.dumps(record))


def _show(model: FinalModel, predictions: Sequence[Prediction], shown: ShowSettings) -> int:
    from mvemo.fuse.errors import FuseError
    from mvemo.manifests.files import dump_json, write_text
    from mvemo.pipeline.prediction.predictions import predictions_csv, predictions_table, records

    if shown.as_json:
        click.echo(dump_json(records(model, predictions, shown.facts)), nl=False)
    elif not shown.jsonl:
        click.echo(predictions_table(model, predictions))
    # The file is written last, so that an error does not lose the printed table.
    if shown.csv_file is not None:
        text = predictions_csv(model, predictions, shown.facts)
        write_text(shown.csv_file, text, error=FuseError)
    return shown.exit_code([bool(prediction.problem) for prediction in predictions])


def clips_and_settings(
    inputs: Sequence[str],
    model_name: str | None,
    modality: str,
    weight_files: tuple[str, ...],
    device: str,
) -> tuple[list[NewClip], Path, PredictSettings]:
    """Return the clips, the model's folder and the settings; download missing weights."""
    weights = dict(map(_net_and_file, weight_files))

    from mvemo.extract.media.isolated import start_readers
    from mvemo.extract.workers.process import imports_uncollected

    # The readers start while this process imports the modules below.
    start_readers()

    with imports_uncollected():
        from mvemo.extract.training.devices import keep_freed_memory, pick_device
        from mvemo.pipeline.model_nets import fetch_model_weights
        from mvemo.pipeline.models.boxed import pick_model
        from mvemo.pipeline.prediction.feature_maker import PredictSettings
        from mvemo.pipeline.prediction.new_clips import find_clips, modalities_of

    keep_freed_memory()
    # The device is checked before anything is downloaded or read.
    pick_device(device)
    folder, clips = pick_model(model_name), find_clips(inputs)
    modalities = modalities_of(clips) if modality == "both" else (modality,)
    fetch_model_weights(folder, modalities, but=weights)
    return clips, folder, PredictSettings(modalities, weights, device)


def _timelines(
    followed: Iterator[tuple[FinalModel, str, list[Record]]], shown: ShowSettings
) -> int:
    """Print the timeline of each clip and return the exit code."""
    from mvemo.fuse.errors import FuseError
    from mvemo.manifests.files import dump_json, write_text
    from mvemo.pipeline.prediction.timeline import windows_csv

    windows: list[Record] = []
    failed: list[bool] = []
    for model, line, records in followed:  # noqa: B007
        # If JSON is printed to stdout, the line goes to stderr.
        click.echo(line) if not (shown.as_json or shown.jsonl) else tell(line)
        for record in records if shown.jsonl else ():
            click.echo(json.dumps(record))
        windows += records
        failed.append("start" not in records[0])
    if shown.as_json:
        click.echo(dump_json(windows), nl=False)
    if shown.csv_file is not None:
        write_text(shown.csv_file, windows_csv(model, windows), error=FuseError)
    return shown.exit_code(failed)


def _net_and_file(entry: str) -> tuple[str, Path]:
    """Split ``NET=FILE`` and check that the file exists."""
    net, equals, file = entry.partition("=")
    if not equals or not net:
        raise BadOption(f"--weights {entry!r}: write it as NET=FILE, such as i3d=weights.npz")
    if not Path(file).exists():
        raise BadOption(f"--weights {entry!r}: there is no file or folder {file}")
    return net, Path(file)


@click.command()
@click.argument("file", type=PATH)
@model_options
@click.option("--of", "output", help="Class, tag or target to explain.  [default: predicted]")
@click.option("--step", default=1.0, help="Seconds from range to range.")
@click.option("--width", default=3.0, help="Length of a time range in seconds.")
@click.option(
    "--to",
    type=OUT_FILE,
    help="Page to write.  [default: NAME.explained.html]",
)
def explain(
    file: Path, output: str | None, step: float, width: float, to: Path | None, **options: Any
) -> int:
    """Show which seconds and which frames of FILE drove the model's decision.

    Time ranges of the sound and of the pictures are left out one after the other, and the clip
    is predicted again. The page shows how much each range adds, the sound, and the frames.

    \b
    Example:
      mvemo explain song.mp3 --to why.html
    """
    page = to or OUT_FILE.convert(f"{file.stem}.explained.html", None, None)
    clips, folder, settings = clips_and_settings([str(file)], **options)

    from mvemo.fuse.errors import FuseError
    from mvemo.manifests.files import write_text
    from mvemo.pipeline.prediction import explain
    from mvemo.pipeline.prediction.feature_maker import FeatureMaker

    occlusion = explain.ExplainSettings(step, width, output)
    if len(clips) != 1 or clips[0].problem:
        raise BadOption(f"{file}: {clips[0].problem or 'expected one media file'}")
    maker = FeatureMaker(folder, settings)
    maker.features()
    explanation = explain.explain_clip(maker, clips[0], occlusion)
    write_text(page, explain.explanation_html(maker.model, explanation), error=FuseError)
    click.echo(explain.explanation_text(explanation))
    click.echo(f"page: {page}")
    return 0


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FOLDER]...")
def models(names: tuple[str, ...]) -> None:
    """List the models that come with mvemo, or print the cards of models, including your own.

    A card states the training data of a model, its licence, how well it predicted clips that
    were left out, and unsuitable uses.

    \b
    Examples:
      mvemo models
      mvemo models film-music
      mvemo models out/model
    """
    from mvemo.pipeline.models.boxed import (
        DEFAULT,
        boxed_names,
        card_text,
        model_folder,
        summary_lines,
    )

    if names:
        click.echo("\n\n".join(card_text(name, model_folder(name)) for name in names))
        return
    for name in boxed_names():
        click.echo("\n".join(summary_lines(name, model_folder(name))))
    click.echo(
        f"\n'mvemo predict FILE' uses {DEFAULT}; --model selects another NAME or a FOLDER."
        "\n'mvemo models NAME' prints a model's card."
    )
