"""Nets as they embed fastest: normalisation folded into convolutions, and these made faster."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.winograd import (
    HalvingConvolution,
    PointConvolution,
    WinogradConvolution,
)

AnyNet = TypeVar("AnyNet", bound=Net)


class NormedConvolution(nn.Module):
    """A layer whose convolution is followed by nothing but its batch normalisation.

    A subclass keeps both under the names of `folded_names`, and adds the convolution's bias
    where there is one.
    """

    folded_names: ClassVar[tuple[str, str]] = ("convolution", "norm")

    def fold(self) -> None:
        """Put the normalisation by running statistics into the convolution's weights."""
        convolution, norm = (getattr(self, name) for name in self.folded_names)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        setattr(self, self.folded_names[1], nn.Identity())

    @property
    def folded(self) -> bool:
        """Whether that was done."""
        return isinstance(getattr(self, self.folded_names[1]), nn.Identity)


@torch.no_grad()
def optimized(net: AnyNet, precision: str = "float32") -> AnyNet:
    """A copy of a net that embeds alike and faster; the net itself where it is as fast.

    Batch normalisation is folded into the convolution before it. On a CPU in float32,
    convolutions of 3 x 3 pixels, and of 7 x 7 with stride 2, take a quarter of the
    multiplications.

    Examples
    --------
    >>> from mvemo.extract.nets import build_net
    >>> net = build_net("i3d", 6, width=0.125).eval()
    >>> net.blocks["Conv3d_1a_7x7"].conv.bias is None
    True
    >>> optimized(net).blocks["Conv3d_1a_7x7"].conv.bias.shape
    torch.Size([8])
    """
    folds = any(isinstance(m, NormedConvolution) and not m.folded for m in net.modules())
    replaces = precision == "float32" and any(_replacements(net))
    if not folds and not replaces:
        return net
    light = copy.deepcopy(net)
    for module in light.modules():
        if isinstance(module, NormedConvolution) and not module.folded:
            module.fold()
    if replaces:
        for parent, name, replacement in list(_replacements(light)):
            setattr(parent, name, replacement(getattr(parent, name)))
    return light


def _replacements(net: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[Any], nn.Module]]]:
    """Layers on a CPU for which there is a faster one: parent, name in it, the other's class."""
    for module in net.modules():
        for name, child in module.named_children():
            for faster in (WinogradConvolution, HalvingConvolution, PointConvolution):
                if faster.suits(child) and child.weight.device.type == "cpu":
                    yield module, name, faster
