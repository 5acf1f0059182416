"""Lengths of clips, measured in their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mvemo.extract.errors import ExtractError
from mvemo.extract.media.isolated import PROBE, read_each
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.inputs import media_files
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption

# Seconds that a segment may end after its file: annotators may have used another decoder.
SLACK = 0.5
# Number of segments past the end that a message lists.
MOST_LISTED = 10


def clip_lengths(
    manifest: Manifest, on_problem: Callable[[str], object]
) -> dict[str, float | None]:
    """Return for each clip id the seconds from the clip's start to its file's end, or None.

    `on_problem` gets a sentence for each unreadable file and each clip that begins after the end.
    """
    lengths = _file_lengths(manifest, on_problem)
    seconds: dict[str, float | None] = {}
    for clip in manifest.clips:
        length = lengths[clip.path]
        if length is not None and length <= clip.start:
            on_problem(f"{clip.clip_id} begins after its file's end")
            length = None
        seconds[clip.clip_id] = None if length is None else length - clip.start
    return seconds


def starts_past_end(manifest: Manifest) -> list[str]:
    """Return a line for each clip that starts after its file's end, and each unreadable file."""
    started = tuple(clip for clip in manifest.clips if clip.start > 0)
    lines: list[str] = []
    lengths = _file_lengths(replace(manifest, clips=started), lines.append)
    for clip in started:
        length = lengths[clip.path]
        if length is not None and clip.start >= length:
            lines.append(
                f"clip {clip.clip_id!r} starts at {clip.start:g} s, but its file ends at "
                f"{length:.2f} s"
            )
    return lines


def fit_segments(manifest: Manifest) -> tuple[Manifest, tuple[str, ...]]:
    """Cut segments that end up to `SLACK` after their file; raise BadOption for later ones.

    Returns the manifest and notes on cut segments and unreadable files.
    """
    notes: list[str] = []
    lengths = _file_lengths(manifest, lambda problem: notes.append(f"not measured: {problem}"))
    clips, beyond, n_cut = [], [], 0
    for clip in manifest.clips:
        length, duration = lengths[clip.path], clip.duration
        if length is not None and duration is not None and clip.start + duration > length:
            if clip.start + duration > length + SLACK or clip.start >= length:
                beyond.append(
                    f"{manifest.media_path(clip)}: a segment from {clip.start:g} to "
                    f"{clip.start + duration:g} s, but the file ends at {length:.2f} s"
                )
            duration, n_cut = length - clip.start, n_cut + 1
        clips.append(replace(clip, duration=duration))
    if beyond:
        more = [f"and {len(beyond) - MOST_LISTED} more"] if len(beyond) > MOST_LISTED else []
        raise BadOption("\n  ".join([*beyond[:MOST_LISTED], *more]))
    if n_cut:
        notes.append(f"{n_cut} segments end up to {SLACK:g} s after their file: cut at its end")
    return replace(manifest, clips=tuple(clips)), tuple(notes)


def _file_lengths(
    manifest: Manifest, on_problem: Callable[[str], object]
) -> dict[str, float | None]:
    """Return for each path of the manifest the file's length in seconds, or None."""
    files = media_files(manifest)
    names = list(files)
    lengths: dict[str, float | None] = dict.fromkeys(names)
    with Progress("measure media", len(files), "file") as bar:
        for i, found in read_each(PROBE, [(path, {}) for path in files.values()]):
            if isinstance(found, ExtractError):
                on_problem(str(found))
            else:
                lengths[names[i]] = found
            bar.step(failed=int(lengths[names[i]] is None))
    return lengths
