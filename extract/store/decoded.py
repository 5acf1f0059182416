"""Working cache of decoded media and descriptors, which training reads in every epoch.

It stays on the machine of stage one. A clip's arrays are ``.npy`` files, named by the content of
the media file and by the kind of decoding, so that other runs can reuse them, or only some of
them. Arrays are mapped into memory when they are read.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec, digest_of
from mvemo.extract.descriptors import LOUDNESS, DescriptorSettings, describe, descriptor_spec
from mvemo.extract.descriptors.spectral import FilterBanks, filter_banks
from mvemo.extract.errors import BadMedia, OutOfMemory, WorkerDied
from mvemo.extract.media.request import FrameSampling, MediaProblem, error_line
from mvemo.extract.store import folders
from mvemo.extract.store.folders import DecodeJob, DecodeRequest
from mvemo.extract.workers.pool import cores, run_calls
from mvemo.extract.workers.process import Call, CallResult, ClipLimits
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import MvemoError

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
        array = folders.map_decoded(self.folder_of(clip_id), wanted, self.request.level)
        if array is None:
            kind = "frames" if isinstance(wanted, FrameSampling) else "waveform"
            name = folders.array_path(Path(), wanted).stem
            raise BadMedia(
                f"clip {clip_id!r}: its {kind} {name} is not in the working cache {self.folder}"
            )
        return array

    def folder_of(self, clip_id: str) -> Path:
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
) -> dict[str, dict[str, MediaProblem] | None]:
    """Return each clip's stored problems by id; None for a clip that `decode_many` would decode."""
    return {
        job.clip_id: _stored_problems(store.assign_folder(job), store.request, retry_failed)
        for job in jobs
    }


