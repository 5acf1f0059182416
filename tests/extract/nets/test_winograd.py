"""Convolutions with fewer multiplications have the values of direct ones, in float64."""

import pytest
import torch
from torch import nn

from mvemo.extract.nets.parts import winograd
from mvemo.extract.nets.parts.winograd import (
    HalvingConvolution,
    PointConvolution,
    WinogradConvolution,
)

CHANNELS = winograd.LEAST_CHANNELS


def convolution(taps: int, bias: bool = True) -> nn.Conv3d:
    torch.manual_seed(0)
    padding = (taps // 2, 1, 1)
    return nn.Conv3d(CHANNELS, CHANNELS + 5, (taps, 3, 3), padding=padding, bias=bias)


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 1, 1, 1), id="one place"),
        pytest.param((2, 2, 4, 8), id="whole tiles"),
        pytest.param((3, 5, 7, 10), id="parts of tiles"),
        pytest.param((1, 23, 3, 5), id="blocks of frames"),
    ],
)
@pytest.mark.parametrize("rows", [1, 7, 1024])
@torch.inference_mode()
def test_it_is_the_direct_convolution(taps, shape, rows, monkeypatch):
    # However many frames and clips are computed at once.
    monkeypatch.setattr(winograd, "ROWS", rows)
    direct = convolution(taps)
    batch, *places = shape
    x = torch.randn(batch, CHANNELS, *places)
    expected = nn.functional.conv3d(
        x.double(), direct.weight.double(), direct.bias.double(), padding=direct.padding
    )
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        found = WinogradConvolution(direct)(x.contiguous(memory_format=layout))
        assert found.shape == expected.shape
        tolerance = 2e-5 * float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "places", [(7, 7, 7), (13, 21, 37), (14, 22, 30), (8, 37, 24), (45, 9, 12), (46, 12, 9)]
)
@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_halving_is_the_direct_convolution(places, batch, monkeypatch):
    # The longest are computed in three blocks of frames.
    monkeypatch.setattr(winograd, "ROWS", 1)
    torch.manual_seed(0)
    direct = nn.Conv3d(3, 5, 7, stride=2)
    x = torch.randn(batch, 3, *places)
    expected = nn.functional.conv3d(x.double(), direct.weight.double(), direct.bias.double(), 2)
    found = HalvingConvolution(direct)(x)
    assert found.shape == expected.shape
    tolerance = 2e-5 * float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@torch.inference_mode()
def test_a_convolution_may_lack_a_bias():
    direct = convolution(3, bias=False)
    x = torch.randn(1, CHANNELS, 2, 6, 6)
    torch.testing.assert_close(WinogradConvolution(direct)(x), direct(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("changed", "suits"),
    [
        ({}, True),
        ({"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}, True),
        ({"kernel_size": (2, 3, 3)}, False),
        ({"kernel_size": (3, 5, 5)}, False),
        ({"padding": 0}, False),
        ({"padding": "same"}, False),
        ({"padding_mode": "replicate"}, False),
        ({"stride": 2}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
        ({"in_channels": 3}, False),
    ],
)
def test_what_it_suits(changed, suits):
    of = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1, **changed}
    assert WinogradConvolution.suits(nn.Conv3d(**of)) is suits


def test_other_layers_are_not_suited():
    assert not WinogradConvolution.suits(nn.Conv2d(32, 32, 3, padding=1))
    assert HalvingConvolution.suits(nn.Conv3d(3, 8, 7, stride=2))
    assert not HalvingConvolution.suits(nn.Conv3d(3, 8, 7, stride=2, padding=3))
    assert not HalvingConvolution.suits(nn.Conv3d(3, 8, 7, stride=(1, 2, 2)))
    assert not PointConvolution.suits(nn.Conv2d(32, 32, 1))
    assert not PointConvolution.suits(nn.Conv3d(4, 4, 1, stride=2))
    assert not PointConvolution.suits(nn.Conv3d(4, 4, 1, groups=2))


@torch.inference_mode()
def test_a_convolution_of_one_place_is_a_matrix_product():
    direct = nn.Conv3d(6, 4, 1)
    x = torch.randn(2, 6, 3, 5, 5)
    torch.testing.assert_close(PointConvolution(direct)(x), direct(x), rtol=0, atol=1e-5)
