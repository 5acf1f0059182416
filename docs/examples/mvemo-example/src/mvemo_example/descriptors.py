"""Crest factor of each frame: its peak divided by its root mean square."""

import numpy as np

from mvemo.extract import Descriptor


def crest(frames, sr):
    """Return the crest factor of frames: float32 (frames, samples) -> (frames, 1)."""
    power = np.square(frames).mean(axis=1, keepdims=True)
    return np.abs(frames).max(axis=1, keepdims=True) / np.sqrt(power)


CREST = Descriptor(dim=1, values=crest)
