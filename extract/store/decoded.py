"""The working cache: decoded waveforms and frames that every epoch rereads.

It lives on the machine of stage one and never travels. A clip's arrays are plain ``.npy``
files, named by what they were decoded from and how, so that another run finds them, also
one that needs only some of them; reading maps them into memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import digest_of
from mvemo.extract.errors import BadMedia, ExtractError, MissingFile
from mvemo.extract.media.reading import Decoded, decode_clip
from mvemo.extract.store.workers import in_workers
from mvemo.manifests.files import cause, replacing, write_json

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Rises whenever the same file would be decoded to other values.
DECODING_VERSION = 1


@dataclass(frozen=True)
class DecodeRequest:
    """What is decoded of every clip.

    Parameters
    ----------
    sample_rates
        Of the waveforms, in Hz; empty for none.
    n_frames
        Frames a clip.
    sizes
        Of the frames, in pixels; empty for none.
    """

    sample_rates: tuple[int, ...] = ()
    n_frames: int = 32
    sizes: tuple[int, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON values, for a run's settings."""
        return {
            "sample_rates": list(self.sample_rates),
            "n_frames": self.n_frames,
            "sizes": list(self.sizes),
        }

    def files(self) -> dict[str, tuple[str, ...]]:
        """Modality to the names of the files that hold it."""
        return {
            "audio": tuple(f"{rate}.npy" for rate in self.sample_rates),
            "video": tuple(f"{self.n_frames}x{size}.npy" for size in self.sizes),
        }


@dataclass(frozen=True)
class DecodeJob:
    """One clip to decode.

    Parameters
    ----------
    clip_id
        For the caller.
    path
        Of the media file.
    content
        `content_digest` of the file.
    start, duration
        The clip's stretch of it in seconds; None for all that follows.
    """

    clip_id: str
    path: Path
    content: str
    start: float = 0.0
    duration: float | None = None


class DecodedStore:
    """Decoded clips under one folder.

    Parameters
    ----------
    folder
        Made where needed.
    request
        What is read from it.
    """

    def __init__(self, folder: Path, request: DecodeRequest) -> None:
        self.folder = folder
        self.request = request
        self._base: dict[str, Path] = {}

    def waveform(self, clip_id: str, sample_rate: int) -> Floats:
        """float32 (samples,), memory-mapped; of a clip that `decode_many` decoded.

        Raises
        ------
        BadMedia
            It is not there.
        """
        return self._load(clip_id, f"{sample_rate}.npy")

    def frames(self, clip_id: str, size: int) -> Bytes:
        """uint8 (n_frames, size, size, 3), memory-mapped; as `waveform`."""
        return self._load(clip_id, f"{self.request.n_frames}x{size}.npy")

    def _load(self, clip_id: str, name: str) -> NDArray[Any]:
        found = _mapped(self.folder_of(clip_id) / name)
        if found is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache {self.folder}")
        return found

    def folder_of(self, clip_id: str) -> Path:
        """Folder of the arrays of a clip that was given to `place`.

        Raises
        ------
        BadMedia
            It was not.
        """
        base = self._base.get(clip_id)
        if base is None:
            raise BadMedia(f"clip {clip_id!r} is not in the working cache {self.folder}")
        return base

    def waveform_path(self, clip_id: str, sample_rate: int) -> Path:
        """The file of `waveform`."""
        return self.folder_of(clip_id) / f"{sample_rate}.npy"

    def place(self, job: DecodeJob) -> Path:
        """The folder of a clip's arrays, by content and stretch, not by name."""
        length = None if job.duration is None else float(job.duration)
        key = digest_of([job.content, float(job.start), length, DECODING_VERSION])
        # Thousands of folders in one are slow on some file systems.
        base = self.folder / key[:2] / key[2:34]
        self._base[job.clip_id] = base
        return base


