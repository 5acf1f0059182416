"""Media files of clips, decode requests of nets, and readers of the working cache."""

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
from mvemo.extract.training.data import RawBatches
from mvemo.extract.views import ViewSettings
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.text_table import listed
from mvemo.pipeline.errors import BadOption

# Name, value and harm of each property that files with the same bytes must share.
_DIFFERENCES: tuple[tuple[str, Callable[[Clip], str], str], ...] = (
    ("labels", lambda clip: ";".join(map(str, clip.label)), "one of the labels is wrong"),
    ("groups", lambda clip: clip.group, "on both sides of a fold they flatter the score"),
)


def decode_request(plans: Sequence[NetSettings], sample_rates: Sequence[int]) -> DecodeRequest:
    """Return one request for all nets and views; `sample_rates` (Hz) are those of descriptors."""
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
    """Return the sampling of the frames of all views of a net."""
    return FrameSampling(
        net_input.n_frames, net_input.size, views=view.views, layout=view.layout, rate=view.rate
    )


def media_files(manifest: Manifest) -> dict[str, Path]:
    """Return the file of each path of the manifest; segments of one file share an entry."""
    return {clip.path: manifest.media_path(clip) for clip in manifest.clips}


def missing_media(manifest: Manifest, path: Path) -> list[str]:
    """Return the manifest's paths of missing media files; raise BadOption if all are missing."""
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
    """Return notes on files with the same bytes but different labels or groups."""
    notes = []
    for what, text_of, harm in _DIFFERENCES:
        pairs = []
        first: dict[tuple[str, float], Clip] = {}
        for clip in manifest.clips:
            # Segments of one song may have different labels.
            start = clip.start if what == "labels" else 0.0
            other = first.setdefault((content.get(clip.clip_id) or clip.path, start), clip)
            if other.path != clip.path and text_of(other) != text_of(clip):
                pairs.append(f"{other.path} ({text_of(other)}) and {clip.path} ({text_of(clip)})")
        if pairs:
            notes.append(f"the same bytes under two names with two {what}: {listed(pairs)}: {harm}")
    return notes


@dataclass(frozen=True)
class MediaDigests:
    """Digests of the media files of a manifest's clips, by clip id."""

    content: dict[str, str]  # digest of the bytes; empty if the file cannot be read
    stamps: dict[str, Stamp]  # stamp of each readable file when it was digested
    unreadable: dict[str, str]  # reason why a file cannot be read


def digest_media(
    manifest: Manifest, on_file: Callable[[bool], object] | None = None
) -> MediaDigests:
    """Digest each media file once; call `on_file` after each, with True if it failed."""
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
    """Return digest, stamp and ''; for an unreadable file '', None and the reason."""
    try:
        return *digest_file(path), ""
    except FileNotFoundError:
        return "", None, f"{path}: file not found"
    except ExtractError as error:
        return "", None, str(error)
    except OSError as error:
        return "", None, f"{path}: cannot be read: {error.strerror or error}"


def decode_jobs(manifest: Manifest, digests: MediaDigests) -> list[DecodeJob]:
    """Return a decode job for each clip whose file can be read."""
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
    """Return a reader of a net's input by row; `clip_of` gives the clip id of each row."""
    net_input = net.input
    if isinstance(net_input, SequenceInput):
        names = net_input.features
        return RawBatches(lambda row: sequences.joined(clip_of[row], names), net_input, view)
    if isinstance(net_input, AudioInput):
        sr = net_input.sr
        return RawBatches(lambda row: store.waveform(clip_of[row], sr), net_input, view)
    sampling = frame_sampling(net_input, view)
    return RawBatches(lambda row: store.frames(clip_of[row], sampling), net_input, view)
