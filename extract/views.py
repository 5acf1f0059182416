"""Views: the windows of a clip that a net reads. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mvemo.extract.array_types import F64
from mvemo.extract.errors import BadSetting

LAYOUTS = ("start", "spread", "dense")
POOLINGS = ("mean", "mean+std")
# A remainder shorter than this share of a window gets no window: codecs pad files to whole
# frames.
LEAST_REST = 0.02


@dataclass(frozen=True)
class ViewSettings:
    """Windows of a clip that a net reads, and the pooling of their embeddings.

    Parameters
    ----------
    views
        Maximum number of windows per clip. A clip that fewer windows cover has fewer: no
        window occurs twice, and a window is padded only if the clip is shorter than it.
    layout
        Places of the windows. ``start``: one after the other from the clip's start.
        ``spread``: at equal distances, the first at the clip's start and the last at its
        end, and not more than cover the clip. ``dense``: like ``spread``, but neighbours may
        overlap by half. A single view begins at the clip's start in all layouts.
    rate
        For video nets: frames per second within a window, so that a window lasts ``n_frames
        / rate`` seconds. 0 splits the clip into `views` equal parts and spreads a window's
        frames evenly over its part: one view reads the whole clip, as in the papers.
    pooling
        ``mean`` for the mean of the windows' embeddings; ``mean+std`` to append their
        standard deviation, which is 0 for a clip with one window.

    Raises
    ------
    BadSetting
        A value is unknown or out of range.

    Examples
    --------
    >>> ViewSettings(views=4, rate=12.5).record()
    {'views': 4, 'layout': 'spread', 'rate': 12.5, 'pooling': 'mean'}
    >>> ViewSettings().record()
    {}
    """

    views: int = 1
    layout: str = "spread"
    rate: float = 0.0
    pooling: str = "mean"

    def __post_init__(self) -> None:
        if self.views < 1:
            raise BadSetting(f"views is {self.views}: it must be 1 or more")
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise BadSetting(f"rate is {self.rate}: it must be 0 or more frames a second")
        for name, allowed in (("layout", LAYOUTS), ("pooling", POOLINGS)):
            value = getattr(self, name)
            if value not in allowed:
                raise BadSetting(f"{name} {value!r} is not known: one of {', '.join(allowed)}")
        if self.pooling == "mean+std" and self.views == 1:
            raise BadSetting("pooling 'mean+std' needs views of 2 or more: one has no deviation")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values; empty for the default, so that old keys stay."""
        return {} if self == ViewSettings() else asdict(self)

    def pooled_dim(self, dim: int) -> int:
        """Return the size of a clip's embedding, given the size `dim` of a window's."""
        return 2 * dim if self.pooling == "mean+std" else dim


def window_starts(length: float, window: float, settings: ViewSettings) -> F64:
    """Return the starts of a clip's windows, float64 (windows,), ascending and all different.

    `length` (of the clip) and `window` are in the same unit. A clip that is shorter than a
    window has one window; otherwise all windows end within the clip.

    Examples
    --------
    >>> window_starts(25.0, 10.0, ViewSettings(views=4, layout="dense")).tolist()
    [0.0, 5.0, 10.0, 15.0]
    """
    room = length - window
    if room <= 0 or settings.views == 1:
        return np.zeros(1)
    covering = 1 + math.ceil(room / window - LEAST_REST)
    if settings.layout == "dense":
        covering = 1 + math.ceil(2 * room / window - LEAST_REST)
    count = min(settings.views, max(covering, 1))
    if settings.layout == "start":
        starts: F64 = np.minimum(np.arange(count) * window, room)
        return starts
    return np.linspace(0.0, room, count)
