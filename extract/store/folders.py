"""A clip's folder in the working cache: what is in it, and what was wrong with the clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.arrays import F32, U8
from mvemo.extract.media.checks import Problem
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.store.arrays import map_array
from mvemo.extract.store.stamps import Stamp
from mvemo.manifests.files import parse_json, write_json

# Rises whenever the same file would be decoded to other values, or refused for other reasons.
DECODING_VERSION = 4
# Key, among the problems by modality, of which sound was read.
NOTE = "note"


@dataclass(frozen=True)
class DecodeRequest:
    """What is decoded of every clip: waveforms at some rates in Hz, and frames."""

    sample_rates: tuple[int, ...] = ()
    pictures: tuple[FrameSampling, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """``audio``, ``video`` or both, as they are asked for."""
        asked = (("audio", self.sample_rates), ("video", self.pictures))
        return tuple(modality for modality, values in asked if values)

    def without_stored(self, folder: Path) -> DecodeRequest:
        """The part of the request for which a clip's folder has no whole array."""
        return DecodeRequest(
            tuple(sr for sr in self.sample_rates if map_waveform(folder, sr) is None),
            tuple(s for s in self.pictures if map_frames(folder, s) is None),
        )


@dataclass(frozen=True)
class DecodeJob:
    """One clip to decode."""

    clip_id: str  # for the caller
    path: Path  # of the media file
    content: str  # `content_digest` of the file
    start: float = 0.0  # the clip's stretch of it in seconds; None for all that follows
    duration: float | None = None  # the clip's stretch of it in seconds; None for all that follows
    # The file's when it was digested; None where it need not be the same still.
    stamp: Stamp | None = None


def waveform_path(folder: Path, sample_rate: int) -> Path:
    """The file of a waveform."""
    return folder / f"{sample_rate}.npy"


def frames_path(folder: Path, sampling: FrameSampling) -> Path:
    """The file of a clip's pictures."""
    return folder / f"{sampling.name}.npy"


def map_waveform(folder: Path, sample_rate: int) -> F32 | None:
    """float32 (samples,), memory-mapped; None where it is not there, or damaged."""
    return map_array(waveform_path(folder, sample_rate), np.float32, (None,))


def map_frames(folder: Path, sampling: FrameSampling) -> U8 | None:
    """uint8 (windows * n_frames, size, size, 3), memory-mapped; None as for `map_waveform`."""
    size = sampling.size
    array = map_array(frames_path(folder, sampling), np.uint8, (None, size, size, 3))
    whole = array is not None and len(array) and len(array) % sampling.n_frames == 0
    return array if whole else None


@cache
def decoder_versions() -> str:
    """Versions of what decodes: a newer one may read what another could not."""
    names = ("mvemo", "av", "soundfile", "opencv-python-headless")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def write_problems(folder: Path, problems: Mapping[str, Problem]) -> None:
    """Keep why a clip has no sound or pictures, when that was found, and by which versions."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": decoder_versions(),
    }
    values = {k: {"reason": p.reason, "missing": p.missing, **facts} for k, p in problems.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "problems.json", values, durable=False)


def read_problems(folder: Path, *, failed: bool = True) -> dict[str, Problem]:
    """Problems by modality; those of other versions are left out: the clip is read again.

    The key `NOTE` has which sound was read, of files with more than one. `failed` is False to leave
    out clips that should have the modality.
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
