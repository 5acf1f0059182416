"""Segments of equal length (J22 3.2), named ``CLIP@START``; they keep their clip's fold."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from mvemo.manifests.cells import to_number
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.model import Clip, Manifest

Tail = Literal["half", "join", "drop"]
TAILS: tuple[Tail, ...] = ("half", "join", "drop")
# Decimals of a start in seconds; a microsecond is shorter than one audio sample.
_DIGITS = 6
# Lengths that differ by less than this (in seconds) count as equal: codecs round the last frame.
_SLACK = 1e-3


def segment_manifest(
    manifest: Manifest,
    seconds: float,
    *,
    durations: Mapping[str, float | None],
    overlap: float = 0.0,
    tail: Tail = "half",
    first: float | None = None,
) -> Manifest:
    """Divide every clip into segments.

    Parameters
    ----------
    manifest
        Clips; they may already be parts of files.
    seconds
        Length of a segment in seconds; J22 compares 3, 5, 10 and 16.
    durations
        For each clip id, the seconds from the clip's start to the end of its file; a shorter
        duration of the clip takes precedence. Required for clips without a duration. None means
        that the length cannot be read: the clip becomes one segment.
    overlap
        Overlap of adjacent segments in seconds, from 0 to below `seconds`.
    tail
        Rule for the rest of a clip. ``half``: a rest of half a segment or more becomes a segment, a
        shorter rest is left out. ``join``: like ``half``, but a shorter rest lengthens the last
        segment. ``drop``: every rest is left out (as in J22 Table 1).
    first
        Number of seconds to use from each clip's start (30 in J22); None for all.

    Returns
    -------
    The segments, by clip and start. A clip shorter than a segment gives one segment.

    Raises
    ------
    BadManifest
        A length is out of range, the length of a clip is unknown, or two segments have one id.

    Examples
    --------
    >>> from pathlib import Path
    >>> song = Clip("song", "song.mp3", ("calm",), "song")
    >>> songs = Manifest("songs", "multiclass", ("calm", "tense"), (song,), Path())
    >>> segments = segment_manifest(songs, 10.0, durations={"song": 27.0})
    >>> [(clip.clip_id, clip.start, clip.duration) for clip in segments.clips]
    [('song@0', 0.0, 10.0), ('song@10', 10.0, 10.0), ('song@20', 20.0, 7.0)]
    """
    if not 0 < seconds < math.inf:
        raise BadManifest(f"the segment length is {seconds} s, but it must be above 0")
    if not 0 <= overlap < seconds:
        raise BadManifest(
            f"the overlap is {overlap} s, but it must be at least 0 and below the segment length "
            f"of {seconds} s"
        )
    if tail not in TAILS:
        raise BadManifest(f"unknown tail {tail!r}; expected one of {', '.join(TAILS)}")
    if first is not None and not 0 < first < math.inf:
        raise BadManifest(f"the used length of each clip is {first} s, but it must be above 0")
    segments = []
    owner: dict[str, str] = {}
    for clip in manifest.clips:
        length = _length(manifest, clip, durations)
        pieces = _pieces(clip, length, float(seconds), seconds - overlap, tail, first)
        for start, duration in pieces:
            start = round(start, _DIGITS)
            name = f"{clip.clip_id}@{start:.{_DIGITS}f}".rstrip("0").rstrip(".")
            duration = None if duration is None else round(duration, _DIGITS)
            if name in owner:
                raise BadManifest(
                    f"{manifest.name}: clips {owner[name]!r} and {clip.clip_id!r} both give a "
                    f"segment {name!r}: rename one of the clips"
                )
            owner[name] = clip.clip_id
            segments.append(replace(clip, clip_id=name, start=start, duration=duration))
    return replace(manifest, clips=tuple(segments))


def song_of(clip_id: str) -> str:
    """Return the clip id at the start of a segment id; any other id is returned unchanged.

    Examples
    --------
    >>> song_of("song@30"), song_of("me@home")
    ('song', 'me@home')
    """
    song, _, start = clip_id.rpartition("@")
    with suppress(ValueError):
        if song and start[:1].isdigit() and math.isfinite(to_number(start)):
            return song
    return clip_id


def _length(manifest: Manifest, clip: Clip, durations: Mapping[str, float | None]) -> float | None:
    """Return the length of a clip in seconds, or None if it cannot be read."""
    if clip.clip_id not in durations:
        if clip.duration is None:
            raise BadManifest(f"{manifest.name}: the length of clip {clip.clip_id!r} is unknown")
        return clip.duration
    seconds = durations[clip.clip_id]
    if seconds is None:
        return None
    if not 0 < seconds < math.inf:
        raise BadManifest(
            f"{manifest.name}: clip {clip.clip_id!r} is {seconds} s long; it must be above 0"
        )
    return seconds if clip.duration is None else min(seconds, clip.duration)


def _pieces(
    clip: Clip, length: float | None, seconds: float, step: float, tail: Tail, first: float | None
) -> Iterator[tuple[float, float | None]]:
    """Yield start and duration of each segment of a clip."""
    # A clip of unknown length cannot be decoded; as a single segment it fails only once.
    used = first if first is not None and length and length > first + _SLACK else length
    if used is None or used < seconds + _SLACK:
        # The clip keeps its duration unless only its first seconds are used.
        yield clip.start, clip.duration if used == length else used
        return
    count = 1 + math.floor((used - seconds + _SLACK) / step)
    last = clip.start + (count - 1) * step
    rest = clip.start + used - (last + seconds)
    keeps_rest = tail != "drop" and rest >= 0.5 * seconds
    joined = tail == "join" and not keeps_rest and rest > _SLACK
    for i in range(count - 1):
        yield clip.start + i * step, seconds
    yield last, seconds + rest if joined else seconds
    if keeps_rest:
        # The rest starts one step after the last segment, with the same overlap.
        yield last + step, clip.start + used - (last + step)
