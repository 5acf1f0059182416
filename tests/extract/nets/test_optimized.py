"""Optimized nets embed alike, and the fast pooling is the plain one."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mvemo.extract.nets import build_net, weights_digest
from mvemo.extract.nets.i3d import CUBE, maximum_of_neighbours, pool_same
from mvemo.extract.nets.parts.optimized import optimized
from mvemo.extract.nets.parts.winograd import WinogradConvolution


def with_statistics(net: nn.Module) -> nn.Module:
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
    shape = (2, net.input.n_frames, net.input.size, net.input.size, 3)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8)
    expected = net.embed(net.prepare(raw))
    found = light.embed(light.prepare(raw))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert optimized(light) is light
    # The net itself is as it was.
    assert weights_digest(net) == digest
    torch.testing.assert_close(net.embed(net.prepare(raw)), expected, rtol=0, atol=0)


def test_a_net_without_such_layers_is_left_as_it_is():
    net = build_net("music1d", 2, width=0.1)
    assert optimized(net) is net
    net = build_net("c3d", 2, n_frames=4, size=32)
    # The processor's own convolutions of half precision are faster.
    assert optimized(net, "bf16") is net


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 2, 1, 1, 1), (1, 2, 2, 1, 3)])
def test_the_maximum_of_neighbours_is_the_pooling(shape):
    x = torch.rand(shape).contiguous(memory_format=torch.channels_last_3d)
    expected = functional.max_pool3d(x, 3, 1, 1)
    assert torch.equal(maximum_of_neighbours(x), expected)
    assert torch.equal(pool_same(x, CUBE, (1, 1, 1)), expected)
    with torch.inference_mode():
        assert torch.equal(pool_same(x, CUBE, (1, 1, 1)), expected)
