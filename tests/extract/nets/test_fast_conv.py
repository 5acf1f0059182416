"""Fast convolutions have the values of direct ones, and optimized nets embed alike."""

import copy

import pytest
import torch
from torch import nn

from mvemo.extract.nets import build_net, weights_digest
from mvemo.extract.nets.parts import fast_conv
from mvemo.extract.nets.parts.fast_conv import (
    HalvingConvolution,
    PointConvolution,
    WinogradConvolution,
    convolution_peaks,
    optimized,
)

CHANNELS = fast_conv.LEAST_CHANNELS


def convolution(taps, bias=True):
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
    monkeypatch.setattr(fast_conv, "ROWS", rows)
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
    monkeypatch.setattr(fast_conv, "ROWS", 1)
    torch.manual_seed(0)
    direct = nn.Conv3d(3, 5, 7, stride=2)
    x = torch.randn(batch, 3, *places)
    expected = nn.functional.conv3d(x.double(), direct.weight.double(), direct.bias.double(), 2)
    found = HalvingConvolution(direct)(x)
    assert found.shape == expected.shape
    tolerance = 2e-5 * float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "changed", "suits"),
    [
        (WinogradConvolution, {}, True),
        (WinogradConvolution, {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}, True),
        (WinogradConvolution, {"kernel_size": (2, 3, 3)}, False),
        (WinogradConvolution, {"kernel_size": (3, 5, 5)}, False),
        (WinogradConvolution, {"padding": 0}, False),
        (WinogradConvolution, {"padding_mode": "replicate"}, False),
        (WinogradConvolution, {"stride": 2}, False),
        (WinogradConvolution, {"dilation": 2}, False),
        (WinogradConvolution, {"groups": 2}, False),
        (WinogradConvolution, {"in_channels": 3}, False),
        (HalvingConvolution, {"kernel_size": 7, "stride": 2, "padding": 0}, True),
        (HalvingConvolution, {"kernel_size": 7, "stride": 2}, False),
        (HalvingConvolution, {"kernel_size": 7, "stride": (1, 2, 2), "padding": 0}, False),
        (PointConvolution, {"kernel_size": 1, "padding": 0}, True),
        (PointConvolution, {"kernel_size": 1, "padding": 0, "stride": 2}, False),
    ],
)
def test_which_layers_are_replaced(kind, changed, suits):
    of = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1, **changed}
    assert kind.supports(nn.Conv3d(**of)) is suits
    assert not kind.supports(nn.Conv2d(32, 32, 3, padding=1))


def with_statistics(net):
    """As after a training: nothing is at zero or one."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for value, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                value.data = low + torch.rand(value.shape, generator=generator)
    return net.eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("i3d", {"width": 0.25, "n_frames": 8, "size": 32}),
        ("c3d", {"width": 0.5, "n_frames": 4, "size": 32}),
        ("r2plus1d_18", {"n_frames": 4, "size": 32}),
        ("effnet", {"width": 0.2, "size": 32}),
    ],
)
@torch.inference_mode()
def test_an_optimized_net_embeds_alike(name, options):
    torch.manual_seed(1)
    net = with_statistics(build_net(name, 3, **options))
    digest = weights_digest(net)
    light = optimized(net)
    if name in ("i3d", "effnet"):
        norms = (nn.BatchNorm2d, nn.BatchNorm3d)
        assert not any(isinstance(module, norms) for module in light.modules())
    replaced = any(isinstance(module, WinogradConvolution) for module in light.modules())
    assert replaced == (name != "effnet")
    if name == "effnet":
        layers = [module for module in light.modules() if hasattr(module, "fused")]
        fuses = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        assert {layer.fused for layer in layers} == {fuses}
    shape = (2, net.input.n_frames, net.input.size, net.input.size, 3)
    x = net.prepare(torch.randint(0, 256, shape, dtype=torch.uint8))
    expected = net.embed(x)
    tolerance = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(light.embed(x), expected, rtol=0, atol=tolerance)
    assert optimized(light) is light
    # A used copy can be copied again.
    torch.testing.assert_close(copy.deepcopy(light).embed(x), light.embed(x), rtol=0, atol=0)
    # The net itself is as it was.
    assert weights_digest(net) == digest


@torch.no_grad()
def test_fused_layers_take_pictures_of_any_size_and_number():
    torch.manual_seed(3)
    net = with_statistics(build_net("effnet", 3, width=0.125, size=64, n_frames=4))
    light = optimized(net)
    for size, n in [(64, 4), (65, 1), (64, 1), (45, 9), (64, 5), (65, 3)]:
        x = torch.randn(n, 3, size, size)
        features = light.frame_features(x)
        torch.testing.assert_close(features, net.frame_features(x), rtol=0, atol=1e-4)
        # What was packed for other pictures changes nothing.
        torch.testing.assert_close(features, optimized(net).frame_features(x), rtol=0, atol=0)


def test_a_net_without_such_layers_is_left_as_it_is():
    net = build_net("music1d", 2, width=0.1)
    assert optimized(net) is net
    net = build_net("c3d", 2, n_frames=4, size=32)
    # The processor's own convolutions of half precision are faster.
    assert optimized(net, "bf16") is net


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((3, 1, 22, 96), (5, 7, 38)), ((1, 1, 9, 13), (4, 3, 2)), ((2, 1, 40, 20), (3, 40, 20))],
)
def test_peaks_are_those_of_the_whole_convolution(shape, kernel):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(kernel[0], 1, *kernel[1:], generator=generator)
    expected = nn.functional.conv2d(x, weight).amax(dim=3)
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(convolution_peaks(x, weight), expected, rtol=0, atol=tolerance)
