"""Checks of a manifest's media files: existence, digests, lengths, and what the nets read."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo.extract.media.isolated import PROBE, read_each
from mvemo.extract.nets import AudioInput, SequenceInput, SharedSettings, input_of
from mvemo.extract.settings import NetSettings, window_starts
from mvemo.extract.store.contents import Content, contents_of
from mvemo.manifests import Clip, Manifest, ManifestOptions, read_manifest
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import Stamp
from mvemo.manifests.layouts.scan import AUDIO_SUFFIXES
from mvemo.manifests.text_table import listed
from mvemo.pipeline.console.messages import tell_note, tell_notes
from mvemo.pipeline.console.progress import Progress

# Properties that files with the same content must share: name, value, and harm if they differ.
_DIFFERENCES: tuple[tuple[str, Callable[[Clip], str], str], ...] = (
    ("labels", lambda clip: ";".join(map(str, clip.label)), "one of the labels is wrong"),
    ("groups", lambda clip: clip.group, "across training and test folds they raise the score"),
)
# A segment may end this many seconds after its file: annotators may have used another decoder.
SLACK = 0.5
# Maximum number of segments past the end of their file that a message lists.
MOST_LISTED = 10
# A clip may exceed the windows by this many seconds, because codecs pad files to whole frames.
LEAST_EXCESS = 0.25


def media_files(manifest: Manifest) -> dict[str, Path]:
    """Return the file for each path in the manifest; segments of a file share an entry."""
    return {clip.path: manifest.media_path(clip) for clip in manifest.clips}


def only_sound(manifest: Manifest) -> bool:
    """Return True if all files have the suffix of an audio file."""
    return {Path(clip.path).suffix.lower() for clip in manifest.clips} <= AUDIO_SUFFIXES


def missing_media(manifest: Manifest, path: Path) -> list[str]:
    """Return the paths of missing media files; raise BadOption if all files are missing."""
    files = media_files(manifest)
    if not any(files):
        raise BadOption(f"{path}: names no media files: add a column 'path'")
    missing = [name for name, file in files.items() if not file.is_file()]
    if len(missing) == len(files):
        raise BadOption(
            f"{path}: none of its {len(files)} media files is in {manifest.root}, for example "
            f"{missing[0]!r}: give their folder with --root"
        )
    return missing


def manifest_with_media(path: Path, options: ManifestOptions) -> Manifest:
    """Read a manifest; print a note on missing media; raise BadOption if all are missing."""
    manifest = read_manifest(path, options, media=False)
    tell_notes(manifest.notes)
    if missing := missing_media(manifest, path):
        n_files = len(media_files(manifest))
        tell_note(
            f"{len(missing)} of {n_files} media files are not in {manifest.root}, such as "
            f"{missing[0]!r}: their clips will fail; all others are processed"
        )
    return manifest


def same_file_notes(manifest: Manifest, content: Mapping[str, str]) -> list[str]:
    """Return notes on files with the same content but different labels or groups."""
    notes = []
    for name, text_of, harm in _DIFFERENCES:
        pairs = []
        first: dict[tuple[str, float], Clip] = {}
        for clip in manifest.clips:
            # Segments of the same song may have different labels.
            start = clip.start if name == "labels" else 0.0
            other = first.setdefault((content.get(clip.clip_id) or clip.path, start), clip)
            if other.path != clip.path and text_of(other) != text_of(clip):
                pairs.append(f"{other.path} ({text_of(other)}) and {clip.path} ({text_of(clip)})")
        if pairs:
            notes.append(f"identical files have different {name}: {listed(pairs)}: {harm}")
    return notes


@dataclass(frozen=True)
class MediaDigests:
    """Digests of the media files of a manifest's clips, by clip id."""

    content: dict[str, str]  # digest of the content; empty if the file cannot be read
    stamps: dict[str, Stamp]  # stamp of each readable file when it was digested
    unreadable: dict[str, str]  # reason why a file cannot be read


def digest_files(paths: Iterable[Path]) -> dict[Path, Content]:
    files = list(dict.fromkeys(paths))
    with Progress("digest media", len(files), "file") as bar:
        found = contents_of(files, lambda failed: bar.step(failed=int(failed)))
    return dict(zip(files, found, strict=True))


def digest_media(manifest: Manifest) -> MediaDigests:
    """Digest each media file of a manifest once."""
    found = digest_files(map(manifest.media_path, manifest.clips))
    digests = MediaDigests({}, {}, {})
    for clip in manifest.clips:
        content = found[manifest.media_path(clip)]
        digests.content[clip.clip_id] = content.digest
        if content.stamp is None:
            digests.unreadable[clip.clip_id] = content.reason
        else:
            digests.stamps[clip.clip_id] = content.stamp
    return digests


