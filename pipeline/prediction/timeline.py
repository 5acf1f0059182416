"""Timeline of a long clip: a prediction for each of many overlapping windows."""

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.errors import BadMedia
from mvemo.fuse.final.clip_prediction import ClipPrediction, Record
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import FinalModel, Predictor
from mvemo.fuse.final.prediction_records import records, window_rows
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import write_text
from mvemo.pipeline.console.messages import verbosity
from mvemo.pipeline.prediction import new_clips, page, run, wording
from mvemo.pipeline.prediction.annotations import write_annotations
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.predictions import unpredicted
from mvemo.pipeline.prediction.windows import Progress, Span, WindowPlan
from mvemo.pipeline.table_files import write_rows

# Maximum number of changes on a page; they are at least half a window apart.
MOST_CHANGES = 8
# Smallest `Format.distance` of a change.
LEAST_CHANGE = 0.2
# Maximum length of a clip, in seconds, whose page contains the sound.
MOST_SOUND = 1200.0


@dataclass(frozen=True)
class TimelineSettings:
    """Settings of the windows of a timeline."""

    window: float = 20.0  # length of the windows in seconds
    hop: float = 5.0  # seconds from one window to the next
    annotations: tuple[str, ...] = ()  # formats of further files, see `annotations.FORMATS`

    def __post_init__(self) -> None:
        if not 1.0 <= self.window <= 600.0:
            raise BadOption(f"--window {self.window:g}: expected 1 to 600 seconds")
        if not 0.5 <= self.hop <= self.window:
            raise BadOption(
                f"--hop {self.hop:g}: expected 0.5 to {self.window:g} (--window) seconds"
            )

    def windows(self, seconds: float) -> tuple[Span, ...]:
        """Return (start, stop) of the windows of a clip in seconds; the last may be shorter."""
        starts = np.arange(0.0, max(seconds - self.window / 2, self.hop / 2), self.hop)
        spans = [(float(s), float(min(s + self.window, seconds))) for s in starts]
        # Leave out a window that ends where the previous window ends.
        return tuple(span for i, span in enumerate(spans) if not i or span[1] > spans[i - 1][1])


@dataclass(frozen=True)
class Timeline:
    """Predictions of the windows of one clip, at least one of which was predicted."""

    file: str  # name as given by the user
    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # (start, stop) in seconds from the clip's start
    predictions: tuple[ClipPrediction, ...]  # one for each window
    sketch: page.Sketch

    @property
    def window(self) -> float:
        """Length of the longest window in seconds."""
        return max(stop - start for start, stop in self.windows)

    def predicted(self) -> list[tuple[Span, Predictor, ClipPrediction]]:
        pairs = zip(self.windows, self.predictions, strict=True)
        return [(window, p.predictor, p) for window, p in pairs if p.predictor is not None]

    def notes(self) -> list[str]:
        """Return the notes without repeats, each with the number of windows it applies to."""
        notes = Counter(note for p in self.predictions for note in (*p.notes, p.error) if note)
        return [f"{n} of {len(self.windows)} windows: {note}" for note, n in notes.items()]


def follow_clip(
    maker: FeatureMaker,
    clip: new_clips.NewClip,
    settings: TimelineSettings,
    progress: Progress = lambda share: None,
) -> Timeline:
    """Predict every window of a clip; memory does not grow beyond `MOST_SOUND`."""
    seconds = new_clips.clip_seconds(clip)
    spans = settings.windows(seconds)
    # Two views per window are as dense as the views of a clip of 30 s.
    plan = WindowPlan(seconds, spans, view_step=settings.window / 2)
    with maker.open(clip, plan, progress) as read:
        predictions = list[ClipPrediction]()
        for span in spans:
            progress(0.9 + 0.1 * len(predictions) / len(spans))
            file = f"{clip.file}@{span[0]:g}"
            predictions.append(run.predict_window(maker, read, file, read.vectors(span)))
        sketch = read.sketch(keep_sound=seconds <= MOST_SOUND)
    timeline = Timeline(clip.file, seconds, spans, tuple(predictions), sketch)
    if not timeline.predicted():
        raise BadMedia(f"{clip.path}: {predictions[0].error}")
    return timeline


def changes_of(model: FinalModel, timeline: Timeline) -> list[dict[str, Any]]:
    """Return the largest changes between adjacent windows, in descending order.

    A change has the ``time`` in seconds, the prediction of the window that ends there
    (``before``) and of the one that begins there (``after``), the ``distance`` between them
    (`Format.distance`), and the ``loudness`` of the next second in dB of full scale.
    """
    written, predicted = format_of(model), timeline.predicted()
    starts = [window[0] for window, _, _ in predicted]
    found: list[dict[str, Any]] = []
    for i, (window, predictor, prediction) in enumerate(predicted):
        # Find the first window that begins at or after the end of this window.
        meets = bisect_left(starts, window[1] - 1e-6, lo=i)
        if meets < len(predicted):
            (time, _), its_predictor, after = predicted[meets]
            found.append(
                {
                    "time": time,
                    "before": written.brief(predictor, prediction.outputs),
                    "after": written.brief(its_predictor, after.outputs),
                    "distance": written.distance(prediction.outputs, after.outputs),
                    "loudness": timeline.sketch.loudness(time, time + 1.0),
                }
            )
    changes: list[dict[str, Any]] = []
    for change in sorted(found, key=lambda change: -change["distance"]):
        far = all(abs(change["time"] - c["time"]) >= timeline.window / 2 for c in changes)
        if change["distance"] >= LEAST_CHANGE and far:
            changes.append(change)
    return changes[:MOST_CHANGES]


