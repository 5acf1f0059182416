"""Clips that are longer than what a net reads of them: nothing is left out unsaid."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mvemo.extract.nets import AudioInput, SequenceInput, SharedSettings, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.views import window_starts

# Files of 30 s last a little longer, filled up to whole frames of their codec.
LEAST_EXCESS = 0.25


def window_seconds(plan: NetSettings, shared: SharedSettings) -> float | None:
    """Length of the windows that a net reads; None where its frames span the whole clip.

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
        # Of sequences with frames of their own, those of the shortest steps are the longest.
        hops = [shared.descriptors.framed(name).hop_length for name in net_input.features]
        return net_input.n_frames * min(hops) / shared.descriptors.sr
    return net_input.n_frames / plan.view.rate if plan.view.rate else None


def longer_clips_note(
    plan: NetSettings, seconds: Mapping[str, float], shared: SharedSettings
) -> str:
    """A note on the clips that a net's windows leave out a part of; empty where there is none.

    Windows of pictures that are spread over a clip to its end are a sample of it, as frames
    are, and no reason for a note; sound that no window has is.
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
    """Whether a part of a clip of this length is in no window."""
    if length <= window + LEAST_EXCESS:
        return False
    starts = window_starts(length, window, plan.view)
    if plan.view.rate:
        return bool(starts[-1] + window < length - LEAST_EXCESS)
    return window * len(starts) < length - LEAST_EXCESS


def _views_needed(plan: NetSettings, length: float, window: float) -> int:
    """The least number of views by which the end of the longest clip is read."""
    if plan.view.rate and plan.view.layout != "start":
        return 2
    return math.ceil((length - LEAST_EXCESS) / window)
