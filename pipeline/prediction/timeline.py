"""Timeline of a long clip: a prediction for each of many overlapping windows."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.media.checks import reasons_text
from mvemo.fuse.errors import FuseError
from mvemo.fuse.final.files import load_model
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.files import replacing_together, write_text
from mvemo.manifests.tables import CsvWriter
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.batches import clip_seconds
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.formats import Record, format_of
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.passes import ClipPass, Sketch
from mvemo.pipeline.prediction.predictions import Prediction, legend
from mvemo.pipeline.prediction.run import PredictSettings, find_ways, predict_vectors
from mvemo.pipeline.prediction.streams import Span, StreamPlan

# Largest number of turns on a page; they are at least half a window apart.
MOST_TURNS = 8
# Smallest `Format.distance` of a turn.
LEAST_TURN = 0.2
# Length in seconds of the longest clip whose page contains the sound.
MOST_SOUND = 1200.0
# Views of several frames in each window, as dense as in a clip of 30 s.
VIEWS_PER_WINDOW = 2
# Number of thumbnails on the page.
N_THUMBNAILS = 12


@dataclass(frozen=True)
class TimelineSettings:
    """Settings of the windows of a timeline.

    Parameters
    ----------
    window, hop
        Length and hop of the windows, in seconds.

    Raises
    ------
    BadOption
        A number is out of range.
    """

    window: float = 20.0
    hop: float = 5.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.window <= 600.0:
            raise BadOption(f"--window {self.window:g}: from 1 to 600 seconds")
        if not 0.5 <= self.hop <= self.window:
            raise BadOption(
                f"--hop {self.hop:g}: from 0.5 seconds to the length of a window, {self.window:g}"
            )

    def windows(self, seconds: float) -> tuple[Span, ...]:
        """Return (start, stop) of the windows of a clip in seconds; the last may be shorter.

        Examples
        --------
        >>> TimelineSettings(window=4.0, hop=2.0).windows(7.0)
        ((0.0, 4.0), (2.0, 6.0), (4.0, 7.0))
        >>> TimelineSettings(window=4.0, hop=2.0).windows(3.0)
        ((0.0, 3.0),)
        """
        starts = np.arange(0.0, max(seconds - self.window / 2, self.hop / 2), self.hop)
        spans = [(float(s), float(min(s + self.window, seconds))) for s in starts]
        # Leave out a window that ends where the one before it ends.
        return tuple(span for i, span in enumerate(spans) if not i or span[1] > spans[i - 1][1])


@dataclass(frozen=True)
class Turn:
    """Time at which the predicted emotion changes."""

    time: float  # in seconds
    before: str  # prediction of the window that ends there
    after: str  # prediction of the window that begins there
    change: float  # `Format.distance` of both
    loudness: float  # loudness of the next second, in dB of full scale


@dataclass(frozen=True)
class Timeline:
    """Predictions of the windows of one clip."""

    file: str  # name as given by the user
    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # (start, stop) in seconds from the clip's start
    predictions: tuple[Prediction, ...]  # one for each window
    sketch: Sketch


def follow_clip(
    maker: FeatureMaker,
    clip: NewClip,
    modalities: tuple[str, ...],
    settings: TimelineSettings,
) -> Timeline:
    """Predict every window of a clip in one pass over it.

    Memory does not grow with the length of the clip, except for the sound of a clip up to
    `MOST_SOUND`. If the sound or the pictures prove unusable only at the file's end, because the
    file is cut off, the clip is followed again without them.
    """
    seconds = clip_seconds(clip)
    windows = settings.windows(seconds)
    step = settings.window / VIEWS_PER_WINDOW
    plan = StreamPlan(seconds, windows, view_step=step)
    notes: tuple[str, ...] = ()
    while True:
        streams = maker.streams(modalities, plan)
        clip_pass = ClipPass(clip.path, clip.start, clip.duration, plan, streams, modalities)
        clip_pass.sketch.keep_sound = seconds <= MOST_SOUND
        predictions = []
        for row, vectors in clip_pass.windows():
            name = f"{clip.file}@{windows[row][0]:g}"
            prediction = predict_vectors(maker, name, vectors, clip_pass.problems)
            predictions.append(replace(prediction, notes=(*prediction.notes, *notes)))
        if not clip_pass.late:
            return Timeline(clip.file, seconds, windows, tuple(predictions), clip_pass.sketch)
        modalities = tuple(m for m in modalities if m not in clip_pass.problems)
        if not modalities or not maker.predictors(modalities):
            raise BadMedia(f"{clip.path}: {reasons_text(clip_pass.problems)}")
        notes = (*notes, f"without {reasons_text(clip_pass.late)}")


def turns_of(model: FinalModel, timeline: Timeline) -> list[Turn]:
    """Return the largest changes between adjacent windows, largest first."""
    written = format_of(model)
    rows = [i for i, p in enumerate(timeline.predictions) if p.predictor is not None]
    starts = np.array([timeline.windows[i][0] for i in rows])
    found: list[tuple[float, int, int]] = []
    for n, i in enumerate(rows):
        # Find the first window that begins where this one ends, or later.
        meets = n + int(np.searchsorted(starts[n:], timeline.windows[i][1] - 1e-6))
        if meets < len(rows):
            j = rows[meets]
            first, second = timeline.predictions[i].outputs, timeline.predictions[j].outputs
            found.append((written.distance(first, second), i, j))
    turns: list[Turn] = []
    length = max((stop - start for start, stop in timeline.windows), default=0.0)
    for change, i, j in sorted(found, key=lambda entry: -entry[0]):
        time = timeline.windows[j][0]
        near = any(abs(time - turn.time) < length / 2 for turn in turns)
        if change < LEAST_TURN or near or len(turns) == MOST_TURNS:
            continue
        names = []
        for prediction in (timeline.predictions[i], timeline.predictions[j]):
            assert prediction.predictor is not None
            names.append(written.brief(prediction.predictor, prediction.outputs))
        loudness = timeline.sketch.loudness(time, time + 1.0)
        turns.append(Turn(time, names[0], names[1], change, loudness))
    return turns


def window_records(model: FinalModel, timeline: Timeline) -> list[Record]:
    """Return a record for each window: path, start, stop, loudness in dB, and prediction."""
    found = []
    for (start, stop), prediction in zip(timeline.windows, timeline.predictions, strict=True):
        loudness = timeline.sketch.loudness(start, stop)
        record: Record = {
            "path": timeline.file,
            "start": round(start, 3),
            "stop": round(stop, 3),
            "loudness": round(loudness, 1) if np.isfinite(loudness) else None,
            "model": None if prediction.predictor is None else prediction.predictor.name,
        }
        record |= format_of(model).fields(prediction.predictor, prediction.outputs)
        record["notes"] = list(prediction.notes)
        found.append(record | ({"error": prediction.problem} if prediction.problem else {}))
    return found


def windows_csv(model: FinalModel, windows: Sequence[Record]) -> str:
    """Return a CSV text with a row for each window, or for a file with only an error."""
    written = format_of(model)
    text = io.StringIO(newline="")
    writer = CsvWriter(text)
    names = ("path", "start", "stop", "loudness", "model")
    writer.writerow([*names, *written.csv_columns(), "notes", "error"])
    for record in windows:
        cells = [*map(record.get, names), *written.csv_cells(defaultdict(lambda: None, record))]
        writer.writerow([*cells, "; ".join(record.get("notes", ())), record.get("error")])
    return text.getvalue()


def page_names(folder: Path, files: Sequence[str]) -> list[Path]:
    """Return a unique path without extension for each file.

    Examples
    --------
    >>> [path.name for path in page_names(Path("out"), ["a/x.mp3", "b/x.mp3", "y.tar.gz"])]
    ['x', 'x-2', 'y.tar']
    """
    names: list[Path] = []
    for file in files:
        # A segment is named 'song.mp3@30'.
        stem = Path(file).stem if "@" not in file else Path(file).name.replace("@", "-")
        path, number = folder / (stem or "clip"), 1
        while path in names:
            number += 1
            path = folder / f"{stem}-{number}"
        names.append(path)
    return names


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
    listed = ", ".join(f"{name} from {page.clock(start)}" for name, start in spells[:4])
    n_more = len(spells) - 4
    more = f" and {n_more} turn{'s' * (n_more > 1)} more" if n_more > 0 else ""
    return f"{page.clock(followed.seconds)}, {listed}{more}"
