"""What nets read: the decoding that they ask for, and readers of the working cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mvemo.extract.errors import ExtractError
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.store.decoded import DecodedStore
from mvemo.extract.store.described import DescribedStore
from mvemo.extract.store.folders import DecodeJob, DecodeRequest, Stamp, digest_file
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.views import ViewSettings
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.text_table import listed
from mvemo.pipeline.errors import BadOption

# What two files of the same bytes must have in common, and what is wrong if they have not.
_DIFFERENCES: tuple[tuple[str, Callable[[Clip], str], str], ...] = (
    ("labels", lambda clip: ";".join(map(str, clip.label)), "one of the labels is wrong"),
    ("groups", lambda clip: clip.group, "on both sides of a fold they flatter the score"),
)


def decode_request(plans: Sequence[NetSettings], sample_rates: Sequence[int]) -> DecodeRequest:
    """One decoding for all nets and their views, and for descriptors at more sampling rates."""
    rates, pictures = set(sample_rates), set()
    for plan in plans:
        net_input = input_of(plan)
        if isinstance(net_input, AudioInput):
            rates.add(net_input.sr)
        elif isinstance(net_input, VideoInput):
            pictures.add(frame_sampling(net_input, plan.view))
    return DecodeRequest(
        sample_rates=tuple(sorted(rates)),
        pictures=tuple(sorted(pictures, key=lambda sampling: sampling.name)),
    )


def frame_sampling(net_input: VideoInput, view: ViewSettings) -> FrameSampling:
    """The frames of all views of a net."""
    return FrameSampling(
        net_input.n_frames, net_input.size, views=view.views, layout=view.layout, rate=view.rate
    )


def media_files(manifest: Manifest) -> dict[str, Path]:
    """A clip's path, as in the manifest, to the file; segments of one file are one entry."""
    return {clip.path: manifest.media_path(clip) for clip in manifest.clips}


def missing_media(manifest: Manifest, path: Path) -> list[str]:
    """Paths, as in the manifest, of media files that are not there."""
    files = media_files(manifest)
    if not any(files):
        raise BadOption(f"{path}: names no media files: it has no column 'path'")
    missing = [name for name, file in files.items() if not file.is_file()]
    if len(missing) == len(files):
        raise BadOption(
            f"{path}: not one of its {len(files)} media files is in {manifest.root}, as "
            f"{missing[0]!r}: give their folder with --root"
        )
    return missing


def same_file_notes(manifest: Manifest, content: Mapping[str, str]) -> list[str]:
    """Name files of the same bytes under several names that have several labels or groups."""
    notes = []
    for what, text_of, harm in _DIFFERENCES:
        pairs = []
        first: dict[tuple[str, float], Clip] = {}
        for clip in manifest.clips:
            # Stretches of one song may have labels of their own.
            start = clip.start if what == "labels" else 0.0
            other = first.setdefault((content[clip.clip_id] or clip.path, start), clip)
            if other.path != clip.path and text_of(other) != text_of(clip):
                pairs.append(f"{other.path} ({text_of(other)}) and {clip.path} ({text_of(clip)})")
        if pairs:
            notes.append(f"the same bytes under two names with two {what}: {listed(pairs)}: {harm}")
    return notes


@dataclass(frozen=True)
class MediaDigests:
    """Digests of the media files of a manifest's clips, by clip id."""

    content: dict[str, str]  # of the file's bytes; empty if it cannot be read
    stamps: dict[str, Stamp]  # what the file's entry said then, of files that can be read
    unreadable: dict[str, str]  # why the file cannot be read


def digest_media(
    manifest: Manifest, on_file: Callable[[bool], object] | None = None
) -> MediaDigests:
    """Digest the bytes of all media files; each is read once.

    `on_file` is called after each file, with whether it could not be read.
    """
    paths = media_files(manifest)
    found: dict[str, tuple[str, Stamp | None, str]] = {}
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(_digest_or_reason, paths.values())
        for path, result in zip(paths, results, strict=True):
            found[path] = result
            if on_file is not None:
                on_file(bool(result[2]))
    digests = MediaDigests({}, {}, {})
    for clip in manifest.clips:
        content, stamp, reason = found[clip.path]
        digests.content[clip.clip_id] = content
        if stamp is None:
            digests.unreadable[clip.clip_id] = reason
        else:
            digests.stamps[clip.clip_id] = stamp
    return digests


def _digest_or_reason(path: Path) -> tuple[str, Stamp | None, str]:
    """Digest and stamp of a file; or an empty text, None, and why it cannot be read."""
    try:
        return *digest_file(path), ""
    except FileNotFoundError:
        return "", None, f"{path}: file not found"
    except ExtractError as error:
        return "", None, str(error)
    except OSError as error:
        return "", None, f"{path}: cannot be read: {error.strerror or error}"


def decode_jobs(manifest: Manifest, digests: MediaDigests) -> list[DecodeJob]:
    """A job for each clip whose file can be read; `digests` as of `digest_media`."""
    return [
        DecodeJob(
            clip_id=clip.clip_id,
            path=manifest.media_path(clip),
            content=digests.content[clip.clip_id],
            start=clip.start,
            duration=clip.duration,
            stamp=digests.stamps[clip.clip_id],
        )
        for clip in manifest.clips
        if clip.clip_id in digests.stamps
    ]


def batches_of(
    net: Net,
    view: ViewSettings,
    clip_of: Mapping[int, str],
    store: DecodedStore,
    sequences: DescribedStore,
) -> RawBatches:
    """The reader of a net's input, by row of the manifest; `clip_of` is row to clip id."""
    net_input = net.input
    if isinstance(net_input, SequenceInput):
        names = net_input.features
        return RawBatches(lambda row: sequences.joined(clip_of[row], names), net_input, view)
    if isinstance(net_input, AudioInput):
        sr = net_input.sr
        return RawBatches(lambda row: store.waveform(clip_of[row], sr), net_input, view)
    sampling = frame_sampling(net_input, view)
    return RawBatches(lambda row: store.frames(clip_of[row], sampling), net_input, view)
