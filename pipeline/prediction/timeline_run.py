"""Timelines of several clips, written to a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mvemo.extract.errors import ExtractError
from mvemo.fuse.errors import FuseError
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.files import replacing_together, write_text
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.formats import Record, format_of
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.page import clock
from mvemo.pipeline.prediction.run import PredictSettings, find_ways
from mvemo.pipeline.prediction.timeline import (
    Timeline,
    TimelineSettings,
    follow_clip,
    page_names,
    window_records,
    windows_csv,
)
from mvemo.pipeline.prediction.timeline_page import timeline_html


def write_timelines(
    folder: Path,
    clips: Sequence[NewClip],
    settings: PredictSettings,
    timeline: TimelineSettings,
    to: Path,
) -> Iterator[tuple[FinalModel, str, list[Record]]]:
    """Predict the timelines of clips, and write ``NAME.html`` and ``NAME.csv`` for each.

    Yields for each clip the model, a line about the written files or the problem, and the records
    of the windows. A clip that was not predicted has one record with an error.
    """
    maker = FeatureMaker(load_model(folder), folder, settings.weights, settings.device)
    if not all(clip.problem for clip in clips):
        find_ways(maker, settings.modalities)
    to.mkdir(parents=True, exist_ok=True)
    names = page_names(to, [clip.file for clip in clips])
    for clip, name in zip(clips, names, strict=True):
        problem = clip.problem
        try:
            if not problem:
                followed = follow_clip(maker, clip, settings.modalities, timeline)
                if all(p.predictor is None for p in followed.predictions):
                    problem = followed.predictions[0].problem
        except ExtractError as error:
            problem = str(error).removeprefix(f"{clip.path}: ")
        if problem:
            record: Record = {"path": clip.file, "error": problem}
            yield maker.model, f"not predicted: {clip.file}: {problem}", [record]
            continue
        html, table = Path(f"{name}.html"), Path(f"{name}.csv")
        records = window_records(maker.model, followed)
        with replacing_together(to, error=FuseError) as new:
            write_text(new / html.name, timeline_html(maker.model, followed), error=FuseError)
            write_text(new / table.name, windows_csv(maker.model, records), error=FuseError)
        line = f"{clip.file}: {_summary(maker, followed)}: {html} and {table}"
        yield maker.model, line, records


def _summary(maker: FeatureMaker, followed: Timeline) -> str:
    """Return the length and the first labels with their starts: '4:00, Fear from 0:00'."""
    written = format_of(maker.model)
    spells: list[tuple[str, float]] = []
    for (start, stop), p in zip(followed.windows, followed.predictions, strict=True):
        if p.predictor is not None:
            brief = written.brief(p.predictor, p.outputs)
            if not spells or spells[-1][0] != brief:
                # A window stands for its middle.
                spells.append((brief, (start + stop) / 2 if spells else 0.0))
    listed = ", ".join(f"{name} from {clock(start)}" for name, start in spells[:4])
    n_more = len(spells) - 4
    more = f" and {n_more} turn{'s' * (n_more > 1)} more" if n_more > 0 else ""
    return f"{clock(followed.seconds)}, {listed}{more}"
