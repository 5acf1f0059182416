"""What nets are given: the decoding that they ask for, and readers of what it made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mvemo.cache import content_digest
from mvemo.extract.nets import build_net
from mvemo.extract.nets.base import AudioInput, Net, SequenceInput, VideoInput
from mvemo.extract.store.decoded import DecodedStore, DecodeJob, DecodeRequest
from mvemo.extract.store.described import DescribedStore
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.plan import NetPlan
from mvemo.manifests import Manifest
from mvemo.pipeline.errors import BadOption

NetInput = AudioInput | VideoInput | SequenceInput


def input_of(plan: NetPlan) -> NetInput:
    """What a plan's net is given; the width has no say in it."""
    return build_net(plan.name, 1, width=0.05, **plan.options).input


def decode_request(inputs: Mapping[str, NetInput], sample_rates: Sequence[int]) -> DecodeRequest:
    """One decoding for all nets, and for descriptors at more sampling rates.

    Parameters
    ----------
    inputs
        Name of a net to its `input_of`.
    sample_rates
        More, in Hz.

    Raises
    ------
    BadOption
        Video nets of different frame counts.
    """
    counts = {name: i.n_frames for name, i in inputs.items() if isinstance(i, VideoInput)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise BadOption(f"n_frames must be the same for all video nets of a run, not {listed}")
    return DecodeRequest(
        sample_rates=tuple(
            sorted({*sample_rates, *(i.sr for i in inputs.values() if isinstance(i, AudioInput))})
        ),
        n_frames=next(iter(counts.values()), 0),
        sizes=tuple(sorted({i.size for i in inputs.values() if isinstance(i, VideoInput)})),
    )


def media_files(manifest: Manifest) -> dict[str, Path]:
    """A clip's path, as in the manifest, to the file; segments of one file are one entry."""
    return {clip.path: manifest.media_path(clip) for clip in manifest.clips}


def digest_media(
    manifest: Manifest, on_file: Callable[[bool], object] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Digest the bytes of all media files; each is read once.

    Parameters
    ----------
    manifest
        With media.
    on_file
        Called after each file, with whether it could not be read.

    Returns
    -------
    Clip id to the digest, empty where there is none; and clip id to why it is not.
    """
    paths = media_files(manifest)
    found: dict[str, tuple[str, str]] = {}
    with ThreadPoolExecutor(4) as pool:
        for name, made in zip(paths, pool.map(_digest_or_why, paths.values()), strict=True):
            found[name] = made
            if on_file is not None:
                on_file(bool(made[1]))
    digests = {clip.clip_id: found[clip.path][0] for clip in manifest.clips}
    reasons = {clip.clip_id: found[clip.path][1] for clip in manifest.clips}
    return digests, {clip_id: why for clip_id, why in reasons.items() if why}


def _digest_or_why(path: Path) -> tuple[str, str]:
    try:
        return content_digest(path), ""
    except FileNotFoundError:
        return "", f"{path}: file not found"
    except OSError as error:
        return "", f"{path}: cannot be read: {error.strerror or error}"


def decode_jobs(
    manifest: Manifest, content: Mapping[str, str], without: Collection[str]
) -> list[DecodeJob]:
    """A job for each clip but those `without`, by id; `content` as of `digest_media`."""
    return [
        DecodeJob(
            clip_id=clip.clip_id,
            path=manifest.media_path(clip),
            content=content[clip.clip_id],
            start=clip.start,
            duration=clip.duration,
        )
        for clip in manifest.clips
        if clip.clip_id not in without
    ]


def batches_of(
    net: Net, clip_ids: Sequence[str], store: DecodedStore, sequences: DescribedStore | None
) -> RawBatches:
    """The reader of a net's input, by row of the manifest.

    Parameters
    ----------
    net
        Whose.
    clip_ids
        Of the rows.
    store, sequences
        Decoded media, and descriptors, which nets on sequences need.
    """
    given = net.input
    if isinstance(given, SequenceInput):
        assert sequences is not None
        described, names = sequences, given.features
        return RawBatches(lambda row: described.joined(clip_ids[row], names), given)
    if isinstance(given, AudioInput):
        sr = given.sr
        return RawBatches(lambda row: store.waveform(clip_ids[row], sr), given)
    size = given.size
    return RawBatches(lambda row: store.frames(clip_ids[row], size), given)
