"""Descriptor sequences of all clips, in the folders of the decoded waveforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mvemo.cache.spec import FeatureSpec
from mvemo.extract.arrays import F32
from mvemo.extract.descriptors import DescriptorSettings, describe, descriptor_spec
from mvemo.extract.descriptors.filter_banks import FilterBanks, filter_banks
from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.store.arrays import map_array, write_array
from mvemo.extract.store.decoded import DecodedStore
from mvemo.extract.store.workers import map_unordered
from mvemo.manifests.files import cause


class DescribedStore:
    """Descriptor sequences by clip, memory-mapped.

    Parameters
    ----------
    decoded
        Has the waveforms at ``settings.sr``.
    settings
        Of the descriptors.
    names
        Of the descriptors.
    """

    def __init__(
        self, decoded: DecodedStore, settings: DescriptorSettings, names: Sequence[str]
    ) -> None:
        self.decoded = decoded
        self.settings = settings
        self.specs: Mapping[str, FeatureSpec] = {
            name: descriptor_spec(name, settings) for name in dict.fromkeys(names)
        }

    def paths(self, clip_id: str) -> dict[str, Path]:
        """Name to the file of a clip's sequence; another setting is another file."""
        folder = self.decoded.folder_of(clip_id)
        return {
            name: folder / f"{name}-{spec.digest[:16]}.npy" for name, spec in self.specs.items()
        }

    def is_described(self, clip_id: str) -> bool:
        """Whether all sequences of a clip are in the store."""
        return all(
            map_array(path, np.float32, (None, self.specs[name].dim)) is not None
            for name, path in self.paths(clip_id).items()
        )

    def sequence(self, clip_id: str, name: str) -> F32:
        """float32 (frames, dim), memory-mapped.

        Raises
        ------
        BadMedia
            It is not in the store.
        """
        array = map_array(self.paths(clip_id)[name], np.float32, (None, self.specs[name].dim))
        if array is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache")
        return array

    def joined(self, clip_id: str, names: Sequence[str]) -> F32:
        """float32 (frames, all dims): several sequences, which share their frames."""
        return np.concatenate([self.sequence(clip_id, name) for name in names], axis=1)


def describe_many(
    store: DescribedStore,
    clip_ids: Sequence[str],
    *,
    workers: int = 0,
    on_clip: Callable[[str, str], object] | None = None,
) -> None:
    """Describe the clips that are not yet in the store.

    Parameters
    ----------
    store
        Takes the sequences.
    clip_ids
        Clips whose waveforms are decoded.
    workers
        Processes; 0 for one a core.
    on_clip
        Called with each clip's id, and why it has no descriptors (empty where it has).

    Raises
    ------
    ExtractError
        The working cache cannot be written, or a worker died.
    """
    undescribed = []
    for clip_id in clip_ids:
        if not store.is_described(clip_id):
            undescribed.append(clip_id)
        elif on_clip is not None:
            on_clip(clip_id, "")
    if not undescribed:
        return
    settings = store.settings
    # Made here, not in the workers: librosa takes more than a second to import.
    banks = filter_banks(settings)
    calls = [
        (clip_id, store.decoded.waveform_path(clip_id, settings.sr), settings, banks, paths)
        for clip_id, paths in ((clip_id, store.paths(clip_id)) for clip_id in undescribed)
    ]
    output = str(store.decoded.folder)
    for clip_id, problem in map_unordered(_describe_one, calls, workers=workers, output=output):
        if on_clip is not None:
            on_clip(clip_id, problem)


def _describe_one(
    clip_id: str,
    waveform_path: Path,
    settings: DescriptorSettings,
    banks: FilterBanks,
    paths: Mapping[str, Path],
    threads: int,
) -> tuple[str, str]:
    """Describe one clip and write its sequences; its id, and what is wrong with it."""
    del threads  # NumPy's share here runs on one
    try:
        sequences = describe(np.load(waveform_path, mmap_mode="r"), settings, paths, banks=banks)
    except BadMedia as error:
        return clip_id, str(error)
    try:
        for name, values in sequences.items():
            write_array(paths[name], values)
    except OSError as error:
        raise ExtractError(
            f"{waveform_path.parent}: descriptors cannot be written: {cause(error)}; "
            "what was done before is kept: make room and run the same command again"
        ) from None
    return clip_id, ""
