"""Commands ``mvemo predict`` and ``explain``: the emotion of new clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import in_json, log_event, tell

if TYPE_CHECKING:
    from mvemo.fuse.final.clip_prediction import ClipPrediction, Record
    from mvemo.fuse.final.model import FinalModel

# Names of `mvemo.pipeline.prediction.annotations.FORMATS`, so that --help need not import it.
ANNOTATIONS = ("audacity", "elan", "jams", "praat", "srt", "webvtt")
model_options = common.together(
    [
        common.model_option,
        typed_option(
            "--modality",
            click.Choice(["audio", "video", "both"]),
            "Read only sound, only pictures, or both.",
            default="both",
        ),
        common.weights_option(
            "Use these instead of a net's downloaded weights; for an encoder its folder, file or "
            "hear:MODULE."
        ),
        common.device_option,
    ]
)


@click.command()
@argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="FILE|FOLDER|GLOB|LIST.csv...|FEATURES.h5",
    type=common.ENTRY,
)
@common.column_option
@model_options
@typed_option(
    "--csv csv_file", common.TABLE_FILE, "Also write the predictions to this file (.csv, .parquet)."
)
@option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@common.flag("--jsonl", "Print a line of JSON for each clip as soon as it is done.")
@typed_option(
    "--cache catalogue",
    common.OUT_FILE,
    "Keep the clips' features in this file (.h5); the next call reads only new clips.",
)
@typed_option(
    "--coverage",
    float,
    "Add sets of classes or tags, or intervals, that hold the truth for this share "
    "of new clips, such as 0.9.",
)
@common.flag("--per-class", "With --coverage: hold the truth for this share of each class or tag.")
@common.flag(
    "--jointly", "With --coverage: hold all ratings of a clip at once for this share of clips."
)
@common.flag("--relative", "Add ranks and scores among the clips of this call (at least 10).")
@typed_option("--jobs", common.COUNT, "Number of processes that share the clips.", default=1)
@common.shard_option("Predict only part i of n of the clips, for n separate jobs.")
@common.backend_options
@common.rehash_option
@common.strict_option
@common.flag("--plan", "Only print the time and the memory that it would need.")
@common.flag(
    "--timeline",
    "Follow the emotion over time; write a page and a CSV file for each clip.",
)
@typed_option("--window", float, "Length of the windows of --timeline in seconds.  [default: 20]")
@typed_option("--hop", float, "Seconds from one window to the next.  [default: 5]")
@typed_option(
    "--annotations",
    click.Choice(ANNOTATIONS),
    "Also write each timeline as a file of labels for another program.  [repeatable]",
    multiple=True,
)
@typed_option("--timeline-to", common.OUT_FOLDER, "Folder for the pages.  [default: timelines]")
def predict(
    inputs: tuple[str, ...],
    plan: bool,
    timeline: bool,
    timeline_to: Path | None,
    **options: Any,
) -> int:
    """Predict the emotion of new clips: sound, videos, a list of them, or their features.

    A folder stands for all media files in it. LIST.csv needs a column path and no labels;
    --column names it if it is not recognised.
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
      mvemo predict songs/ --relative
    """
    windows = {name: options.pop(name) for name in ("window", "hop")}
    windows["annotations"] = options.pop("annotations") or None
    shown = {n: options.pop(n) for n in ("csv_file", "as_json", "jsonl", "strict", "relative")}
    form = {name: options.pop(name) for name in ("per_class", "jointly")}
    if options["coverage"] is not None or any(form.values()):
        from mvemo.fuse.final.model import asked_of

        options["coverage"] = asked_of(options["coverage"], **form)
    for name, value in {**windows, "timeline-to": timeline_to}.items():
        if value is not None and not timeline:
            text = " ".join(value) if isinstance(value, tuple) else value
            raise BadOption(f"--{name} {text} needs a timeline: add --timeline")
    options["scheduler"] = common.scheduler_of(options)
    del options["backend"]
    _refuse_conflicts(options, shown, timeline=timeline, plan=plan)

    from mvemo.pipeline.prediction import request

    asked = request.PredictRequest(inputs, **options)
    if asked.features is not None:
        is_spread = asked.shard or asked.jobs > 1 or asked.scheduler
        if len(inputs) > 1 or timeline or is_spread or asked.catalogue or asked.columns:
            raise BadOption(
                f"{asked.features}: a feature file cannot be combined with other inputs, "
                "--timeline, --cache or --column"
            )
        common.INPUT.convert(asked.features, None, None)
    elif plan:
        from mvemo.pipeline.prediction import estimate

        click.echo(estimate.plan_text(asked))
        return 0
    elif timeline:
        to = timeline_to or common.OUT_FOLDER.convert("timelines", None, None)
        given = {name: value for name, value in windows.items() if value is not None}
        return _show_timelines(request.timelines(asked, given, to), shown)
    on_clip = _log_clip if in_json() else None
    if shown["jsonl"] and not shown["relative"]:
        on_clip = _echo_line
    model, found = request.predict(asked, on_clip)
    shown["works"] = [Path(entry) / ".mvemo" for entry in inputs]
    return _show(model, found, shown, facts=asked.catalogue is not None)


def _refuse_conflicts(
    options: Mapping[str, Any], shown: Mapping[str, Any], *, timeline: bool, plan: bool
) -> None:
    """Raise `BadOption` for options that cannot be combined."""
    unspread = {"shard": None, "jobs": 1, "scheduler": ""}
    spread = [f"--{n} {options[n]}" for n, default in unspread.items() if options[n] != default]
    whole = {
        "coverage": (options["coverage"], "holds for whole clips"),
        "relative": (shown["relative"] or None, "compares whole clips"),
        "cache": (options["catalogue"], "does not keep windows"),
    }
    if shown["jsonl"] and shown["as_json"]:
        raise BadOption("--json, --jsonl: expected one of them, got both")
    for name, (value, why) in whole.items():
        if timeline and value is not None:
            raise BadOption(f"--{name} {why}: leave out --{name} or --timeline")
    # Each shard would drop the clips of all other shards from the catalogue.
    kept = options["shard"] is not None and options["catalogue"] is not None
    if spread and (timeline or plan or kept):
        other = "--timeline" if timeline else "--plan" if plan else "--cache"
        raise BadOption(f"{spread[0]} cannot be combined with {other}: leave out one of them")
    if options["jobs"] > 1 and options["scheduler"]:
        raise BadOption(f"{spread[-2]}: the scheduler has its own processes: leave out --jobs")


def _echo_line(model: FinalModel, prediction: ClipPrediction) -> None:
    from mvemo.fuse.final.prediction_records import records

    click.echo(json.dumps(records(model, [prediction], facts=True)[0]))
    _log_clip(model, prediction)


def _log_clip(model: FinalModel, prediction: ClipPrediction) -> None:
    seconds = prediction.facts.get("seconds")
    log_event("clip", clip=prediction.path, seconds=seconds, reason=prediction.error or None)


def _show(
    model: FinalModel, predictions: Sequence[ClipPrediction], shown: dict[str, Any], facts: bool
) -> int:
    """Print the predictions; `facts` adds the facts that a catalogue stores."""
    from mvemo.fuse.final.prediction_records import record_rows, records
    from mvemo.pipeline.prediction import relative, wording

    _, predictions = relative.compared(model, predictions, shown["relative"], "add --relative")
    # With --relative, lines can only be printed when all clips are predicted.
    for prediction in predictions if shown["jsonl"] and shown["relative"] else ():
        _echo_line(model, prediction)
    found = records(model, predictions, facts)
    if not (shown["as_json"] or shown["jsonl"]):
        measured = wording.judged_words(wording.judged_in(shown["works"], predictions, model.task))
        click.echo(wording.predictions_table(model, predictions, measured))
    failed = [bool(prediction.error) for prediction in predictions]
    log_event("summary", clips=len(failed), failed=sum(failed), model=model.name)
    table = record_rows(model, found)
    return _finish(shown, found, table, failed)


def _show_timelines(
    followed: Iterator[tuple[FinalModel, str, list[Record]]], shown: dict[str, Any]
) -> int:
    from mvemo.fuse.final.prediction_records import window_rows

    windows = []
    failed = []
    for model, line, records in followed:  # noqa: B007
        # If JSON is printed to stdout, the line goes to stderr.
        click.echo(line) if not (shown["as_json"] or shown["jsonl"]) else tell(line)
        for record in records if shown["jsonl"] else ():
            click.echo(json.dumps(record))
        windows += records
        failed.append("start" not in records[0])
    return _finish(shown, windows, window_rows(model, windows), failed)


def _finish(
    shown: dict[str, Any],
    records: Sequence[Mapping[str, Any]],
    table: list[list[object]],
    failed: list[bool],
) -> int:
    """Print the JSON and write the table if requested; return the exit code."""
    from mvemo.manifests.files import dump_json
    from mvemo.pipeline.table_files import write_rows

    if shown["as_json"]:
        click.echo(dump_json(records), nl=False)
    # The file is written last, so that an error does not lose the printed table.
    if shown["csv_file"] is not None:
        write_rows(shown["csv_file"], table)
    # A shard may have no clips.
    return 2 if failed and all(failed) else int(shown["strict"] and any(failed))


@click.command()
@argument("file", type=common.PATH)
@model_options
@option("--of", "output", help="Class, tag or target to explain.  [default: predicted]")
@option("--step", default=1.0, help="Seconds from range to range.")
@option("--width", default=3.0, help="Length of a time range in seconds.")
@typed_option("--to", common.OUT_FILE, "Page to write.  [default: NAME.explained.html]")
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
    page = to or common.OUT_FILE.convert(f"{file.stem}.explained.html", None, None)

    from mvemo.pipeline.prediction import request

    maker, clip = request.open_clip(request.PredictRequest([str(file)], **options))

    from mvemo.manifests.files import write_text
    from mvemo.pipeline.prediction import explain

    explanation = explain.explain_clip(maker, clip, explain.ExplainSettings(step, width, output))
    click.echo(explain.explanation_text(explanation))
    write_text(page, explain.explanation_html(maker.model, explanation))
    click.echo(f"page: {page}")
    return 0
