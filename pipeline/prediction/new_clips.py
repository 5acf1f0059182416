"""Clips to predict: found from files, folders, patterns and tables, and their windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import isolated
from mvemo.extract.media.isolated import read_each
from mvemo.extract.store.contents import real_path
from mvemo.extract.workers.process import torch_import_without_gc
from mvemo.fuse.final.model import Vectors
from mvemo.manifests import clip_rows, labels, recognition, tables, text_table
from mvemo.manifests.errors import BadOption, BadText, MvemoError, Problems
from mvemo.manifests.layouts import scan
from mvemo.pipeline.console.messages import tell_note

if TYPE_CHECKING:
    from mvemo.fuse.conformal import Asked

# A clip longer than `LONG` times a net's input is read in at most `MOST_WINDOWS` windows.
LONG = 1.5
MOST_WINDOWS = 8
# Maximum number of video files that are opened to see whether they have pictures.
MOST_OPENED = 8


@dataclass(frozen=True)
class PredictSettings:
    """Settings of predictions."""

    modalities: tuple[str, ...] = ("audio", "video")  # read from files that have them
    # Files of pretrained weights by net; other nets use downloaded weights.
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    coverage: Asked | None = None


@dataclass(frozen=True)
class NewClip:
    """Media file, or a segment of a file, without a label."""

    file: str  # name to show
    path: Path  # path of the media file
    start: float = 0.0  # in seconds
    duration: float | None = None  # in seconds; None for the rest of the file
    problem: str = ""  # reason why there is nothing to predict


def warm_up(folder: Path, settings: PredictSettings) -> None:
    """Import PyTorch, start worker processes, and download missing weights."""
    import_torch(settings)
    fetch_weights(folder, settings)


def import_torch(settings: PredictSettings) -> None:
    """Start a reader of media, and import PyTorch while it starts."""
    isolated.start_readers()
    # A thread would not be faster: imports wait for each other's turns.
    with torch_import_without_gc():
        from mvemo.extract.training.devices import keep_freed_memory, pick_device

    keep_freed_memory()
    # The device is checked before anything is downloaded or read.
    pick_device(settings.device)


def fetch_weights(folder: Path, settings: PredictSettings) -> None:
    """Download the missing weights of a model's nets."""
    from mvemo.pipeline.model_nets import fetch_model_weights

    fetch_model_weights(folder, settings.modalities, but=settings.weights)


def find_clips(inputs: Sequence[str], columns: Mapping[str, str] | None = None) -> list[NewClip]:
    """Return the clips of files, folders, patterns and tables, without duplicates."""
    if columns and not any(_is_table(Path(entry)) for entry in inputs):
        raise BadOption(
            f"--column {next(iter(columns))}=NAME names a column, but no input is a table"
        )
    clips: dict[tuple[str, float, float | None], NewClip] = {}
    folders: dict[str, str] = {}
    for entry in inputs:
        for clip in _clips_of(entry, columns or {}):
            if (name := text_table.escaped(clip.file)) != clip.file:
                clip = replace(clip, file=name, problem=clip.problem or scan.BAD_NAME)
            clips.setdefault((real_path(clip.path, folders), clip.start, clip.duration), clip)
    return list(clips.values())


def modalities_of(clips: Sequence[NewClip]) -> tuple[str, ...]:
    """Return the modalities of clips, judged by the suffixes of their files."""
    suffixes = {clip.path.suffix.lower() for clip in clips if not clip.problem}
    return ("audio",) if suffixes and suffixes <= scan.AUDIO_SUFFIXES else ("audio", "video")


def have_pictures(clips: Sequence[NewClip]) -> list[bool]:
    """Return True for each clip with pictures, judged by the suffix of its file.

    The containers of the first `MOST_OPENED` videos are opened.
    """
    found = [clip.path.suffix.lower() not in scan.AUDIO_SUFFIXES for clip in clips]
    rows = [row for row, clip in enumerate(clips) if found[row] and not clip.problem][:MOST_OPENED]
    for i, has in read_each(isolated.HAS_PICTURES, [(clips[row].path, {}) for row in rows]):
        found[rows[i]] = has is not False  # an error is reported when the file is read
    return found


def _clips_of(entry: str, columns: Mapping[str, str]) -> list[NewClip]:
    path = Path(entry)
    if path.is_dir():
        left_out: list[tuple[str, str]] = []
        found = dict.fromkeys(scan.find_media(path, left_out, follow_links=True), "")
        for note in scan.left_out_notes([each for each in left_out if each[1] == scan.UNKNOWN]):
            tell_note(f"{path}: {note}")
        found |= {name: reason for name, reason in left_out if reason != scan.UNKNOWN}
        files = {path / name: reason for name, reason in found.items()}
        clips = [NewClip(str(file), file, problem=reason) for file, reason in files.items()]
        return clips or [NewClip(str(path), path, problem="the folder has no media files")]
    if path.exists():
        return _listed(path, columns) if _is_table(path) else [NewClip(entry, path)]
    if not any(mark in entry for mark in "*?["):
        return [NewClip(entry, path, problem="no such file")]
    matches = sorted(glob(entry, recursive=True))
    clips = [clip for match in matches for clip in _clips_of(match, columns)]
    return clips or [NewClip(entry, path, problem="no file matches this pattern")]


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in tables.TABLES


