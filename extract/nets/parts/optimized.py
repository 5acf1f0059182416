"""Faster copies of nets for embedding, with folded batch normalisation and fast convolutions."""

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
    """Layer whose convolution is followed directly by its batch normalisation.

    A subclass keeps both under the names in `folded_names`, and its ``forward`` adds the bias
    of the convolution if there is one.
    """

    folded_names: ClassVar[tuple[str, str]] = ("convolution", "norm")

    def fold(self) -> None:
        """Fold the normalisation by running statistics into the weights of the convolution."""
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
        """Return True if the normalisation is folded."""
        return isinstance(getattr(self, self.folded_names[1]), nn.Identity)


@torch.no_grad()
def optimized(net: AnyNet, precision: str = "float32") -> AnyNet:
    """Return a copy of a net that embeds faster, or the net itself if nothing can be improved.

    `net` is in evaluation mode and on its device. Batch normalisation is folded into the
    convolution before it. On a CPU in float32, convolutions of 3 x 3 pixels, and of 7 x 7 with
    stride 2, take a quarter of the multiplications; in ``bf16`` the direct ones are fast.
    Embeddings differ by rounding only, 1e-4 of the largest. The weights of the copy differ
    from those of the net, so do not save them.

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
    """Yield the CPU layers that have a faster class, as parent, name in it and that class."""
    for module in net.modules():
        for name, child in module.named_children():
            for faster in (WinogradConvolution, HalvingConvolution, PointConvolution):
                if faster.suits(child) and child.weight.device.type == "cpu":
                    yield module, name, faster
