"""Frames of a waveform, without the silent ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mvemo.extract.arrays import F32, I64, release
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.errors import BadMedia

# Sound is decoded to [-1, 1]. Powers of much larger samples would leave the range of float32.
MAX_PEAK = 32_768.0
# Samples of the frames processed at once: 64 frames of 2,048 samples, half a MiB, stay in a
# core's cache.
BLOCK_SAMPLES = 64 * 2048
# Samples after which a mapped file is released.
PART_SAMPLES = 1 << 22


@dataclass(frozen=True)
class Frames:
    """Block of frames of one clip."""

    values: F32  # (frames, n_fft), not windowed
    # Samples before each frame, where linear prediction begins, (frames, lpc_order); zeros before
    # the clip's start.
    before: F32

    def __len__(self) -> int:
        return len(self.values)


def block_frames(settings: DescriptorSettings) -> int:
    """Return the number of frames to process at once."""
    return max(BLOCK_SAMPLES // settings.n_fft, 1)


def audible_frames(y: F32, settings: DescriptorSettings) -> I64:
    """Return the numbers of the frames that are not silent, int64 (frames,), ascending.

    Frame ``i`` begins at sample ``i * hop_length``. The last frame is padded with zeros; a clip
    shorter than a frame is one frame. A frame is silent if its RMS is below `silence_db`. Silent
    frames are dropped (J22 3.1, Fig. 6), and not samples: to join the samples around a gap would
    cause a click, and shift all later times. Raises `BadMedia` if the waveform is empty, not
    finite, or completely silent.
    """
    if y.ndim != 1 or len(y) == 0:
        raise BadMedia(f"a waveform of shape {y.shape}: mono with at least one sample is needed")
    # Both are NaN if any sample is NaN.
    ends = [(part.min(), part.max()) for part in _parts(y)]
    low, high = float(np.min([end[0] for end in ends])), float(np.max([end[1] for end in ends]))
    if not np.isfinite([low, high]).all():
        n_bad = int(np.count_nonzero(~np.isfinite(y)))
        raise BadMedia(f"{n_bad} of {len(y)} samples of the sound are NaN or infinite")
    peak = max(-low, high)
    if peak > MAX_PEAK:
        raise BadMedia(f"the sound's peak is {peak:.3g}: full scale is 1, {MAX_PEAK:g} is the most")
    count = 1 + max(0, -(-(len(y) - settings.n_fft) // settings.hop_length))
    size = 16 * block_frames(settings)
    power = np.empty(count)
    for first in range(0, count, size):
        numbers = np.arange(first, min(first + size, count))
        views = _views(y, numbers * settings.hop_length, settings.n_fft)
        power[numbers] = np.einsum("ft,ft->f", views, views) / settings.n_fft
        if _ends_part(first, size, settings):
            release(y)
    audible = np.flatnonzero(power >= 10.0 ** (settings.silence_db / 10.0))
    if len(audible) == 0:
        loudest = 10.0 * np.log10(max(float(power.max()), 1e-30))
        raise BadMedia(
            f"all {count} frames are silent: the loudest has an RMS of {loudest:.0f} dB of full "
            f"scale, {settings.silence_db:g} dB is the least"
        )
    return audible


def frames_of(y: F32, settings: DescriptorSettings, numbers: I64) -> Frames:
    """Return the frames with the given numbers, int64 (frames,), ascending."""
    before = settings.lpc_order
    start = numbers * settings.hop_length - before
    values = _views(y, start, before + settings.n_fft)
    return Frames(values=values[:, before:], before=values[:, :before])


def blocks(y: F32, settings: DescriptorSettings, numbers: I64) -> Iterator[Frames]:
    """Yield the frames with the given numbers in blocks of `block_frames`."""
    size = block_frames(settings)
    for first in range(0, len(numbers), size):
        yield frames_of(y, settings, numbers[first : first + size])
        if _ends_part(first, size, settings):
            release(y)


def _ends_part(first: int, size: int, settings: DescriptorSettings) -> bool:
    """Return True if `size` frames from `first` on cross a multiple of `PART_SAMPLES`."""
    hop = settings.hop_length
    return first * hop // PART_SAMPLES != (first + size) * hop // PART_SAMPLES


def _parts(y: F32) -> Iterator[F32]:
    """Yield a waveform's samples in parts of `PART_SAMPLES`."""
    for first in range(0, len(y), PART_SAMPLES):
        yield y[first : first + PART_SAMPLES]
        release(y)


def _views(y: F32, start: I64, length: int) -> F32:
    """Return stretches of a waveform from `start`, ascending, with zeros beyond its ends."""
    low, high = int(start[0]), int(start[-1]) + length
    if low >= 0 and high <= len(y):
        part = y[low:high]
    else:
        # Copy only blocks at the clip's ends: a long clip must not be in memory twice.
        part = np.zeros(high - low, dtype=np.float32)
        inside = y[max(low, 0) : high]
        part[max(-low, 0) : max(-low, 0) + len(inside)] = inside
    views: F32 = sliding_window_view(part, length)[start - low]
    return views
