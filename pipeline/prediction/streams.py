"""Feature streams: the features of a clip's windows, made while it is decoded."""

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
    """Windows of a clip that are predicted."""

    seconds: float  # length of the clip
    windows: tuple[Span, ...]  # (start, stop) in seconds from the clip's start, ascending
    # Seconds between views of several frames; 0 for consecutive views.
    view_step: float = 0.0

    @property
    def window(self) -> float:
        """Length of the longest window."""
        return max(stop - start for start, stop in self.windows)


class FeatureStream(ABC):
    """One feature of all windows of a clip, made by one net."""

    sr: int = 0  # sampling rate of the sound in Hz; 0 if it reads no sound
    size: int = 0  # height and width of the pictures in pixels; 0 if it reads none
    reach: float = 0.0  # seconds after a window's end that its vector needs

    def __init__(self) -> None:
        # Times of the pictures in seconds from the clip's start, ascending, float64 (n,).
        self.times: F64 = np.zeros(0)

    def add_sound(self, y: F32) -> None:  # noqa: B027
        """Add the next samples, float32 (n,)."""

    def add_picture(self, row: int, picture: U8) -> None:  # noqa: B027
        """Add the picture of `times[row]`, uint8 (size, size, 3); pictures come in order."""

    def finish(self) -> None:  # noqa: B027
        """Finish the clip."""

    @abstractmethod
    def vector(self, window: Span, without: Span | None = None) -> F64 | None:
        """Return float64 (dim,) of a window, omitting the stretch `without`, or None."""

    @abstractmethod
    def forget(self, before: float) -> None:
        """Drop data that only windows beginning before this time need."""


@torch.inference_mode()
def embed_array(net: Net, raw: NDArray[Any], *, pieces: bool = False) -> F32:
    """Embed raw input, or pieces of it, on the net's device; return float32 (batch, dim)."""
    x = torch.from_numpy(raw).to(net.classifier.weight.device)
    embedded = net.embed_pieces(x) if pieces else net.embed(net.prepare(x))
    values: F32 = embedded.float().cpu().numpy()
    return values
