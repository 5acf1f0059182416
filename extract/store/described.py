"""Working cache of descriptor sequences, in the folders of the decoded waveforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mvemo.cache.spec import FeatureSpec
from mvemo.extract.array_types import F32
from mvemo.extract.descriptors import DescriptorSettings, describe, descriptor_spec
from mvemo.extract.descriptors.spectral import FilterBanks, filter_banks
from mvemo.extract.errors import BadMedia, OutOfMemory, WorkerDied
from mvemo.extract.store.decoded import DecodedStore
from mvemo.extract.store.folders import array_path, map_array, write_array
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call, ClipLimits

_DESCRIBE = "mvemo.extract.store.described:describe_job"


class DescribedStore:
    """Store of descriptor sequences; `decoded` has the waveforms at ``settings.sr``."""

    def __init__(
        self, decoded: DecodedStore, settings: DescriptorSettings, names: Sequence[str]
    ) -> None:
        self.decoded = decoded
        self.settings = settings
        self.specs: Mapping[str, FeatureSpec] = {
            name: descriptor_spec(name, settings) for name in dict.fromkeys(names)
        }

    def paths(self, clip_id: str) -> dict[str, Path]:
        """Return the files of a clip's sequences by name; each setting has its own file."""
        folder = self.decoded.folder_of(clip_id)
        return {
            name: folder / f"{name}-{spec.digest[:16]}.npy" for name, spec in self.specs.items()
        }

    def missing(self, clip_id: str) -> dict[str, Path]:
        """Return the entries of `paths` that are not in the store."""
        return {
            name: path
            for name, path in self.paths(clip_id).items()
            if map_array(path, np.float32, (None, self.specs[name].dim)) is None
        }

    def sequence(self, clip_id: str, name: str) -> F32:
        """Return a clip's sequence, float32 (frames, dim), memory-mapped."""
        array = map_array(self.paths(clip_id)[name], np.float32, (None, self.specs[name].dim))
        if array is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache")
        return array

    def joined(self, clip_id: str, names: Sequence[str]) -> F32:
        """Return several sequences side by side, float32 (frames, sum of dims).

        A sequence with fewer frames than another is padded with NaN rows: the spectrogram has
        its own framing.
        """
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
    """Describe the clips that are not in the store; return how many were in it already.

    `on_clip` is called with each clip's id and its problem, which is empty if it was described.
    """
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
    # Computed once here, not in each worker.
    banks = filter_banks(settings)
    calls = []
    for clip_id, paths in missing.items():
        path = array_path(store.decoded.folder_of(clip_id), settings.sr)
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
    """Describe one clip and write its sequences; return its problem, empty if it has none."""
    try:
        sequences = describe(np.load(waveform_path, mmap_mode="r"), settings, paths, banks=banks)
    except BadMedia as error:
        return str(error)
    for name, values in sequences.items():
        write_array(paths[name], values)
    return ""
