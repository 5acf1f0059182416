"""Timeline of a long clip: a prediction for each of many overlapping windows."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.media.checks import reasons_text
from mvemo.extract.media.isolated import probe_isolated
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.csv_files import CsvWriter
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.formats import Record, format_of
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.passes import ClipPass, Sketch
from mvemo.pipeline.prediction.predictions import Prediction
from mvemo.pipeline.prediction.run import predict_vectors
from mvemo.pipeline.prediction.streams import Span, StreamPlan

# Largest number of turns on a page; they are at least half a window apart.
MOST_TURNS = 8
# Smallest `Format.distance` of a turn.
LEAST_TURN = 0.2
# Length in seconds of the longest clip whose page contains the sound.
MOST_SOUND = 1200.0
# Views of several frames in each window, as dense as in a clip of 30 s.
VIEWS_PER_WINDOW = 2


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


def clip_seconds(clip: NewClip) -> float:
    """Return the length of a clip in seconds; raise ExtractError if it cannot be read."""
    length = probe_isolated(clip.path) - clip.start
    if length <= 0:
        raise ExtractError(
            f"{clip.path}: the clip starts at {clip.start:g} s, after its file's end"
        )
    return length if clip.duration is None else min(length, clip.duration)


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
