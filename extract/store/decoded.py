"""Working cache of decoded media and descriptors, which training reads in every epoch.

It stays on the machine of stage one. A clip's arrays are ``.npy`` files, named by the content of
the media file and by the kind of decoding, so that other runs can reuse them, or only some of
them. Arrays are mapped into memory when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec, digest_of
from mvemo.extract.array_types import F32
from mvemo.extract.descriptors import DescriptorSettings, describe, descriptor_spec
from mvemo.extract.descriptors.spectral import FilterBanks, filter_banks
from mvemo.extract.errors import BadMedia, ExtractError, OutOfMemory, WorkerDied
from mvemo.extract.media.request import FrameSampling, Problem, error_line
from mvemo.extract.store import folders
from mvemo.extract.store.folders import DecodeJob, DecodeRequest
from mvemo.extract.workers.pool import Outcome, cores, run_calls
from mvemo.extract.workers.process import Call, ClipLimits

# These functions are given by name, because this process should not import the media libraries.
_DECODE = "mvemo.extract.store.decoding:decode_job"
_DESCRIBE = "mvemo.extract.store.decoded:describe_job"
# Number of threads that check the stored arrays.
_READERS = 4


@dataclass(frozen=True)
class DecodeSettings:
    """Settings of decoding that do not change its results."""

    workers: int = 0  # number of processes; 0 for one per core
    limits: ClipLimits = field(default_factory=ClipLimits)
    retry_failed: bool = False  # True to try again the clips that failed before


class DecodedStore:
    """Store of decoded clips in one folder, which is created if it does not exist."""

    def __init__(self, folder: Path, request: DecodeRequest) -> None:
        self.folder = folder
        self.request = request
        self._folders: dict[str, Path] = {}

    def array(self, clip_id: str, wanted: int | FrameSampling) -> NDArray[Any]:
        """Return a memory-mapped waveform, given its sampling rate in Hz, or frames."""
        array = folders.map_decoded(self.folder_of(clip_id), wanted)
        if array is None:
            kind = "frames" if isinstance(wanted, FrameSampling) else "waveform"
            name = folders.array_path(Path(), wanted).stem
            raise BadMedia(
                f"clip {clip_id!r}: its {kind} {name} is not in the working cache {self.folder}"
            )
        return array

    def folder_of(self, clip_id: str) -> Path:
        """Return the folder of a clip that was passed to `assign_folder`."""
        folder = self._folders.get(clip_id)
        if folder is None:
            raise BadMedia(f"clip {clip_id!r} is not in the working cache {self.folder}")
        return folder

    def assign_folder(self, job: DecodeJob) -> Path:
        """Return the folder of a clip's arrays, named by its file's content and the time range."""
        length = None if job.duration is None else float(job.duration)
        key = digest_of([job.content, float(job.start), length, folders.DECODING_VERSION])
        # Some file systems are slow if a folder has thousands of subfolders.
        folder = self.folder / key[:2] / key[2:34]
        self._folders[job.clip_id] = folder
        return folder


def stored_problems(
    store: DecodedStore, jobs: Sequence[DecodeJob], *, retry_failed: bool = False
) -> dict[str, dict[str, Problem] | None]:
    """Return each clip's stored problems by id; None for a clip that `decode_many` would decode."""
    return {
        job.clip_id: _stored_problems(store.assign_folder(job), store.request, retry_failed)
        for job in jobs
    }


