"""Page of a timeline: curves over the waveform, thumbnails, and the largest turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.final.model import FinalModel
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.formats import format_of
from mvemo.pipeline.prediction.output import legend
from mvemo.pipeline.prediction.timeline import Timeline, turns_of

# Number of thumbnails on the page.
N_THUMBNAILS = 12


def timeline_html(model: FinalModel, timeline: Timeline) -> str:
    """Return a timeline as one self-contained HTML page."""
    predicted = [
        (window, prediction)
        for window, prediction in zip(timeline.windows, timeline.predictions, strict=True)
        if prediction.predictor is not None
    ]
    written = format_of(model)
    middles = [sum(window) / 2 for window, _ in predicted]
    outputs = np.array([p.outputs for _, p in predicted]).reshape(len(predicted), -1)
    span = written.output_range()
    curves = [
        {
            "name": name,
            "colour": page.COLOURS[i % len(page.COLOURS)],
            "points": page.polyline(middles, outputs[:, i], timeline.seconds, span),
            "mean": float(outputs[:, i].mean()),
        }
        for i, name in enumerate(model.classes)
        if len(predicted)
    ]
    return (
        page.environment()
        .get_template("timeline.html")
        .render(
            timeline=timeline,
            title=Path(timeline.file).name,
            curves=curves,
            span=span,
            waveform=page.waveform_path(timeline.sketch),
            thumbnails=_thumbnails(timeline),
            ticks=page.ticks(timeline.seconds),
            audio=page.sound_url(timeline.sketch),
            turns=turns_of(model, timeline),
            strip=_strip(model, timeline),
            readout=_readout(model, timeline),
            notes=_notes(timeline),
            legend=legend(model, timeline.predictions),
            window=max((stop - start for start, stop in timeline.windows), default=0.0),
            width=page.WIDTH,
            height=page.HEIGHT,
            wave_height=page.WAVE_HEIGHT,
        )
    )


def _thumbnails(timeline: Timeline) -> list[tuple[float, str]]:
    """Return time and data URL of some thumbnails, evenly spread."""
    pictures = timeline.sketch.thumbnails
    rows = np.unique(np.linspace(0, len(pictures) - 1, N_THUMBNAILS).round().astype(int))
    return [(pictures[r][0], page.picture_url(pictures[r][1])) for r in rows] if pictures else []


def _strip(model: FinalModel, timeline: Timeline) -> list[dict[str, Any]]:
    """Return x, width, colour and name of the stretches of one label; empty without classes."""
    written = format_of(model)
    stretches: list[dict[str, Any]] = []
    for row, ((start, stop), p) in enumerate(
        zip(timeline.windows, timeline.predictions, strict=True)
    ):
        # A window stands for the time from its middle to the middle of the next one.
        middle = (start + stop) / 2
        begin = 0.0 if row == 0 else middle
        if p.predictor is None:
            continue
        brief = written.brief(p.predictor, p.outputs)
        if brief not in model.classes:
            return []
        if stretches and stretches[-1]["name"] == brief:
            continue
        colour = page.COLOURS[model.classes.index(brief) % len(page.COLOURS)]
        stretches.append({"name": brief, "begin": begin, "colour": colour})
    for this, after in zip(stretches, [*stretches[1:], None], strict=True):
        end = timeline.seconds if after is None else after["begin"]
        this["x"] = page.WIDTH * this["begin"] / timeline.seconds
        this["width"] = page.WIDTH * (end - this["begin"]) / timeline.seconds
    return stretches


def _readout(model: FinalModel, timeline: Timeline) -> list[dict[str, Any]]:
    """Return the middle and the headline of each window, for the text under the pointer."""
    written = format_of(model)
    return [
        {
            "t": round((start + stop) / 2, 2),
            "text": "not predicted"
            if p.predictor is None
            else written.headline(p.predictor, p.outputs),
        }
        for (start, stop), p in zip(timeline.windows, timeline.predictions, strict=True)
    ]


def _notes(timeline: Timeline) -> list[str]:
    """Return each note once, with the number of its windows."""
    counts: dict[str, int] = {}
    for prediction in timeline.predictions:
        for note in (*prediction.notes, prediction.problem):
            if note:
                # Distances differ from window to window.
                short = note.partition(" (distance")[0]
                counts[short] = counts.get(short, 0) + 1
    total = len(timeline.predictions)
    return [f"{n} of {total} windows: {note}" for note, n in counts.items()]
