"""The working cache: decoded waveforms and frames that every epoch rereads.

It lies on the machine of stage one and never travels. A clip's arrays are plain ``.npy``
files, named by what they were decoded from and how, so that another run finds them, also
one that needs only some of them; reading maps them into memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mvemo.cache.spec import digest_of
from mvemo.extract.arrays import F32, U8
from mvemo.extract.errors import BadMedia, ExtractError, MissingFile
from mvemo.extract.media.checks import Problem
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import Decoded
from mvemo.extract.store.arrays import map_array, write_array
from mvemo.extract.store.workers import map_unordered
from mvemo.manifests.files import cause, write_json

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

    @property
    def modalities(self) -> tuple[str, ...]:
        """``audio``, ``video`` or both, as they are asked for."""
        asked = (("audio", self.sample_rates), ("video", self.sizes))
        return tuple(modality for modality, values in asked if values)

    def without_stored(self, folder: Path) -> DecodeRequest:
        """The part of the request for which a clip's folder has no whole array."""
        return DecodeRequest(
            tuple(sr for sr in self.sample_rates if _map_waveform(folder, sr) is None),
            self.n_frames,
            tuple(s for s in self.sizes if _map_frames(folder, self.n_frames, s) is None),
        )


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
        Created where needed.
    request
        What is read from it.
    """

    def __init__(self, folder: Path, request: DecodeRequest) -> None:
        self.folder = folder
        self.request = request
        self._folders: dict[str, Path] = {}

    def waveform(self, clip_id: str, sample_rate: int) -> F32:
        """float32 (samples,), memory-mapped; of a clip that `decode_many` decoded.

        Raises
        ------
        BadMedia
            It is not in the store.
        """
        array = _map_waveform(self.folder_of(clip_id), sample_rate)
        if array is None:
            raise BadMedia(
                f"clip {clip_id!r}: its waveform at {sample_rate} Hz is not in the working "
                f"cache {self.folder}"
            )
        return array

    def frames(self, clip_id: str, size: int) -> U8:
        """uint8 (n_frames, size, size, 3), memory-mapped; as `waveform`."""
        array = _map_frames(self.folder_of(clip_id), self.request.n_frames, size)
        if array is None:
            raise BadMedia(
                f"clip {clip_id!r}: its {self.request.n_frames} frames of {size} pixels are not "
                f"in the working cache {self.folder}"
            )
        return array

    def folder_of(self, clip_id: str) -> Path:
        """Folder of the arrays of a clip that was given to `assign_folder`.

        Raises
        ------
        BadMedia
            It was not.
        """
        folder = self._folders.get(clip_id)
        if folder is None:
            raise BadMedia(f"clip {clip_id!r} is not in the working cache {self.folder}")
        return folder

    def waveform_path(self, clip_id: str, sample_rate: int) -> Path:
        """The file of `waveform`."""
        return _waveform_path(self.folder_of(clip_id), sample_rate)

    def assign_folder(self, job: DecodeJob) -> Path:
        """The folder of a clip's arrays, by content and stretch, not by name."""
        length = None if job.duration is None else float(job.duration)
        key = digest_of([job.content, float(job.start), length, DECODING_VERSION])
        # Thousands of folders in one are slow on some file systems.
        folder = self.folder / key[:2] / key[2:34]
        self._folders[job.clip_id] = folder
        return folder


def decode_many(
    store: DecodedStore,
    jobs: Sequence[DecodeJob],
    *,
    workers: int = 0,
    on_clip: Callable[[str, Mapping[str, Problem]], object] | None = None,
) -> None:
    """Decode what is not in the store; each clip is decoded at most once.

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
    on_clip
        Called with each clip's id and problems (``audio`` or ``video`` to why it has no
        such modality), as it is done.

    Raises
    ------
    ExtractError
        The store cannot be written, or a worker died; what was decoded before is kept.
    """
    # Clips of the same content and stretch share their arrays.
    clip_ids: dict[Path, list[str]] = {}
    first_jobs: dict[Path, DecodeJob] = {}
    for job in jobs:
        folder = store.assign_folder(job)
        clip_ids.setdefault(folder, []).append(job.clip_id)
        first_jobs.setdefault(folder, job)

    def report(folder: Path, problems: Mapping[str, Problem]) -> None:
        for clip_id in clip_ids[folder]:
            if on_clip is not None:
                on_clip(clip_id, problems)

    calls = []
    for folder, job in first_jobs.items():
        problems = _stored_problems(folder, store.request)
        if problems is None:
            calls.append((job, folder, store.request))
        else:
            report(folder, problems)
    results = map_unordered(_decode_one, calls, workers=workers, output=str(store.folder))
    for folder, problems in results:
        report(folder, problems)


def _decode_one(
    job: DecodeJob, folder: Path, request: DecodeRequest, threads: int
) -> tuple[Path, dict[str, Problem]]:
    """Decode one clip and write its arrays; problems last, which marks it complete."""
    cv2.setNumThreads(1)
    needed = request.without_stored(folder)
    permanent = True
    try:
        decoded = decode_clip(
            job.path,
            start=job.start,
            duration=job.duration,
            sample_rates=needed.sample_rates,
            n_frames=needed.n_frames,
            sizes=needed.sizes,
            threads=threads,
        )
    except (BadMedia, MissingFile) as error:
        # A file that is not there may be tomorrow; one that is broken stays so.
        permanent = isinstance(error, BadMedia)
        problem = Problem(str(error).removeprefix(f"{job.path}: "))
        decoded = Decoded(problems=dict.fromkeys(needed.modalities, problem))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rate, waveform in decoded.waveforms.items():
            write_array(_waveform_path(folder, rate), waveform)
        for size, frames in decoded.frames.items():
            write_array(_frames_path(folder, request.n_frames, size), frames)
        problems = {**_read_problems(folder), **decoded.problems}
        if decoded.problems and permanent:
            _write_problems(folder, problems)
    except OSError as error:
        raise ExtractError(
            f"{folder}: decoded media cannot be written: {cause(error)}; all that was "
            "decoded before is kept: make room and run the same command again"
        ) from None
    return folder, {kind: problems[kind] for kind in request.modalities if kind in problems}


def _stored_problems(folder: Path, request: DecodeRequest) -> dict[str, Problem] | None:
    """Problems of a clip that needs no decoding, None for one that does."""
    problems = _read_problems(folder)
    if not set(request.without_stored(folder).modalities) <= set(problems):
        return None
    return {kind: problems[kind] for kind in request.modalities if kind in problems}


def _write_problems(folder: Path, problems: Mapping[str, Problem]) -> None:
    values = {k: {"reason": p.reason, "missing": p.missing} for k, p in problems.items()}
    write_json(folder / "problems.json", values, durable=False)


def _read_problems(folder: Path) -> dict[str, Problem]:
    """Problems by modality; none where the file is of another form: the clip is read again."""
    try:
        saved: Any = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
        return {k: Problem(str(p["reason"]), bool(p["missing"])) for k, p in saved.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _waveform_path(folder: Path, sample_rate: int) -> Path:
    return folder / f"{sample_rate}.npy"


def _frames_path(folder: Path, n_frames: int, size: int) -> Path:
    return folder / f"{n_frames}x{size}.npy"


def _map_waveform(folder: Path, sample_rate: int) -> F32 | None:
    return map_array(_waveform_path(folder, sample_rate), np.float32, (None,))


def _map_frames(folder: Path, n_frames: int, size: int) -> U8 | None:
    return map_array(_frames_path(folder, n_frames, size), np.uint8, (n_frames, size, size, 3))