def decode_many(
    store: DecodedStore,
    jobs: Sequence[DecodeJob],
    settings: DecodeSettings | None = None,
    *,
    on_clip: Callable[[str, Mapping[str, Problem]], object] | None = None,
) -> int:
    """Decode the clips that are not in the store; return the number of clips that are in it."""
    settings = settings or DecodeSettings()
    # Clips with the same content and time range share their arrays.
    waiting: dict[Path, list[DecodeJob]] = {}
    for job in jobs:
        waiting.setdefault(store.assign_folder(job), []).append(job)

    def report(folder: Path, problems: Mapping[str, Problem], path: Path | None = None) -> None:
        """Report the clips whose arrays go into `folder`; with `path`, only those of that file."""
        for job in list(waiting[folder]):
            if path in (None, job.path):
                waiting[folder].remove(job)
                if on_clip is not None:
                    on_clip(job.clip_id, problems)

    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(
            lambda folder: _stored_problems(folder, store.request, settings.retry_failed), waiting
        )
        for folder, problems in zip(waiting, found, strict=True):
            if problems is not None:
                report(folder, problems)
    n_new = sum(map(len, waiting.values()))
    while unstored := [folder for folder, remaining in waiting.items() if remaining]:
        needed = [store.request.without_stored(folder) for folder in unstored]
        first_jobs = [waiting[folder][0] for folder in unstored]
        threads = max(cores() // min(settings.workers or cores(), len(unstored)), 1)
        calls = [
            Call(_DECODE, (job, folder, request, threads), *settings.limits.of_file(job.path))
            for job, folder, request in zip(first_jobs, unstored, needed, strict=True)
        ]
        for outcome in run_calls(calls, workers=settings.workers):
            folder, request = unstored[outcome.index], needed[outcome.index]
            problems = _problems_of(outcome, folder, request, settings.limits)
            # A missing or changed file does not affect other files with the same content.
            temporary = any(problem.passing for problem in problems.values())
            path = first_jobs[outcome.index].path if temporary else None
            report(folder, _asked(folders.read_problems(folder) | problems, store.request), path)
    return len(jobs) - n_new


def _asked(problems: Mapping[str, Problem], request: DecodeRequest) -> dict[str, Problem]:
    return {
        kind: problems[kind] for kind in (*request.modalities, folders.NOTE) if kind in problems
    }


def _problems_of(
    outcome: Outcome, folder: Path, request: DecodeRequest, limits: ClipLimits
) -> dict[str, Problem]:
    """Return the problems of a decoded clip, or of a clip that crashed its worker."""
    error = outcome.error
    if error is None:
        problems: dict[str, Problem] = outcome.value
        return problems
    if isinstance(error, WorkerDied):
        problem = Problem(str(error), passing=error.passing)
    elif isinstance(error, OutOfMemory):
        reason = f"decoding it takes more than {limits.memory:g} GiB of memory"
        problem = Problem(reason, passing=True)
    elif isinstance(error, (ExtractError, ImportError)) or not isinstance(error, Exception):
        # The store cannot be written, or a library is missing: end the run.
        raise error
    else:
        reason = f"cannot be decoded: {type(error).__name__}: {error_line(error)}"
        problem = Problem(reason, passing=True)
    problems = dict.fromkeys(request.modalities, problem)
    # A temporary problem (no memory, no file, a timeout) is not stored.
    if not problem.passing:
        with suppress(ExtractError):
            folders.write_problems(folder, {**folders.read_problems(folder), **problems})
    return problems


def _stored_problems(
    folder: Path, request: DecodeRequest, retry_failed: bool
) -> dict[str, Problem] | None:
    """Return the stored problems of a clip, or None if it must be decoded."""
    problems = folders.read_problems(folder, failed=not retry_failed)
    if not set(request.without_stored(folder).modalities) <= set(problems):
        return None
    return _asked(problems, request)


class DescribedStore:
    """Store of descriptor sequences; `decoded` must hold the waveforms at ``settings.sr``."""

    def __init__(
        self, decoded: DecodedStore, settings: DescriptorSettings, names: Sequence[str]
    ) -> None:
        self.decoded = decoded
        self.settings = settings
        self.specs: Mapping[str, FeatureSpec] = {
            name: descriptor_spec(name, settings) for name in dict.fromkeys(names)
        }

    def paths(self, clip_id: str) -> dict[str, Path]:
        """Return the files of a clip's sequences by name; files differ by setting."""
        folder = self.decoded.folder_of(clip_id)
        return {
            name: folder / f"{name}-{spec.digest[:16]}.npy" for name, spec in self.specs.items()
        }

    def missing(self, clip_id: str) -> dict[str, Path]:
        return {
            name: path
            for name, path in self.paths(clip_id).items()
            if folders.map_array(path, np.float32, (None, self.specs[name].dim)) is None
        }

    def sequence(self, clip_id: str, name: str) -> F32:
        array = folders.map_array(
            self.paths(clip_id)[name], np.float32, (None, self.specs[name].dim)
        )
        if array is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache")
        return array

    def joined(self, clip_id: str, names: Sequence[str]) -> F32:
        """Return sequences joined by column, (frames, sum of dims), padded with NaN at the end."""
        parts = [self.sequence(clip_id, name) for name in names]
        longest = max(map(len, parts))
        if all(len(part) == longest for part in parts):
            return np.concatenate(parts, axis=1)
        joined = np.full((longest, sum(part.shape[1] for part in parts)), np.nan, np.float32)
        first = 0
        for part in parts:
            joined[: len(part), first : first + part.shape[1]] = part
            first += part.shape[1]
        return joined


def describe_many(
    store: DescribedStore,
    clip_ids: Sequence[str],
    *,
    workers: int = 0,
    limits: ClipLimits | None = None,
    on_clip: Callable[[str, str], object] | None = None,
) -> int:
    """Describe the clips that are not in the store; return the number of clips that are in it."""
    limits = limits or ClipLimits()
    missing: dict[str, dict[str, Path]] = {}
    for clip_id in clip_ids:
        if paths := store.missing(clip_id):
            missing[clip_id] = paths
        elif on_clip is not None:
            on_clip(clip_id, "")
    if not missing:
        return len(clip_ids)
    undescribed, settings = list(missing), store.settings
    # The filter banks are computed once here, not in each worker.
    banks = filter_banks(settings)
    calls = []
    for clip_id, paths in missing.items():
        path = folders.array_path(store.decoded.folder_of(clip_id), settings.sr)
        calls.append(Call(_DESCRIBE, (path, settings, banks, paths), *limits.of_file(path)))
    for outcome in run_calls(calls, workers=workers):
        died = isinstance(outcome.error, (WorkerDied, OutOfMemory))
        problem: str = str(outcome.error) if died else outcome.result()
        if on_clip is not None:
            on_clip(undescribed[outcome.index], problem)
    return len(clip_ids) - len(undescribed)


def describe_job(
    waveform_path: Path, settings: DescriptorSettings, banks: FilterBanks, paths: Mapping[str, Path]
) -> str:
    """Describe a clip and write its sequences; return its problem, or '' if there is none."""
    try:
        sequences = describe(np.load(waveform_path, mmap_mode="r"), settings, paths, banks=banks)
    except BadMedia as error:
        return str(error)
    for name, values in sequences.items():
        folders.write_array(paths[name], values)
    return ""
