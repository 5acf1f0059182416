"""MViTv2-S, a multiscale vision transformer (Li et al. 2022), from torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet, TorchvisionOptions
from mvemo.extract.settings import NetSettings, TrainSettings


@dataclass(frozen=True)
class MViTv2SOptions(TorchvisionOptions):
    """Options of `MViTv2S`, which takes 16 frames of 224 pixels only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.n_frames, self.size) != (16, 224):
            raise BadSetting(
                f"mvit_v2_s: {self.n_frames} frames of {self.size} pixels: it takes 16 of 224"
            )


class MViTv2S(TorchvisionNet):
    """MViTv2-S: attention over time and picture that pools layer by layer.

    The embedding has 768 numbers. Positions are learnt, so the net takes exactly 16 frames of
    224 pixels.
    """

    name: ClassVar[str] = "mvit_v2_s"
    Options = MViTv2SOptions
    mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    deviation: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    last_layers: ClassVar[tuple[str, ...]] = ("head.",)
    # No paper trains this net on emotions; the settings are those of I3D with a lower rate.
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        "paper": NetSettings("mvit_v2_s", train=TrainSettings(lr=2e-5, batch_size=8)),
    }
    published: ClassVar[tuple[str, ...]] = ("mvit_v2_s-ae3be167.pth of torchvision (Kinetics-400)",)
    pretrained_outputs: ClassVar[int] = 400

    def make_backbone(self) -> tuple[nn.Module, int]:
        from torchvision.models.video import mvit_v2_s

        module: Any = mvit_v2_s(weights=None)
        dim: int = module.head[1].in_features
        module.head = nn.Identity()
        return module, dim
