"""Frames of a waveform, and which of them are mute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mvemo.extract.descriptors.settings import DescriptorSettings, Floats
from mvemo.extract.errors import BadMedia

# Sound is decoded to [-1, 1]. Far beyond, powers would leave the range of float32.
LOUDEST = 32_768.0
# Frames worked on at once. Some tens stay in a core's cache; 64 frames of 2,048 samples
# are half a MiB.
BLOCK_SAMPLES = 64 * 2048


@dataclass(frozen=True)
class Frames:
    """Some frames of one clip.

    Parameters
    ----------
    values
        float32 (frames, n_fft), not windowed.
    before
        float32 (frames, lpc_order): the samples that precede each frame, zeros before the
        clip's start; linear prediction begins in them.
    """

    values: Floats
    before: Floats

    def __len__(self) -> int:
        return len(self.values)


def block_frames(settings: DescriptorSettings) -> int:
    """Frames to work on at once."""
    return max(BLOCK_SAMPLES // settings.n_fft, 1)


def audible_frames(y: Floats, settings: DescriptorSettings) -> NDArray[np.int64]:
    """Numbers of the frames that are not mute (A7), int64 (frames,), rising.

    Frame ``i`` begins at sample ``i * hop_length``. The last one is filled up with zeros; a
    clip shorter than a frame is one frame. Frames are dropped, not samples: cutting samples
    out would make clicks where the ends meet, and would shift the times of all that follows.

    Parameters
    ----------
    y
        float32 (samples,), finite.
    settings
        Their `mute_db` is the threshold of a frame's RMS.

    Raises
    ------
    BadMedia
        An empty or non-finite waveform, or one that is mute throughout.
    """
    if y.ndim != 1 or len(y) == 0:
        raise BadMedia(f"a waveform of shape {y.shape}: mono with at least one sample is needed")
    # Both are NaN where any sample is.
    low, high = float(y.min()), float(y.max())
    if not np.isfinite([low, high]).all():
        bad = int(np.count_nonzero(~np.isfinite(y)))
        raise BadMedia(f"{bad} of {len(y)} samples of the sound are NaN or infinite")
    peak = max(-low, high)
    if peak > LOUDEST:
        raise BadMedia(f"the sound's peak is {peak:.3g}: full scale is 1, {LOUDEST:g} is the most")
    count = 1 + max(0, -(-(len(y) - settings.n_fft) // settings.hop_length))
    size = 16 * block_frames(settings)
    power = np.empty(count)
    for first in range(0, count, size):
        number = np.arange(first, min(first + size, count))
        views = _views(y, number * settings.hop_length, settings.n_fft)
        power[number] = np.einsum("ft,ft->f", views, views) / settings.n_fft
    kept = np.flatnonzero(power >= 10.0 ** (settings.mute_db / 10.0))
    if len(kept) == 0:
        loudest = 10.0 * np.log10(max(float(power.max()), 1e-30))
        raise BadMedia(
            f"all {count} frames are mute: the loudest has an RMS of {loudest:.0f} dB of full "
            f"scale, {settings.mute_db:g} dB is the least"
        )
    return kept


def cut_frames(y: Floats, settings: DescriptorSettings, number: NDArray[np.int64]) -> Frames:
    """Cut the frames of these numbers out of a waveform.

    Parameters
    ----------
    y
        float32 (samples,).
    number
        int64 (frames,), rising.
    """
    before = settings.lpc_order
    start = number * settings.hop_length - before
    values = _views(y, start, before + settings.n_fft)
    return Frames(values=values[:, before:], before=values[:, :before])


def blocks(y: Floats, settings: DescriptorSettings, kept: NDArray[np.int64]) -> Iterator[Frames]:
    """The kept frames, as many at once as `block_frames` says."""
    size = block_frames(settings)
    for first in range(0, len(kept), size):
        yield cut_frames(y, settings, kept[first : first + size])


def _views(y: Floats, start: NDArray[np.int64], length: int) -> Floats:
    """Stretches of a waveform that begin at `start`, rising; zeros beyond its ends."""
    low, high = int(start[0]), int(start[-1]) + length
    if low >= 0 and high <= len(y):
        part = y[low:high]
    else:
        # Only blocks at the clip's ends are copied: a long clip is never held twice.
        part = np.zeros(high - low, dtype=np.float32)
        inside = y[max(low, 0) : high]
        part[max(-low, 0) : max(-low, 0) + len(inside)] = inside
    views: Floats = sliding_window_view(part, length)[start - low]
    return views
