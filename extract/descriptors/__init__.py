"""Audio descriptors of J22: sequences with one row for each audible frame.

This package does not import torch, so that workers that describe clips need little memory.
"""

from mvemo.extract.descriptors.describe import DESCRIPTORS as DESCRIPTORS
from mvemo.extract.descriptors.describe import LOUDNESS as LOUDNESS
from mvemo.extract.descriptors.describe import TIMES as TIMES
from mvemo.extract.descriptors.describe import describe as describe
from mvemo.extract.descriptors.describe import descriptor_spec as descriptor_spec
from mvemo.extract.descriptors.describe import dim_of as dim_of
from mvemo.extract.descriptors.framing import DescriptorSettings as DescriptorSettings
