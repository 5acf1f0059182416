"""Notes on clips that are longer than the windows that a net reads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mvemo.extract.nets import AudioInput, SequenceInput, SharedSettings, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.views import window_starts

# Seconds that a clip may exceed the windows: codecs pad files to whole frames.
LEAST_EXCESS = 0.25


def window_seconds(plan: NetSettings, shared: SharedSettings) -> float | None:
    """Return the length of a net's windows in seconds, or None if its frames span the clip.

    Examples
    --------
    >>> from mvemo.extract.descriptors import DescriptorSettings
    >>> from mvemo.extract.views import ViewSettings
    >>> shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    >>> window_seconds(NetSettings("music1d", options={"seconds": 10.0}), shared)
    10.0
    >>> window_seconds(NetSettings("i3d"), shared) is None
    True
    >>> window_seconds(NetSettings("i3d", view=ViewSettings(views=4, rate=12.5)), shared)
    2.56
    """
    net_input = input_of(plan)
    if isinstance(net_input, AudioInput):
        return net_input.seconds
    if isinstance(net_input, SequenceInput):
        # Descriptors may have different hops: the shortest one has the most frames.
        hops = [shared.descriptors.framed(name).hop_length for name in net_input.features]
        return net_input.n_frames * min(hops) / shared.descriptors.sr
    return net_input.n_frames / plan.view.rate if plan.view.rate else None


def longer_clips_note(
    plan: NetSettings, seconds: Mapping[str, float], shared: SharedSettings
) -> str:
    """Return a note on the clips of which a net does not read a part, or ''.

    `seconds` are the lengths of the clips' sound by clip id. Sound outside all windows is noted.
    Pictures are noted only if the windows end before the clip does: in between, they sample it.
    """
    window = window_seconds(plan, shared)
    if window is None:
        return ""
    cut = [length for length in seconds.values() if _unread(plan, length, window)]
    if not cut:
        return ""
    view = plan.view
    limit = window * view.views
    reads = f"{limit:.4g} s" if view.views == 1 else f"{view.views} windows of {window:.4g} s"
    needed = _views_needed(plan, max(cut), window)
    return (
        f"{len(cut)} of {len(seconds)} clips are longer than the {reads} that {plan.name} "
        f"reads, up to {max(cut):.4g} s: the rest is not used; have it read more windows with "
        f"--set nets.{plan.name}.views={needed}, or divide the clips with 'mvemo manifest segment'"
    )


def _unread(plan: NetSettings, length: float, window: float) -> bool:
    """Return True if a part of a clip of this length is in no window."""
    if length <= window + LEAST_EXCESS:
        return False
    starts = window_starts(length, window, plan.view)
    if plan.view.rate:
        return bool(starts[-1] + window < length - LEAST_EXCESS)
    return window * len(starts) < length - LEAST_EXCESS


def _views_needed(plan: NetSettings, length: float, window: float) -> int:
    """Return the smallest number of views that reaches the end of a clip of this length."""
    if plan.view.rate and plan.view.layout != "start":
        return 2
    return math.ceil((length - LEAST_EXCESS) / window)
