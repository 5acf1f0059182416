"""Views: the windows of a clip that a net reads, one after the other. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mvemo.extract.arrays import F64
from mvemo.extract.errors import BadSetting

LAYOUTS = ("start", "spread", "dense")
POOLINGS = ("mean", "mean+std")
# A clip that is longer than whole windows by less than this share of one needs no more of
# them: codecs fill files up to whole frames.
LEAST_REST = 0.02


@dataclass(frozen=True)
class ViewSettings:
    """Which windows of a clip a net reads, and how their embeddings become one.

    Parameters
    ----------
    views
        Windows of a clip at most. A clip that fewer windows cover has fewer: no window is
        there twice, and none is filled up where the clip is long enough for it.
    layout
        ``start``: one after the other from the clip's start. ``spread``: at equal distances,
        the first at the clip's start and the last at its end, not more than cover it.
        ``dense``: as ``spread``, but neighbours may overlap by half. One view is at the
        clip's start in each of them.
    rate
        Of nets of pictures: frames a second within a window, which so lasts ``n_frames /
        rate`` seconds. 0 spreads a window's frames evenly over its part of the clip, of
        which there are `views` equal ones: one view is the whole clip, as the papers read it.
    pooling
        ``mean`` of the windows' embeddings, or ``mean+std``: their standard deviation after
        it, which is 0 where a clip has one window.

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
        """As JSON values; empty for the default, which is what was read before there were views."""
        return {} if self == ViewSettings() else asdict(self)

    def pooled_dim(self, dim: int) -> int:
        """Numbers of a clip's embedding, by those of a window's."""
        return 2 * dim if self.pooling == "mean+std" else dim


def window_starts(length: float, window: float, settings: ViewSettings) -> F64:
    """Where the windows of a clip begin.

    Examples
    --------
    >>> window_starts(30.0, 10.0, ViewSettings(views=2)).tolist()
    [0.0, 20.0]
    >>> window_starts(12.0, 10.0, ViewSettings(views=4)).tolist()
    [0.0, 2.0]
    >>> window_starts(25.0, 10.0, ViewSettings(views=4, layout="dense")).tolist()
    [0.0, 5.0, 10.0, 15.0]
    >>> window_starts(25.0, 10.0, ViewSettings(views=4, layout="start")).tolist()
    [0.0, 10.0, 15.0]
    >>> window_starts(8.0, 10.0, ViewSettings(views=4)).tolist()
    [0.0]
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