def _listed(path: Path, columns: Mapping[str, str]) -> list[NewClip]:
    problems = Problems(path)
    table = tables.collect_table(path, problems, columns)
    problems.raise_any()
    table = _recognised(table, problems, columns)
    problems.raise_any()
    if "path" not in table.header:
        line = table.rows[0][0] if table.rows else 0
        problems.add(line, f"the header has no column 'path'; it has {table.header}")
    problems.raise_any()
    root = path.parent / table.setting("root", ".")
    clips = []
    for line, cells in table.rows[1:]:
        row = dict(zip(table.header, (cell.strip(" \t") for cell in cells), strict=False))
        name = row.get("path")
        if not name:
            problems.add(line, "empty path")
            continue
        start, duration = clip_rows.parse_stretch(row, problems.at(line))
        shown = f"{name}@{start:g}" if start or duration is not None else name
        problem = "" if (root / name).exists() else f"no such file in {root}"
        clips.append(NewClip(shown, root / name, start, duration, problem))
    if not clips and not problems.found:
        problems.add(0, "the table lists no clips")
    problems.raise_any()
    return clips


def _recognised(
    table: tables.TableRows, problems: Problems, columns: Mapping[str, str]
) -> tables.TableRows:
    """Rename the columns of path, start and duration to mvemo's names; print a note if needed."""
    try:
        table = table.with_path()
    except BadText as error:
        problems.add(*error.args)
    if table.kind or problems.found:
        return table
    given = {ours: ours for ours in columns}
    found = recognition.recognise(table, given, labels.UNLABELLED)
    for question in found.questions:
        problems.add(0, question)
    names = {"path", "start", "duration", "end"} & {*found.columns}
    for note in found.notes:
        if note.split(":")[0] in {*names, "duration"}:
            tell_note(f"{problems.path}: {note}")
    try:
        renamed = table.renamed({n: found.columns[n] for n in names & found.renamed.keys()})
        return renamed.with_points(found.numbers)[0]
    except BadText as error:
        problems.add(*error.args)
        return table


# --- windows


@dataclass(frozen=True)
class Windows:
    """Windows of a clip to read."""

    # (start, duration) in seconds; a duration of None means up to the end of the file.
    stretches: tuple[tuple[float, float | None], ...] = ()
    notes: tuple[str, ...] = ()  # notes for the user
    problem: str = ""  # reason why there are no windows
    length: float = 0.0  # length of the clip in seconds; 0 if unknown
    passing: bool = False  # True if the problem may be temporary


def clip_seconds(clip: NewClip) -> float:
    """Return the length of a clip in seconds; raise MvemoError if it cannot be read."""
    length: float = isolated.read_one(isolated.PROBE, clip.path) - clip.start
    if length <= 0:
        raise BadMedia(f"{clip.path}: the clip starts at {clip.start:g} s, after the file's end")
    return length if clip.duration is None else min(length, clip.duration)


def short_notes(length: float) -> tuple[str, ...]:
    """Return a note if a clip of this length in seconds is too short."""
    return (f"only {length:.2f} s long: too short to be reliable",) if length < 1.0 else ()


def windows_of(clip: NewClip, seconds: float, length: float | None = None) -> Windows:
    """Return the windows to read; measure the clip if its `length` in seconds is None."""
    if length is None:
        try:
            length = clip_seconds(clip)
        except MvemoError as error:
            reason = str(error).removeprefix(f"{clip.path}: ")
            return Windows(problem=reason, passing=not isinstance(error, BadMedia))
    if length <= LONG * seconds:
        notes = short_notes(length)
        if length > seconds + 1.0:
            notes = (f"{length:.0f} s long: only the first {seconds:g} s of its sound are read",)
        return Windows(((clip.start, clip.duration),), notes, length=length)
    count = min(math.ceil(length / seconds), MOST_WINDOWS)
    starts = clip.start + np.linspace(0.0, length - seconds, count)
    note = f"{length:.0f} s long: predicted as the mean of {count} windows of {seconds:g} s"
    stretches = tuple((round(float(s), 3), seconds) for s in starts)
    return Windows(stretches, (note,), length=length)


@dataclass(frozen=True)
class EmbeddedClip:
    """Features of one clip, the input of a model's heads."""

    clip: NewClip
    windows: Windows  # windows that were read
    content: str = ""  # digest of the file's content; empty if the file cannot be read
    # float64 (dim,) by feature and fold, rounded to float32.
    vectors: Vectors = field(default_factory=dict)
    # Reason why the clip lacks a modality; empty if it has the modality.
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""  # reason why the clip cannot be predicted
    passing: bool = False  # True if a failure may be temporary
    seconds: float = 0.0  # time that reading took
    # Time at which the clip was read.
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


# (key, clip), where a reader was given a mapping from keys to clips.
Batch = list[tuple[int, EmbeddedClip]]
