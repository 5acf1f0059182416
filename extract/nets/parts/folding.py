"""Batch normalisation folded into the convolution before it, for embedding."""

from __future__ import annotations

import copy
from typing import ClassVar, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mvemo.extract.nets.parts.base import Net

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


@torch.no_grad()
def folded(net: AnyNet) -> AnyNet:
    """A copy of a net that embeds alike and has fewer layers; the net itself where none folds.

    Parameters
    ----------
    net
        In evaluation mode.

    Returns
    -------
    In evaluation mode, on the same device. Its embeddings differ from the net's by rounding
    alone; its weights are not the net's any more, and are for no file.

    Examples
    --------
    >>> from mvemo.extract.nets import build_net
    >>> net = build_net("i3d", 6, width=0.125).eval()
    >>> net.blocks["Conv3d_2b_1x1"].conv.bias is None
    True
    >>> folded(net).blocks["Conv3d_2b_1x1"].conv.bias.shape
    torch.Size([8])
    """
    if not any(isinstance(module, NormedConvolution) for module in net.modules()):
        return net
    light = copy.deepcopy(net)
    for module in light.modules():
        if isinstance(module, NormedConvolution):
            module.fold()
    return light
