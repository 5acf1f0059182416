"""Audio descriptors of J22: sequences with one row for each audible frame.

This package does not import torch: workers that describe clips stay small.
"""

from mvemo.extract.descriptors.describe import DESCRIPTORS, TIMES, describe, descriptor_spec, dim_of
from mvemo.extract.descriptors.settings import DescriptorSettings

__all__ = ["DESCRIPTORS", "TIMES", "DescriptorSettings", "describe", "descriptor_spec", "dim_of"]
