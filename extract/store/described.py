"""Descriptor sequences of all clips, kept beside the decoded waveforms they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec
from mvemo.extract.descriptors import DescriptorSettings, describe, descriptor_spec
from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.store.decoded import DecodedStore, write_array
from mvemo.extract.store.workers import in_workers

Floats = NDArray[np.float32]


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

    def path(self, clip_id: str, name: str) -> Path:
        """Where a clip's sequence lies; another setting is another file."""
        base = self.decoded.folder_of(clip_id)
        return base / f"{name}-{self.specs[name].digest[:16]}.npy"

    def sequence(self, clip_id: str, name: str) -> Floats:
        """float32 (frames, dim), memory-mapped.

        Raises
        ------
        BadMedia
            It is not there.
        """
        found = _mapped(self.path(clip_id, name), self.specs[name].dim)
        if found is None:
            raise BadMedia(f"clip {clip_id!r}: {name} is not in the working cache")
        return found

    def joined(self, clip_id: str, names: Sequence[str]) -> Floats:
        """float32 (frames, all dims): several sequences, which share their frames."""
        return np.concatenate([self.sequence(clip_id, name) for name in names], axis=1)


def describe_many(
    store: DescribedStore,
    clip_ids: Sequence[str],
    *,
    workers: int = 0,
    on_done: Callable[[str, str], None] | None = None,
) -> None:
    """Describe what the store lacks.

    Parameters
    ----------
    store
        Takes the sequences.
    clip_ids
        Clips whose waveforms are decoded.
    workers
        Processes; 0 for one a core.
    on_done
        Told each clip's id, and why it has no descriptors (empty where it has).

    Raises
    ------
    ExtractError
        The working cache cannot be written, or a worker died.
    """

    def done(clip_id: str, problem: str) -> None:
        if on_done is not None:
            on_done(clip_id, problem)

    dims = {name: spec.dim for name, spec in store.specs.items()}
    lacking = []
    for clip_id in clip_ids:
        paths = {name: store.path(clip_id, name) for name in dims}
        if all(_mapped(paths[name], dims[name]) is not None for name in dims):
            done(clip_id, "")
        else:
            wave = store.decoded.waveform_path(clip_id, store.settings.sr)
            lacking.append((clip_id, wave, store.settings, paths))
    results = in_workers(_describe_one, lacking, workers=workers, where=str(store.decoded.folder))
    for clip_id, problem in results:
        done(clip_id, problem)


def _describe_one(
    clip_id: str, wave: Path, settings: DescriptorSettings, paths: Mapping[str, Path], threads: int
) -> tuple[str, str]:
    del threads  # NumPy's share here runs on one
    try:
        made = describe(np.load(wave, mmap_mode="r"), settings, paths)
    except BadMedia as error:
        return clip_id, str(error)
    try:
        for name, values in made.items():
            write_array(paths[name], values)
    except OSError as error:
        raise ExtractError(
            f"{wave.parent}: descriptors cannot be written: {error.strerror or error}; "
            "what was done before is kept: make room and run the same command again"
        ) from None
    return clip_id, ""


def _mapped(path: Path, dim: int) -> Floats | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.float32 and array.shape[1:] == (dim,) else None
