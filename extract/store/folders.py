"""Folder of a clip in the working cache: its arrays, its problems, and its media file's stamp."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.arrays import F32, U8
from mvemo.extract.errors import MediaUnavailable
from mvemo.extract.media.request import FrameSampling, Problem
from mvemo.extract.store.arrays import map_array
from mvemo.manifests.files import parse_json, write_json

# Size, time of the last change of content and of the inode in ns, and inode number.
Stamp = tuple[int, int, int, int]
# Raised whenever the same file would be decoded to other values, or refused for other reasons.
DECODING_VERSION = 4
# Key, among the problems by modality, of the note about the track that was read.
NOTE = "note"


@dataclass(frozen=True)
class DecodeRequest:
    """Request for each clip: waveforms at some sampling rates in Hz, and frames."""

    sample_rates: tuple[int, ...] = ()
    pictures: tuple[FrameSampling, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Requested modalities: ``audio``, ``video`` or both."""
        asked = (("audio", self.sample_rates), ("video", self.pictures))
        return tuple(modality for modality, values in asked if values)

    def without_stored(self, folder: Path) -> DecodeRequest:
        """Return the part of the request for which the folder has no intact array."""
        return DecodeRequest(
            tuple(sr for sr in self.sample_rates if map_waveform(folder, sr) is None),
            tuple(s for s in self.pictures if map_frames(folder, s) is None),
        )


@dataclass(frozen=True)
class DecodeJob:
    """Clip to decode."""

    clip_id: str
    path: Path
    content: str  # `content_digest` of the file
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None for the rest of the file
    stamp: Stamp | None = None  # of the digested file; None to skip the check for changes


def waveform_path(folder: Path, sample_rate: int) -> Path:
    """Return the file of a waveform."""
    return folder / f"{sample_rate}.npy"


def frames_path(folder: Path, sampling: FrameSampling) -> Path:
    """Return the file of a clip's frames."""
    return folder / f"{sampling.name}.npy"


def map_waveform(folder: Path, sample_rate: int) -> F32 | None:
    """Return a waveform, float32 (samples,), memory-mapped; None if missing or damaged."""
    return map_array(waveform_path(folder, sample_rate), np.float32, (None,))


def map_frames(folder: Path, sampling: FrameSampling) -> U8 | None:
    """Return frames, uint8 (windows * n_frames, size, size, 3), mapped; None if not intact."""
    size = sampling.size
    array = map_array(frames_path(folder, sampling), np.uint8, (None, size, size, 3))
    whole = array is not None and len(array) and len(array) % sampling.n_frames == 0
    return array if whole else None


@cache
def decoder_versions() -> str:
    """Return the versions of the decoding libraries: a newer one may read more files."""
    names = ("mvemo", "av", "soundfile", "opencv-python-headless")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def write_problems(folder: Path, problems: Mapping[str, Problem]) -> None:
    """Write a clip's problems with the time and the decoders' versions."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": decoder_versions(),
    }
    values = {k: {"reason": p.reason, "missing": p.missing, **facts} for k, p in problems.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "problems.json", values, durable=False)


def read_problems(folder: Path, *, failed: bool = True) -> dict[str, Problem]:
    """Return the stored problems by modality, and the note under `NOTE`.

    Problems that other versions found are left out: the clip is decoded again. If `failed` is
    False, problems of modalities that should be there are left out, too.
    """
    try:
        saved: Any = parse_json((folder / "problems.json").read_text(encoding="utf-8"))
        return {
            kind: Problem(str(p["reason"]), bool(p["missing"]))
            for kind, p in saved.items()
            if p["versions"] == decoder_versions() and (failed or p["missing"])
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a regular file; anything else, such as a pipe, is an `OSError`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise OSError(None, f"it is {kind}, not a file")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def digest_file(path: Path) -> tuple[str, Stamp]:
    """Return the SHA-256 of a file's bytes, and its stamp."""
    # Imported here because it imports HDF5, which workers do not need.
    from mvemo.cache.spec import content_digest

    before = stamp_of(path)
    digest = content_digest(path)
    if stamp_of(path) != before:
        raise MediaUnavailable(f"{path}: changes while it is read: run again when it is whole")
    return digest, before


def check_unchanged(path: Path, content: str, stamp: Stamp) -> Stamp:
    """Check that the file's content did not change, and return its present stamp.

    If the stamp differs, the content is digested again: a copy with the same bytes is accepted.
    """
    now = stamp_of(path)
    if now == stamp:
        return now
    found, now = digest_file(path)
    if found != content:
        raise MediaUnavailable(f"{path}: changed after it was digested: run again")
    return now
