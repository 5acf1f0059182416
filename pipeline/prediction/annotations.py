"""Timelines as annotation files for other programs.

Each window stands for the time from half-way to its neighbour before to half-way to the one
after; neighbours of the same label are joined. Times are in seconds from the clip's start.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from mvemo.fuse.final.clip_prediction import Record
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.files import write_text

if TYPE_CHECKING:
    from mvemo.pipeline.prediction.timeline import Timeline

# (start, stop, text)
Interval = tuple[float, float, str]
EMOTION = "emotion"
_SCHEMAS = "http://www.w3.org/2001/XMLSchema-instance"
_EAF_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"


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


def _audacity(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    lines = (f"{start:.6f}\t{stop:.6f}\t{text}\n" for start, stop, text in tiers[EMOTION])
    return "".join(lines)


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"


def _webvtt(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    cues = (
        f"\n{_clock(start, '.')} --> {_clock(stop, '.')}\n{escape(text)}\n"
        for start, stop, text in tiers[EMOTION]
    )
    return "WEBVTT\n" + "".join(cues)


def _srt(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    return "\n".join(
        f"{i}\n{_clock(start, ',')} --> {_clock(stop, ',')}\n{text}\n"
        for i, (start, stop, text) in enumerate(tiers[EMOTION], 1)
    )


def _praat(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    end = timeline.seconds
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end!r}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for n, (name, intervals) in enumerate(tiers.items(), 1):
        filled = _without_gaps(intervals, end)
        lines += [f"    item [{n}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end!r}"]
        lines += [f"        intervals: size = {len(filled)}"]
        for i, (start, stop, text) in enumerate(filled, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {start!r}"]
            lines += [f"            xmax = {stop!r}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _without_gaps(intervals: Sequence[Interval], end: float) -> list[Interval]:
    """Return the intervals with empty ones between them: tiers of Praat cover all the time."""
    filled: list[Interval] = []
    time = 0.0
    for start, stop, text in [*intervals, (end, end, "")]:
        if start > time:
            filled.append((time, start, ""))
        if stop > start:
            filled.append((start, stop, text))
        time = stop
    return filled


def _elan(tiers: Mapping[str, Sequence[Interval]], timeline: Timeline) -> str:
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        AUTHOR="mvemo",
        DATE="1970-01-01T00:00:00+00:00",
        FORMAT="3.0",
        VERSION="3.0",
        attrib={f"{{{_SCHEMAS}}}noNamespaceSchemaLocation": _EAF_SCHEMA},
    )
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    media = Path(timeline.file).name
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=media, MIME_TYPE="unknown")
    order = ElementTree.SubElement(root, "TIME_ORDER")
    slots: dict[int, str] = {}
    times = {
        round(1000 * t) for each in tiers.values() for start, stop, _ in each for t in (start, stop)
    }
    for n, time in enumerate(sorted(times), 1):
        slots[time] = f"ts{n}"
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{n}", TIME_VALUE=str(time))
    n = 0
    for name, intervals in tiers.items():
        tier = ElementTree.SubElement(root, "TIER", TIER_ID=name, LINGUISTIC_TYPE_REF="default-lt")
        for start, stop, text in intervals:
            n += 1
            holder = ElementTree.SubElement(tier, "ANNOTATION")
            one = ElementTree.SubElement(
                holder,
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{n}",
                TIME_SLOT_REF1=slots[round(1000 * start)],
                TIME_SLOT_REF2=slots[round(1000 * stop)],
            )
            ElementTree.SubElement(one, "ANNOTATION_VALUE").text = text
    ElementTree.SubElement(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID="default-lt",
        TIME_ALIGNABLE="true",
    )
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


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


# Name of a format to the suffix of its files and the function that writes their text.
FORMATS: dict[str, tuple[str, Callable[[Mapping[str, Sequence[Interval]], Timeline], str]]] = {
    "audacity": (".labels.txt", _audacity),
    "elan": (".eaf", _elan),
    "jams": (".jams", _jams),
    "praat": (".TextGrid", _praat),
    "srt": (".srt", _srt),
    "webvtt": (".vtt", _webvtt),
}


def write_annotations(
    model: FinalModel, timeline: Timeline, path: Path, formats: Sequence[str]
) -> list[Path]:
    """Write a timeline in some of `FORMATS`, next to its page `path`; return the files."""
    tiers = tiers_of(model, timeline)
    files = []
    for name in formats:
        suffix, text_of = FORMATS[name]
        files.append(Path(f"{path}{suffix}"))
        write_text(files[-1], text_of(tiers, timeline))
    return files
