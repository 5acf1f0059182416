"""Audio descriptors of J22 (A3-A8): sequences with one row for each audible frame.

Nothing here needs torch: workers that describe clips stay small.
"""

from mvemo.extract.descriptors.describe import DESCRIPTORS, describe, descriptor_spec, dim_of
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.descriptors.spectral import cut_blocks

__all__ = [
    "DESCRIPTORS",
    "DescriptorSettings",
    "cut_blocks",
    "describe",
    "descriptor_spec",
    "dim_of",
]
