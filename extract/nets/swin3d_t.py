"""Video Swin Transformer, tiny (Liu et al. 2022), from torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet
from mvemo.extract.settings import NetSettings, TrainSettings


class Swin3DT(TorchvisionNet):
    """Video Swin: attention within shifted windows of time and picture.

    The embedding has 768 numbers. The net takes any number of frames and any size.
    """

    name: ClassVar[str] = "swin3d_t"
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    deviation: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    last_layers: ClassVar[tuple[str, ...]] = ("head.",)
    # No paper trains this net on emotions; the settings are those of I3D with a lower rate.
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
