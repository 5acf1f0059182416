"""Describing job of a worker: describe one clip's sound and write the sequences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.descriptors.filter_banks import FilterBanks
from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.store.arrays import write_array
from mvemo.manifests.files import cause


def describe_job(
    waveform_path: Path,
    settings: DescriptorSettings,
    banks: FilterBanks,
    paths: Mapping[str, Path],
) -> str:
    """Describe one clip and write its sequences; return its problem, empty if it has none."""
    try:
        sequences = describe(np.load(waveform_path, mmap_mode="r"), settings, paths, banks=banks)
    except BadMedia as error:
        return str(error)
    try:
        for name, values in sequences.items():
            write_array(paths[name], values)
    except OSError as error:
        raise ExtractError(
            f"{waveform_path.parent}: descriptors cannot be written: {cause(error)}; "
            "what was done before is kept: make room and run the same command again"
        ) from None
    return ""