def window_records(model: FinalModel, timeline: Timeline) -> list[Record]:
    """Return a record for each window: path, start, stop, loudness in dB, and prediction."""
    found = []
    for span, record in zip(timeline.windows, records(model, timeline.predictions), strict=True):
        loudness = timeline.sketch.loudness(*span)
        start, stop = (round(second, 3) for second in span)
        loud = round(loudness, 1) if np.isfinite(loudness) else None
        times = {"path": timeline.file, "start": start, "stop": stop, "loudness": loud}
        found.append({**times, **record, "path": timeline.file})
    return found


def page_names(folder: Path, files: Sequence[str]) -> list[Path]:
    """Return a unique output path, without extension, for each file."""
    names: list[Path] = []
    for file in files:
        # A segment is named 'song.mp3@30'.
        stem = Path(file).stem if "@" not in file else Path(file).name.replace("@", "-")
        numbered = (folder / f"{stem}-{number}" for number in itertools.count(2))
        path = folder / (stem or "clip")
        names.append(path if path not in names else next(p for p in numbered if p not in names))
    return names


def timeline_html(model: FinalModel, timeline: Timeline) -> str:
    """Return a timeline as one self-contained HTML page."""
    predicted = timeline.predicted()
    written = format_of(model)
    middles = [sum(window) / 2 for window, _, _ in predicted]
    outputs = np.array([p.outputs for _, _, p in predicted])
    span = written.output_range()
    colours = dict(zip(model.classes, itertools.cycle(page.COLOURS)))
    curves = [
        {
            "name": name,
            "colour": colours[name],
            "points": page.polyline(middles, outputs[:, i], timeline.seconds, span),
        }
        for i, name in enumerate(model.classes)
    ]
    pictures = timeline.sketch.thumbnails
    rows = np.unique(np.linspace(0, len(pictures) - 1, 12).round().astype(int))
    # Text shown for the window whose middle is nearest to the pointer.
    readout = [
        {
            "t": round(sum(window) / 2, 2),
            "text": written.summary(p.predictor, p.outputs) if p.predictor else "not predicted",
        }
        for window, p in zip(timeline.windows, timeline.predictions, strict=True)
    ]
    runs = _runs(model, timeline)
    return page.render(
        "timeline.html",
        timeline.file,
        timeline.seconds,
        timeline.sketch,
        n_windows=len(timeline.windows),
        window=timeline.window,
        curves=curves,
        colours=colours,
        span=span,
        thumbnails=[(pictures[r][0], page.picture_url(pictures[r][1])) for r in rows if pictures],
        changes=changes_of(model, timeline),
        # The strip shows single classes only.
        strip=runs if all(name in colours for name, _ in runs) else [],
        readout=readout,
        notes=timeline.notes(),
        legend=wording.legend(model, timeline.predictions),
    )


def _runs(model: FinalModel, timeline: Timeline) -> list[tuple[str, float]]:
    """Return label and start in seconds of each run of windows with the same label."""
    runs: list[tuple[str, float]] = []
    for window, predictor, p in timeline.predicted():
        name = format_of(model).brief(predictor, p.outputs)
        if not runs or runs[-1][0] != name:
            # A window represents the time from its middle to the middle of the next window.
            runs.append((name, 0.0 if window == timeline.windows[0] else sum(window) / 2))
    return runs


def write_timelines(
    folder: Path,
    clips: Sequence[new_clips.NewClip],
    settings: new_clips.PredictSettings,
    timeline: TimelineSettings,
    to: Path,
) -> Iterator[tuple[FinalModel, str, list[Record]]]:
    """Write ``NAME.html`` and ``NAME.csv`` per clip; yield model, message and window records."""
    maker = FeatureMaker(folder, settings)
    model = maker.model
    if not all(clip.problem for clip in clips):
        maker.features()
    to.mkdir(parents=True, exist_ok=True)
    names = page_names(to, [clip.file for clip in clips])
    for clip, name in zip(clips, names, strict=True):
        problem = clip.problem
        try:
            if not problem:
                followed = follow_clip(maker, clip, timeline)
        except MvemoError as error:
            problem = str(error).removeprefix(f"{clip.path}: ")
        if problem:
            yield model, *unpredicted(clip.file, problem)
            continue
        html, table = Path(f"{name}.html"), Path(f"{name}.csv")
        records = window_records(model, followed)
        # Write the table first, because it can be written even if the page cannot.
        write_rows(table, window_rows(model, records))
        write_text(html, timeline_html(model, followed))
        files = [html, table, *write_annotations(model, followed, name, timeline.annotations)]
        *first, last = map(str, files)
        lines = [f"{clip.file}: {_summary(model, followed)}: {', '.join(first)} and {last}"]
        if verbosity() != "quiet":
            lines += [f"note: {clip.file}: {note}" for note in followed.notes()]
        yield model, "\n".join(lines), records


def _summary(model: FinalModel, followed: Timeline) -> str:
    """Return the length and the first labels with their starts: '4:00, Fear from 0:00'."""
    runs = _runs(model, followed)
    listed = ", ".join(f"{name} from {page.clock(start)}" for name, start in runs[:4])
    n_more = len(runs) - 4
    more = f" and {n_more} more change{'s' * (n_more > 1)}" if n_more > 0 else ""
    return f"{page.clock(followed.seconds)}, {listed}{more}"
