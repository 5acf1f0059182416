"""Random changes of training clips: what they keep, and that each clip draws its own."""

from __future__ import annotations

import numpy as np
import torch

from mvemo.extract.training import recipe as augment


def test_sound_keeps_its_end_and_its_scale() -> None:
    torch.manual_seed(0)
    time = torch.arange(4000) / 4000
    raw = torch.stack([torch.sin(2 * np.pi * f * time) for f in (40, 90, 200, 310)]) * 0.5
    raw[:, 3000:] = torch.nan
    raw[3, 3000:] = 0.0
    changed = augment.augment(raw)
    assert changed.shape == raw.shape
    assert torch.equal(torch.isnan(changed).any(1), torch.tensor([True, True, True, False]))
    # Nothing is heard after the end, which comes earlier by what was skipped.
    assert torch.isnan(changed[:3, 3000:]).all()
    assert (changed[3, 3000:] == 0).all()
    loudness = changed[:, :2500].nan_to_num().square().mean(1).sqrt()
    assert (loudness < 0.36 * 10 ** (augment.GAIN / 20) + 1e-3).all()
    gains = changed.nan_to_num().abs().amax(1)
    assert len({round(float(gain), 3) for gain in gains}) == 4


def test_without_the_band_left_out_the_sound_is_the_same_but_for_gain_and_start() -> None:
    torch.manual_seed(1)
    raw = torch.randn(1, 1000)
    for name in ("MOST_BAND", "MOST_SILENCED", "MOST_SKIPPED", "GAIN"):
        assert getattr(augment, name) > 0
    spectrum = np.abs(np.fft.rfft(augment.change_sound(raw)[0].numpy()))
    assert np.isfinite(spectrum).all()


def test_pictures_of_one_colour_stay_and_frames_keep_their_order() -> None:
    torch.manual_seed(0)
    raw = torch.zeros(3, 16, 12, 10, 3, dtype=torch.uint8)
    raw += (torch.arange(16, dtype=torch.uint8) * 10)[None, :, None, None, None]
    changed = augment.augment(raw)
    assert changed.dtype == torch.float32
    assert changed.shape == raw.shape
    # One colour a frame, whatever was cropped; the frames are those of a stretch, in order.
    assert torch.allclose(changed.amax((2, 3, 4)), changed.amin((2, 3, 4)))
    times = changed[:, :, 0, 0, 0] / 10
    assert torch.allclose(times, times.round(), atol=1e-4)
    assert (times.diff(dim=1) >= 0).all()
    assert ((times[:, -1] - times[:, 0]) >= 0.75 * 16 - 2).all()


def test_crops_are_mirrored_half_of_the_time_and_alike_in_all_frames() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(40, dtype=torch.uint8) * 6
    raw = ramp[None, None, None, :, None].expand(64, 2, 8, 40, 3).contiguous()
    changed = augment.change_pictures(raw)
    assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-3)
    rising = changed[:, 0, 4, -1, 0] > changed[:, 0, 4, 0, 0]
    assert 20 <= int(rising.sum()) <= 44
    assert changed.min() >= 0
    assert changed.max() <= 234


def test_sequences_stay() -> None:
    raw = torch.randn(2, 5, 4)
    assert augment.augment(raw) is raw
