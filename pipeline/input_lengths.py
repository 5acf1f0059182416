"""Clips that are longer than what a net reads of them: nothing is left out unsaid."""

from __future__ import annotations

from collections.abc import Mapping

from mvemo.extract.nets import NETS, AudioInput, SequenceInput, SharedSettings, input_of
from mvemo.extract.settings import NetSettings

# Files of 30 s last a little longer, filled up to whole frames of their codec.
LEAST_EXCESS = 0.25


def input_seconds(plan: NetSettings, shared: SharedSettings) -> float | None:
    """Seconds of a clip that a net reads at most; None where it reads of the whole clip.

    Examples
    --------
    >>> from mvemo.extract.descriptors import DescriptorSettings
    >>> shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    >>> input_seconds(NetSettings("music1d", options={"seconds": 10.0}), shared)
    10.0
    >>> input_seconds(NetSettings("i3d"), shared) is None
    True
    """
    net_input = input_of(plan)
    if isinstance(net_input, AudioInput):
        return net_input.seconds
    if isinstance(net_input, SequenceInput):
        return net_input.n_frames * shared.descriptors.hop_length / shared.descriptors.sr
    return None


def longer_clips_note(
    plan: NetSettings, seconds: Mapping[str, float], shared: SharedSettings
) -> str:
    """A note on the clips whose end a net does not read; empty where there is none.

    Parameters
    ----------
    plan
        Of the net.
    seconds
        Clip id to the length of its sound.
    shared
        What the options of nets follow.

    Returns
    -------
    One line: how many clips, and what to do.
    """
    limit = input_seconds(plan, shared)
    if limit is None:
        return ""
    longer = [length for length in seconds.values() if length > limit + LEAST_EXCESS]
    if not longer:
        return ""
    note = (
        f"{len(longer)} of {len(seconds)} clips are longer than the {limit:.4g} s that {plan.name} "
        f"reads, up to {max(longer):.4g} s: what follows is not used; divide them with 'mvemo "
        "manifest segment'"
    )
    options = NETS[plan.name].options_for(float(-(-max(longer) // 1)), shared)
    if options:
        texts = (f"--set nets.{plan.name}.options.{key}={value}" for key, value in options.items())
        note += f", or have the net read more with {' '.join(texts)}"
    return note
