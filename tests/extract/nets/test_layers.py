"""Layers that nets share: ELU, pooling, bands, real frames only, last states."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sequence_samples import sequences
from torch.nn import functional

from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.layers import Elu, mean_and_deviation
from mvemo.extract.nets.parts.sequences import (
    FrameNorm,
    band_widths,
    split_frames,
)


def test_normalisation_takes_real_frames_alone():
    x = sequences([9, 4], 3, 12)
    values, lengths = split_frames(x)
    assert lengths.tolist() == [9, 4]
    norm = FrameNorm(3, momentum=None).train()
    out = norm(values.transpose(1, 2), lengths).transpose(1, 2)
    real = torch.cat([x[0, :9], x[1, :4]]).numpy()
    expected = (real - real.mean(0)) / np.sqrt(real.var(0) + 1e-5)
    got = torch.cat([out[0, :9], out[1, :4]]).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert not out[0, 9:].any()
    assert not out[1, 4:].any()
    np.testing.assert_allclose(norm.norm.running_mean.numpy(), real.mean(0), rtol=1e-5)


def test_one_frame_is_normalised_by_what_is_known():
    norm = FrameNorm(2).train()
    values, lengths = split_frames(torch.tensor([[[3.0, 4.0]]]))
    out = norm(values.transpose(1, 2), lengths)
    np.testing.assert_allclose(out.detach().numpy().ravel(), [3, 4], rtol=1e-4)


@given(st.integers(1, 3000), st.integers(1, 300))
def test_bands_cover_every_bin_once(bins, bands):
    widths = band_widths(bins, bands)
    assert sum(widths) == bins
    assert len(widths) == min(bins, bands)
    assert min(widths) >= 1
    # They grow, up to the rounding of their borders.
    assert (np.diff(widths) >= -1).all()


@pytest.mark.parametrize(("name", "others"), [("speccnn", 0), ("crnn", 6)])
def test_bands_are_means_of_their_bins(name, others):
    x, options = sequences([5, 3], 20 + others, 5), {"lld_dim": others} if others else {}
    net = build_net(name, 3, width=0.125, spectrogram_dim=20, bands=8, **options)
    got = net.prepare(x).numpy()
    bands = x[:, :, :20].numpy().swapaxes(0, 2)
    for b, bins in enumerate(np.split(bands, np.cumsum(band_widths(20, 8))[:-1])):
        np.testing.assert_allclose(got[:, :, b], bins.mean(0).T, rtol=1e-5)
    np.testing.assert_array_equal(got[:, :, 8:], x[:, :, 20:].numpy())
    wide = build_net(name, 3, width=0.125, spectrogram_dim=20, bands=99, **options)
    assert wide.prepare(x).shape == x.shape


SHAPES = [(0,), (1,), (3, 5, 7), (2, 4, 40_001)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_values_and_slopes_are_those_of_torch(shape, dtype, tolerance):
    torch.manual_seed(0)
    x = 4 * torch.randn(shape, dtype=dtype)
    gradient = torch.randn(shape, dtype=dtype)
    values, slopes = [], []
    for function in (Elu(), functional.elu):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(gradient)
        values.append(y.detach())
        slopes.append(leaf.grad)
    torch.testing.assert_close(*values, rtol=0, atol=tolerance)
    torch.testing.assert_close(*slopes, rtol=4 * tolerance, atol=4 * tolerance)


EXTREMES = [-torch.inf, -200.0, -1e-30, -0.0, 0.0, 1e-30, 200.0, torch.inf, torch.nan]


@pytest.mark.parametrize("x", [torch.tensor(EXTREMES), torch.randn(4, 6, 5).transpose(0, 2)])
def test_extreme_and_strided_input_stays_and_gives_torchs_values(x):
    before = x.clone()
    torch.testing.assert_close(Elu()(x), functional.elu(x), rtol=0, atol=2e-7, equal_nan=True)
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


def test_half_precision_is_torchs_own():
    x = torch.randn(100).bfloat16()
    assert torch.equal(Elu()(x), functional.elu(x))


def test_equal_frames_have_a_deviation_with_a_gradient():
    frames = torch.ones(2, 3, 4, requires_grad=True)
    pooled = mean_and_deviation(frames)
    assert pooled.shape == (2, 8)
    pooled.sum().backward()
    assert frames.grad.isfinite().all()
