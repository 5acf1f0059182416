"""Unimodal nets: a module of this folder without a leading underscore holds one or a few nets.

A net's module states everything specific to it: its card, input and options, and the layouts of
weight files that it accepts. `NETS` finds the net by listing the folder; no other file names it.
Code that nets share is in `mvemo.extract.nets.parts`. The names exported here are imported on first
use, so listing the nets does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
