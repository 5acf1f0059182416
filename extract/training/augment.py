"""Random augmentation of training clips, on the device and for a whole batch at once.

It acts on decoded media, before the preparation of a net, so one set serves all nets. Each clip
of a batch is changed differently. Descriptor sequences are not changed: nets standardise their
frames, and a change would mean something different for each descriptor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Range of a crop's share of the picture's area, and of its ratio of width to height.
CROP_AREA = (0.6, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
# Range of the share of a clip from which its frames are drawn.
FRAME_SPAN = (0.75, 1.0)
# Maximum gain in decibels, positive or negative.
GAIN = 6.0
# Maximum shares of the length that are skipped or silenced, and of the frequencies removed.
MOST_SKIPPED = 0.1
MOST_SILENCED = 0.1
MOST_BAND = 0.15


def augment(raw: Tensor) -> Tensor:
    """Change a batch of decoded media at random, with torch's generator of the device.

    `raw` has the forms that `Net.prepare` takes; pictures become float32 from 0 to 255.
    """
    if raw.ndim == 5:
        return change_pictures(raw)
    return change_sound(raw) if raw.ndim == 2 else raw


def change_pictures(raw: Tensor) -> Tensor:
    """Crop and flip all frames of a clip alike, and shift their times.

    uint8 (batch, frames, height, width, 3) -> float32 from 0 to 255 of the same shape.
    """
    n, n_frames, height, width, _ = raw.shape
    frames = _drawn_frames(n, n_frames, raw.device)
    clips = raw[torch.arange(n, device=raw.device)[:, None], frames]
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(
        _crops(n, raw.device).repeat_interleave(n_frames, 0),
        [n * n_frames, 3, height, width],
        align_corners=False,
    )
    pictures = functional.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return pictures.permute(0, 2, 3, 1).reshape(raw.shape)


def _drawn_frames(n: int, n_frames: int, device: torch.device) -> Tensor:
    """Draw the frames of a random stretch of each clip, in order; int64 (n, n_frames)."""
    span = _uniform(n, *FRAME_SPAN, device)
    start = torch.rand(n, device=device) * (1 - span)
    position = (torch.arange(n_frames, device=device) + 0.5) / n_frames
    frames = (start[:, None] + span[:, None] * position) * n_frames
    return frames.long().clamp_(0, n_frames - 1)


def _crops(n: int, device: torch.device) -> Tensor:
    """Draw affine maps of random crops, half of them mirrored; float32 (n, 2, 3).

    Coordinates go from -1 to 1 over a picture, as in `affine_grid`.
    """
    area = _uniform(n, *CROP_AREA, device)
    aspect = _uniform(n, math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1]), device).exp()
    width = (area * aspect).sqrt().clamp_max(1.0)
    height = (area / aspect).sqrt().clamp_max(1.0)
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = width * mirror
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * _uniform(n, -1, 1, device)
    theta[:, 1, 2] = (1 - height) * _uniform(n, -1, 1, device)
    return theta


def change_sound(raw: Tensor) -> Tensor:
    """Skip part of each clip's start, change its gain, and silence a stretch and a band.

    float32 (batch, samples); zeros or NaN after a clip's end stay.
    """
    n, samples = raw.shape
    position = torch.arange(samples, device=raw.device)
    ended = torch.isnan(raw)
    x = torch.where(ended, 0.0, raw)
    # The band is removed first, because this would smear the edges of later changes.
    spectrum = torch.fft.rfft(x)
    bins = torch.arange(spectrum.shape[1], device=raw.device)
    spectrum = torch.where(_stretch(bins, n, MOST_BAND), 0.0, spectrum)
    x = torch.fft.irfft(spectrum, n=samples)
    x = torch.where(_stretch(position, n, MOST_SILENCED), 0.0, x)
    x = x * 10 ** (_uniform(n, -GAIN, GAIN, raw.device)[:, None] / 20)
    x = torch.where(ended, torch.nan, torch.where(raw == 0, 0.0, x))
    # The clip starts later; the padding after its end fills the rest.
    skipped = (torch.rand(n, device=raw.device) * MOST_SKIPPED * samples).long()
    source = position + skipped[:, None]
    after = torch.where(ended.any(1), torch.nan, 0.0)[:, None]
    shifted = x.gather(1, source.clamp_max(samples - 1))
    return torch.where(source < samples, shifted, after)


def _stretch(position: Tensor, n: int, most: float) -> Tensor:
    """Draw a random stretch of each row; bool (n, positions), True inside it."""
    count = len(position)
    length = torch.rand(n, device=position.device) * most * count
    start = torch.rand(n, device=position.device) * (count - length)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


def _uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(n, device=device)
