"""Views: the windows of a clip that a net reads. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvemo.extract.array_types import F64

from mvemo.extract.errors import BadSetting
from mvemo.manifests.declared import check_settings, setting

LAYOUTS = ("start", "spread", "dense")
POOLINGS = ("mean", "mean+std")
# A remainder shorter than this share of a window gets no window: codecs pad files to whole
# frames.
LEAST_REST = 0.02


@dataclass(frozen=True)
class ViewSettings:
    """Windows of a clip that a net reads, and the pooling of their embeddings.

    A clip that fewer windows cover has fewer: no window occurs twice, and a window is padded only
    if the clip is shorter than it. Layouts: ``start``, one after the other from the clip's start;
    ``spread``, at equal distances from its start to its end, and not more than cover the clip;
    ``dense``, like ``spread``, but neighbours may overlap by half. A single view begins at the
    clip's start. For video nets a window lasts ``n_frames / rate`` seconds; a rate of 0 splits the
    clip into `views` equal parts and spreads a window's frames evenly over its part, as in the
    papers. ``mean+std`` appends the standard deviation to the mean of the embeddings.

    Examples
    --------
    >>> ViewSettings(views=4, rate=12.5).record()
    {'views': 4, 'layout': 'spread', 'rate': 12.5, 'pooling': 'mean'}
    """

    views: int = setting(1, "Maximum number of windows per clip.", ge=1)
    layout: str = setting("spread", "Position of the windows in the clip.", names=LAYOUTS)
    rate: float = setting(
        0.0, "Frames per second in a window; 0 to spread them over the clip.", ge=0
    )
    pooling: str = setting("mean", "Pooling of the windows' embeddings.", names=POOLINGS)

    def __post_init__(self) -> None:
        check_settings(self, BadSetting)
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
    import numpy as np  # not needed by ``--help``, which reads the settings

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
