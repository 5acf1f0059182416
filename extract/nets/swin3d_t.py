"""Video Swin Transformer, tiny (Liu et al. 2022), as torchvision has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet
from mvemo.extract.settings import NetSettings, TrainSettings


class Swin3DT(TorchvisionNet):
    """Attention within windows of time and picture that shift; the embedding is 768 numbers.

    See `TorchvisionNet` for the parameters. Any number of frames and any size will do.
    """

    name: ClassVar[str] = "swin3d_t"
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    deviation: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    last_layers: ClassVar[tuple[str, ...]] = ("head.",)
    # Of no paper here: trained as I3D is, slower, as transformers want it.
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        "paper": NetSettings("swin3d_t", train=TrainSettings(lr=2e-5, batch_size=8)),
    }
    published: ClassVar[tuple[str, ...]] = ("swin3d_t-7615ae03.pth of torchvision (Kinetics-400)",)
    pretrained_outputs: ClassVar[int] = 400

    def make_backbone(self) -> tuple[nn.Module, int]:
        from torchvision.models.video import swin3d_t

        module: Any = swin3d_t(weights=None)
        dim: int = module.head.in_features
        module.head = nn.Identity()
        return module, dim
