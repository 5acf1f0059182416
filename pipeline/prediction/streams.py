"""What makes one feature of the windows of a clip while it is decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvemo.extract.arrays import F32, F64, U8
from mvemo.extract.nets import Net

Span = tuple[float, float]


@dataclass(frozen=True)
class StreamPlan:
    """Which windows of a clip are predicted."""

    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # (start, stop) of each in seconds from the clip's start, ascending
    # Seconds from one view of several frames to the next; 0 for one after the other.
    view_step: float = 0.0

    @property
    def window(self) -> float:
        """Length of the longest window."""
        return max(stop - start for start, stop in self.windows)


class FeatureStream(ABC):
    """One feature by one net, of all windows of a clip."""

    sr: int = 0  # of the sound that it reads; 0 for none
    # When the pictures that it reads are shown, float64 (n,), ascending, in seconds from the
    # clip's start, and their height and width; none and 0 where it reads none.
    size: int = 0
    reach: float = 0.0  # seconds after a window's end that are decoded before its vector is made

    def __init__(self) -> None:
        self.times: F64 = np.zeros(0)

    def add_sound(self, y: F32) -> None:  # noqa: B027
        """Take the next samples, float32 (n,)."""

    def add_picture(self, row: int, picture: U8) -> None:  # noqa: B027
        """Take the picture of one of `times`, uint8 (size, size, 3); they come in order."""

    def finish(self) -> None:  # noqa: B027
        """Take note that the clip is at its end."""

    @abstractmethod
    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        """float64 (dim,) of a window, as if a stretch of it were not there; None of nothing."""

    @abstractmethod
    def forget(self, before: float) -> None:
        """Drop what only windows that begin before this time need."""


@torch.inference_mode()
def embed_array(net: Net, raw: NDArray[Any], *, pieces: bool = False) -> F32:
    """Return float32 (batch, dim) of raw input, or of pieces of it, on the net's device."""
    x = torch.from_numpy(raw).to(net.classifier.weight.device)
    embedded = net.embed_pieces(x) if pieces else net.embed(net.prepare(x))
    values: F32 = embedded.float().cpu().numpy()
    return values
