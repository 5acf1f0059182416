"""Audio descriptors of J22: sequences with one row for each audible frame.

This package does not import torch, so that workers that describe clips need little memory.
"""

from mvemo.extract.descriptors.describe import (
    DESCRIPTORS,
    LOUDNESS,
    TIMES,
    Descriptor,
    describe,
    descriptor_spec,
    dim_of,
)
from mvemo.extract.descriptors.framing import DescriptorSettings

__all__ = [
    "DESCRIPTORS",
    "LOUDNESS",
    "TIMES",
    "Descriptor",
    "DescriptorSettings",
    "describe",
    "descriptor_spec",
    "dim_of",
]