def clip_lengths(
    manifest: Manifest, on_problem: Callable[[str], object]
) -> dict[str, float | None]:
    """Return, by clip id, the seconds from the clip's start to its file's end; None if unknown."""
    lengths = _file_lengths(manifest, on_problem)
    seconds = {}
    for clip in manifest.clips:
        length = lengths[clip.path]
        if length is not None and length <= clip.start:
            on_problem(f"clip {clip.clip_id!r} starts after its file's end")
            length = None
        seconds[clip.clip_id] = None if length is None else length - clip.start
    return seconds


def starts_past_end(manifest: Manifest) -> list[str]:
    """Return a line for each clip that starts after its file's end or whose file is unreadable."""
    started = tuple(clip for clip in manifest.clips if clip.start > 0)
    lines: list[str] = []
    lengths = _file_lengths(replace(manifest, clips=started), lines.append)
    return lines + [
        f"clip {clip.clip_id!r} starts at {clip.start:g} s, but its file ends at {length:.2f} s"
        for clip in started
        if (length := lengths[clip.path]) is not None and clip.start >= length
    ]


def fit_segments(manifest: Manifest) -> tuple[Manifest, tuple[str, ...]]:
    """Cut segments that end up to `SLACK` after their file; return the manifest and notes."""
    notes = []
    lengths = _file_lengths(manifest, lambda problem: notes.append(f"unknown length: {problem}"))
    clips, beyond, n_cut = [], [], 0
    for clip in manifest.clips:
        length, duration = lengths[clip.path], clip.duration
        if length is not None and duration is not None and clip.start + duration > length:
            if clip.start + duration > length + SLACK or clip.start >= length:
                beyond.append(
                    f"{manifest.media_path(clip)}: a segment lasts from {clip.start:g} to "
                    f"{clip.start + duration:g} s, but the file ends at {length:.2f} s"
                )
            duration, n_cut = length - clip.start, n_cut + 1
        clips.append(replace(clip, duration=duration))
    if beyond:
        more = [f"and {len(beyond) - MOST_LISTED} more"] if len(beyond) > MOST_LISTED else []
        raise BadOption("\n  ".join([*beyond[:MOST_LISTED], *more]))
    if n_cut:
        notes.append(f"{n_cut} segments end up to {SLACK:g} s after their file and are cut there")
    return replace(manifest, clips=tuple(clips)), tuple(notes)


def _file_lengths(
    manifest: Manifest, on_problem: Callable[[str], object]
) -> dict[str, float | None]:
    """Return, for each path in the manifest, the file's length in seconds, or None."""
    files = media_files(manifest)
    names = list(files)
    lengths = dict.fromkeys(names)
    with Progress("measure media", len(files), "file") as bar:
        for i, found in read_each(PROBE, [(path, {}) for path in files.values()]):
            if isinstance(found, MvemoError):
                on_problem(str(found))
            else:
                lengths[names[i]] = found
            bar.step(failed=int(lengths[names[i]] is None))
    return lengths


def window_seconds(plan: NetSettings, shared: SharedSettings) -> float | None:
    """Return the length of a net's windows in seconds, or None if they span the whole clip."""
    net_input = input_of(plan)
    if isinstance(net_input, AudioInput):
        return net_input.seconds
    if isinstance(net_input, SequenceInput):
        # Descriptors may have different hops: the shortest hop gives the shortest window.
        hops = [shared.descriptors.framed(name).hop_length for name in net_input.features]
        return net_input.n_frames * min(hops) / shared.descriptors.sr
    return net_input.n_frames / plan.view.rate if plan.view.rate else None


def longer_clips_note(
    plan: NetSettings, seconds: Mapping[str, float], shared: SharedSettings
) -> str:
    """Return a note on the clips (seconds by clip id) that a net reads only in part, or ''."""
    view, window = plan.view, window_seconds(plan, shared)
    cut = [s for s in seconds.values() if window is not None and _unread(plan, s, window)]
    if window is None or not cut:
        return ""
    reads = f"{window:.4g} s" if view.views == 1 else f"{view.views} windows of {window:.4g} s"
    needed = math.ceil((max(cut) - LEAST_EXCESS) / window)
    if view.rate and view.layout != "start":
        needed = 2
    return (
        f"{len(cut)} of {len(seconds)} clips are longer than the {reads} that {plan.name} "
        f"reads (up to {max(cut):.4g} s), and the rest is not used: read more windows with "
        f"--set nets.{plan.name}.views={needed}, or split the clips with 'mvemo manifest segment'"
    )


def _unread(plan: NetSettings, length: float, window: float) -> bool:
    """Return True if a part of a clip of the given length is in no window."""
    if length <= window + LEAST_EXCESS:
        return False
    starts = window_starts(length, window, plan.view)
    read = starts[-1] + window if plan.view.rate else window * len(starts)
    return bool(read < length - LEAST_EXCESS)
