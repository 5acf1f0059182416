"""R(2+1)D with 18 layers (Tran et al. 2018), from torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet, TorchvisionOptions
from mvemo.extract.settings import NetSettings, TrainSettings


@dataclass(frozen=True)
class R2Plus1D18Options(TorchvisionOptions):
    """Options of `R2Plus1D18`, whose published net has pictures of 112 x 112 pixels."""

    size: int = 112


class R2Plus1D18(TorchvisionNet):
    """R(2+1)D: convolutions over the picture and over time in turn.

    The embedding has 512 numbers. The net takes any number of frames and any size.
    """

    name: ClassVar[str] = "r2plus1d_18"
    Options = R2Plus1D18Options
    mean: ClassVar[tuple[float, float, float]] = (0.43216, 0.394666, 0.37645)
    deviation: ClassVar[tuple[float, float, float]] = (0.22803, 0.22145, 0.216989)
    last_layers: ClassVar[tuple[str, ...]] = ("fc.",)
    # No paper trains this net on emotions; the settings are those of I3D.
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        "paper": NetSettings("r2plus1d_18", train=TrainSettings(lr=1e-4, batch_size=8)),
    }
    published: ClassVar[tuple[str, ...]] = (
        "r2plus1d_18-91a641e6.pth of torchvision (Kinetics-400)",
    )
    pretrained_outputs: ClassVar[int] = 400

    def make_backbone(self) -> tuple[nn.Module, int]:
        from torchvision.models.video import r2plus1d_18

        module = r2plus1d_18(weights=None)
        dim = module.fc.in_features
        module.fc = nn.Identity()
        return module, dim