def decode_many(
    store: DecodedStore,
    jobs: Sequence[DecodeJob],
    settings: DecodeSettings,
    *,
    on_clip: Callable[[str, Mapping[str, MediaProblem]], object] = lambda clip_id, problems: None,
    on_kept: Callable[[int], object] = lambda count: None,
) -> None:
    """Decode the clips that are not in the store; first call `on_kept` with the number in it."""
    # Clips with the same content and time range share their arrays.
    waiting: dict[Path, list[DecodeJob]] = {}
    for job in jobs:
        waiting.setdefault(store.assign_folder(job), []).append(job)

    def report(
        folder: Path, problems: Mapping[str, MediaProblem], path: Path | None = None
    ) -> None:
        """Report the clips whose arrays go into `folder`; with `path`, only those of that file."""
        for job in list(waiting[folder]):
            if path in (None, job.path):
                waiting[folder].remove(job)
                on_clip(job.clip_id, problems)

    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(
            lambda folder: _stored_problems(folder, store.request, settings.retry_failed), waiting
        )
        for folder, problems in zip(waiting, found, strict=True):
            if problems is not None:
                report(folder, problems)
    on_kept(len(jobs) - sum(map(len, waiting.values())))
    while unstored := [folder for folder, remaining in waiting.items() if remaining]:
        threads = max(cores() // min(settings.workers or cores(), len(unstored)), 1)
        calls = []
        for folder in unstored:
            job, request = waiting[folder][0], folders.unstored(store.request, folder)
            limits = settings.limits.of_file(job.path)
            calls.append(Call(_DECODE, (job, folder, request, threads), *limits))
        for outcome in run_calls(calls, workers=settings.workers):
            job, folder, request, _ = calls[outcome.index].arguments
            problems = _problems_of(outcome, folder, request, settings.limits)
            # A missing or changed file does not affect other files with the same content.
            temporary = any(problem.passing for problem in problems.values())
            path = job.path if temporary else None
            report(folder, _asked(folders.read_problems(folder) | problems, store.request), path)


def _asked(problems: Mapping[str, MediaProblem], request: DecodeRequest) -> dict[str, MediaProblem]:
    return {
        kind: problems[kind] for kind in (*request.modalities, folders.NOTE) if kind in problems
    }


def _problems_of(
    outcome: CallResult, folder: Path, request: DecodeRequest, limits: ClipLimits
) -> dict[str, MediaProblem]:
    """Return the problems of a decoded clip, or of a clip that crashed its worker."""
    error, passing = outcome.error, True
    if error is None:
        return outcome.value
    if isinstance(error, WorkerDied):
        reason, passing = str(error), error.passing
    elif isinstance(error, OutOfMemory):
        reason = f"decoding it takes more than {limits.memory:g} GiB of memory"
    elif isinstance(error, (MvemoError, ImportError)) or not isinstance(error, Exception):
        # The store cannot be written, or a library is missing: end the run.
        raise error
    else:
        reason = f"cannot be decoded: {type(error).__name__}: {error_line(error)}"
    problems = dict.fromkeys(request.modalities, MediaProblem(reason, passing=passing))
    # A temporary problem (no memory, no file, a timeout) is not stored.
    if not passing:
        with suppress(MvemoError):
            folders.write_problems(folder, {**folders.read_problems(folder), **problems})
    return problems


def _stored_problems(
    folder: Path, request: DecodeRequest, retry_failed: bool
) -> dict[str, MediaProblem] | None:
    problems = folders.read_problems(folder, failed=not retry_failed)
    if not set(folders.unstored(request, folder).modalities) <= set(problems):
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

    def path(self, clip_id: str, name: str) -> Path:
        return self.decoded.folder_of(clip_id) / f"{name}-{self.specs[name].digest[:16]}.npy"

    def _find(self, clip_id: str, name: str) -> F32 | None:
        return folders.map_array(self.path(clip_id, name), np.float32, (None, self.specs[name].dim))

    def missing(self, clip_id: str) -> dict[str, Path]:
        names = [name for name in self.specs if self._find(clip_id, name) is None]
        return {name: self.path(clip_id, name) for name in names}

    def sequence(self, clip_id: str, name: str) -> F32:
        array = self._find(clip_id, name)
        if array is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache")
        return array

    def joined(self, clip_id: str, names: Sequence[str]) -> F32:
        """Return sequences joined by column, (frames, sum of dims), padded with NaN at the end."""
        parts = [self.sequence(clip_id, name) for name in names]
        longest = max(map(len, parts))
        for i, part in enumerate(parts):
            if len(part) < longest:
                padding = ((0, longest - len(part)), (0, 0))
                parts[i] = np.pad(part, padding, constant_values=np.nan)
        return np.concatenate(parts, axis=1)


def describe_many(
    store: DescribedStore,
    clip_ids: Sequence[str],
    decoding: DecodeSettings,
    *,
    on_clip: Callable[[str, str], object] = lambda clip_id, problem: None,
    on_kept: Callable[[int], object] = lambda count: None,
) -> None:
    """Describe the clips that are not in the store; first call `on_kept` with the number in it."""
    missing: dict[str, dict[str, Path]] = {}
    for clip_id in clip_ids:
        if paths := store.missing(clip_id):
            missing[clip_id] = paths
        else:
            on_clip(clip_id, "")
    on_kept(len(clip_ids) - len(missing))
    if not missing:
        return
    undescribed, settings = list(missing), store.settings
    # The filter banks are computed once here, not in each worker.
    banks = filter_banks(settings)
    calls = []
    for clip_id, paths in missing.items():
        folder = store.decoded.folder_of(clip_id)
        path = folders.array_path(folder, settings.sr, store.decoded.request.level)
        calls.append(
            Call(_DESCRIBE, (path, settings, banks, paths), *decoding.limits.of_file(path))
        )
    for outcome in run_calls(calls, workers=decoding.workers):
        died = isinstance(outcome.error, (WorkerDied, OutOfMemory))
        on_clip(undescribed[outcome.index], str(outcome.error) if died else outcome.result())


def describe_job(
    waveform_path: Path, settings: DescriptorSettings, banks: FilterBanks, paths: Mapping[str, Path]
) -> str:
    """Describe a clip and write its sequences; return its problem, or '' if there is none."""
    try:
        # The waveform may have been brought to a level, so its loudness is stored at decoding.
        names = [name for name in paths if name != LOUDNESS]
        sequences = describe(np.load(waveform_path, mmap_mode="r"), settings, names, banks=banks)
    except BadMedia as error:
        return str(error)
    if LOUDNESS in paths:
        sequences[LOUDNESS] = np.load(waveform_path.with_name(folders.LOUDNESS))
    for name, values in sequences.items():
        folders.write_array(paths[name], values)
    return ""