def decode_many(
    store: DecodedStore,
    jobs: Sequence[DecodeJob],
    *,
    workers: int = 0,
    on_done: Callable[[str, dict[str, str]], None] | None = None,
) -> None:
    """Decode what the store lacks; each clip is decoded at most once.

    Workers write what they decode themselves, so memory is bounded by their number.
    What is wrong with a broken clip is kept too, and it is not tried again.

    Parameters
    ----------
    store
        Takes the arrays.
    jobs
        Clips; unreadable ones stop no other.
    workers
        Processes; 0 for one a core.
    on_done
        Told each clip's id and problems (``audio`` or ``video`` to why), as it is done.

    Raises
    ------
    ExtractError
        The store cannot be written, or a worker died; what was decoded before is kept.
    """

    def done(clip_id: str, problems: dict[str, str]) -> None:
        if on_done is not None:
            on_done(clip_id, problems)

    waiting = []
    # Clips of the same content and stretch share their arrays.
    same: dict[Path, list[str]] = {}
    for job in jobs:
        base = store.place(job)
        if base in same:
            same[base].append(job.clip_id)
            continue
        same[base] = [job.clip_id]
        waiting.append((job, base))
    lacking = []
    for job, base in waiting:
        problems = _known_problems(base, store.request)
        if problems is None:
            lacking.append((job, base))
        else:
            for clip_id in same[base]:
                done(clip_id, problems)
    if not lacking:
        return
    tasks = [(job, base, store.request) for job, base in lacking]
    for base, problems in in_workers(_decode_one, tasks, workers=workers, where=str(store.folder)):
        for clip_id in same[base]:
            done(clip_id, problems)


def _decode_one(
    job: DecodeJob, base: Path, request: DecodeRequest, threads: int
) -> tuple[Path, dict[str, str]]:
    """Decode one clip and write its arrays; problems last, which marks it complete."""
    cv2.setNumThreads(1)
    lacking = _lacking(base, request)
    rates = tuple(r for r in request.sample_rates if f"{r}.npy" in lacking["audio"])
    sizes = tuple(s for s in request.sizes if f"{request.n_frames}x{s}.npy" in lacking["video"])
    lasting = True
    try:
        decoded = decode_clip(
            job.path,
            start=job.start,
            duration=job.duration,
            sample_rates=rates,
            n_frames=request.n_frames,
            sizes=sizes,
            threads=threads,
        )
    except (BadMedia, MissingFile) as error:
        why = str(error).removeprefix(f"{job.path}: ")
        # A file that is not there may be tomorrow; one that is broken stays so.
        lasting = isinstance(error, BadMedia)
        decoded = Decoded(
            problems={name: why for name, wanted in (("audio", rates), ("video", sizes)) if wanted}
        )
    try:
        base.mkdir(parents=True, exist_ok=True)
        for rate, waveform in decoded.waveforms.items():
            write_array(base / f"{rate}.npy", waveform)
        for size, frames in decoded.frames.items():
            write_array(base / f"{request.n_frames}x{size}.npy", frames)
        problems = {**_read_problems(base), **decoded.problems}
        if decoded.problems and lasting:
            write_json(base / "problems.json", problems, durable=False)
    except OSError as error:
        raise ExtractError(
            f"{base}: decoded media cannot be written: {cause(error)}; all that was "
            "decoded before is kept: make room and run the same command again"
        ) from None
    return base, _asked(problems, request)


def _known_problems(base: Path, request: DecodeRequest) -> dict[str, str] | None:
    """Problems of a clip that needs no decoding, None for one that does."""
    problems = _read_problems(base)
    if any(names and kind not in problems for kind, names in _lacking(base, request).items()):
        return None
    return _asked(problems, request)


def _lacking(base: Path, request: DecodeRequest) -> dict[str, tuple[str, ...]]:
    """Modality to the names of the files that are not there, or are damaged."""
    return {
        kind: tuple(name for name in names if _mapped(base / name) is None)
        for kind, names in request.files().items()
    }


def _asked(problems: dict[str, str], request: DecodeRequest) -> dict[str, str]:
    """Those of the modalities that a request has."""
    return {
        kind: problems[kind]
        for kind, names in request.files().items()
        if names and kind in problems
    }


def _read_problems(base: Path) -> dict[str, str]:
    try:
        saved = json.loads((base / "problems.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in saved.items()} if isinstance(saved, dict) else {}


def _mapped(path: Path) -> NDArray[Any] | None:
    """A saved array, None where there is none or it is damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    # A file name says what must be in it: RATE.npy, or COUNTxSIZE.npy.
    count, _, size = path.stem.partition("x")
    if size:
        shape: tuple[int, ...] = (int(count), int(size), int(size), 3)
        return array if array.dtype == np.uint8 and array.shape == shape else None
    return array if array.dtype == np.float32 and array.ndim == 1 else None


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file in one step: it is whole, or not there."""
    with replacing(path, durable=False) as temp, temp.open("wb") as file:
        np.save(file, array, allow_pickle=False)
