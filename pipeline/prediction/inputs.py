"""Clips to predict, found from files, folders, patterns and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from mvemo.manifests.clip_rows import parse_stretch
from mvemo.manifests.errors import Problems
from mvemo.manifests.layouts.scan import AUDIO_SUFFIXES, find_media, left_out_notes
from mvemo.manifests.tables import TABLES, Table, collect_table
from mvemo.pipeline.console.messages import tell_note


@dataclass(frozen=True)
class NewClip:
    """Media file, or segment of one, without a label."""

    file: str  # name to show
    path: Path  # path of the media file
    start: float = 0.0  # in seconds
    duration: float | None = None  # in seconds; None for the rest of the file
    problem: str = ""  # reason why there is nothing to predict


def find_clips(inputs: Sequence[str]) -> list[NewClip]:
    """Return the clips that a command line names, each once; missing ones have a `problem`.

    Inputs are media files, folders with media at any depth, patterns such as ``clips/*.mp3``,
    and tables with the columns ``path``, ``start`` and ``duration``. Labels are not needed.
    """
    clips: dict[tuple[Path, float, float | None], NewClip] = {}
    for entry in inputs:
        for clip in _clips_of(entry):
            clips.setdefault((clip.path.absolute(), clip.start, clip.duration), clip)
    return list(clips.values())


def modalities_of(clips: Sequence[NewClip]) -> tuple[str, ...]:
    """Return the modalities of clips by their file name extensions.

    Examples
    --------
    >>> modalities_of([NewClip("a.mp3", Path("a.mp3"))])
    ('audio',)
    >>> modalities_of([NewClip("a.mp3", Path("a.mp3")), NewClip("b.mp4", Path("b.mp4"))])
    ('audio', 'video')
    """
    suffixes = {clip.path.suffix.lower() for clip in clips if not clip.problem}
    return ("audio",) if suffixes and suffixes <= AUDIO_SUFFIXES else ("audio", "video")


def _clips_of(entry: str) -> list[NewClip]:
    path = Path(entry)
    if path.is_dir():
        return _media_in(path)
    if path.is_file() and path.suffix.lower() in TABLES:
        return _listed(path)
    if not path.exists() and any(mark in entry for mark in "*?["):
        matches = sorted(glob(entry, recursive=True))
        if not matches:
            return [NewClip(entry, path, problem="no file matches")]
        return [clip for match in matches for clip in _clips_of(match)]
    if not path.exists():
        return [NewClip(entry, path, problem="no such file")]
    return [NewClip(entry, path)]


def _media_in(folder: Path) -> list[NewClip]:
    left_out: list[tuple[str, str]] = []
    files = [folder / path for path in find_media(folder, left_out, follow_links=True)]
    for note in left_out_notes(left_out):
        tell_note(f"{folder}: {note}")
    if not files:
        return [NewClip(str(folder), folder, problem="a folder without media files")]
    return [NewClip(str(path), path) for path in files]


def _listed(path: Path) -> list[NewClip]:
    problems = Problems(path)
    table = collect_table(path, problems)
    clips = _rows(table, path, problems) if not problems.count else []
    problems.raise_any()
    return clips


def _rows(table: Table, path: Path, problems: Problems) -> list[NewClip]:
    names = table.header
    if "path" not in names:
        line = table.rows[0][0] if table.rows else 0
        problems.add(line, f"the header has no column 'path'; it has {names}")
        return []
    root = path.parent / table.setting("root", ".")
    clips = []
    for line, cells in table.rows[1:]:
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if not row.get("path"):
            problems.add(line, "empty path")
            continue
        start, duration = parse_stretch(row, problems.at(line))
        name = row["path"] if not start and duration is None else f"{row['path']}@{start or 0:g}"
        media = root / row["path"]
        problem = "" if media.exists() else f"no such file in {root}"
        clips.append(NewClip(name, media, start or 0.0, duration, problem))
    if not clips and not problems.count:
        problems.add(0, "lists no clip")
    return clips
