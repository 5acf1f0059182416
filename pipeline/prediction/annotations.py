"""Timelines as annotation files for other programs.

Each window stands for the time from the midpoint to the previous window to the midpoint to the
next; neighbours of the same label are joined. Times are in seconds from the clip's start.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from mvemo.fuse.final.clip_prediction import Record
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.report.text import page_templates
from mvemo.manifests.files import write_text
from mvemo.pipeline.prediction.page import TEMPLATES

if TYPE_CHECKING:
    from mvemo.pipeline.prediction.timeline import Timeline

# (start, stop, text)
Interval = tuple[float, float, str]
EMOTION = "emotion"


def tiers_of(model: FinalModel, timeline: Timeline) -> dict[str, list[Interval]]:
    """Return the labels as the tier ``emotion``, and the ratings as one tier for each target."""
    middles = [(start + stop) / 2 for start, stop in timeline.windows]
    ends = [(a + b) / 2 for a, b in itertools.pairwise(middles)]
    times = zip([0.0, *ends], [*ends, timeline.seconds], strict=True)
    spans = dict(zip(timeline.windows, times, strict=True))
    written = format_of(model)
    targets = model.classes if model.task == "regression" else ()
    tiers: dict[str, list[Interval]] = {name: [] for name in (EMOTION, *targets)}
    for window, predictor, prediction in timeline.predicted():
        start, stop = spans[window]
        label = written.brief(predictor, prediction.outputs)
        before = tiers[EMOTION][-1] if tiers[EMOTION] else None
        if before is not None and before[1:] == (start, label):
            start = tiers[EMOTION].pop()[0]
        tiers[EMOTION].append((start, stop, label))
        for target, value in zip(targets, prediction.outputs, strict=False):
            tiers[target].append((*spans[window], f"{value:.3f}"))
    return tiers


def _stamp(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"


def _without_gaps(intervals: Sequence[Interval], end: float) -> list[Interval]:
    """Fill gaps with empty intervals, because a tier of Praat must cover the whole duration."""
    filled: list[Interval] = []
    time = 0.0
    for start, stop, text in [*intervals, (end, end, "")]:
        if start > time:
            filled.append((time, start, ""))
        if stop > start:
            filled.append((start, stop, text))
        time = stop
    return filled


def _jams(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    def annotation(namespace: str, intervals: Sequence[tuple[float, float, object]]) -> Record:
        data = [
            {"time": start, "duration": stop - start, "value": value, "confidence": None}
            for start, stop, value in intervals
        ]
        tools = {"annotation_tools": "mvemo", "data_source": "program"}
        return {
            "namespace": namespace,
            "data": data,
            "annotation_metadata": tools,
            "sandbox": {},
            "time": 0,
            "duration": timeline.seconds,
        }

    annotations = [annotation("segment_open", tiers[EMOTION])]
    if {"valence", "arousal"} <= tiers.keys():
        pairs = zip(tiers["valence"], tiers["arousal"], strict=True)
        values = [(start, stop, [float(v), float(a)]) for (start, stop, v), (_, _, a) in pairs]
        annotations.append(annotation("mood_thayer", values))
    metadata = {"title": Path(timeline.file).name, "duration": timeline.seconds}
    content = {"annotations": annotations, "file_metadata": metadata, "sandbox": {}}
    return json.dumps(content, indent=1) + "\n"


# Name of a format to the suffix of its files; all but JAMS are templates.
FORMATS = {
    "audacity": ".labels.txt",
    "elan": ".eaf",
    "jams": ".jams",
    "praat": ".TextGrid",
    "srt": ".srt",
    "webvtt": ".vtt",
}


def write_annotations(
    model: FinalModel, timeline: Timeline, path: Path, formats: Sequence[str]
) -> list[Path]:
    """Write a timeline in some of `FORMATS`, next to its page `path`; return the files."""
    tiers = tiers_of(model, timeline)
    times = {round(1000 * t) for each in tiers.values() for interval in each for t in interval[:2]}
    values = {
        "emotions": tiers[EMOTION],
        "tiers": tiers,
        "slots": {time: number for number, time in enumerate(sorted(times), 1)},
        "seconds": timeline.seconds,
        "media": Path(timeline.file).name,
        "escape": escape,
        "stamp": _stamp,
        "thousandths": lambda seconds: round(1000 * seconds),
        "without_gaps": _without_gaps,
    }
    files = [Path(f"{path}{FORMATS[name]}") for name in formats]
    for name, file in zip(formats, files, strict=True):
        if name == "jams":
            write_text(file, _jams(tiers, timeline))
        else:
            template = page_templates(TEMPLATES).get_template(f"timeline{FORMATS[name]}")
            write_text(file, template.render(values))
    return files
