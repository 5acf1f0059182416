"""MViTv2-S, a multiscale vision transformer (Li et al. 2022), as torchvision has it."""

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
    """As `TorchvisionOptions`; torchvision makes this net for 16 frames of 224 pixels only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.n_frames, self.size) != (16, 224):
            raise BadSetting(
                f"mvit_v2_s: {self.n_frames} frames of {self.size} pixels: it takes 16 of 224"
            )


class MViTv2S(TorchvisionNet):
    """Attention over time and picture that pools as it goes; the embedding is 768 numbers.

    See `TorchvisionNet` for the parameters. Positions are learnt: it takes 16 frames of 224
    pixels, neither more nor less.
    """

    name: ClassVar[str] = "mvit_v2_s"
    Options = MViTv2SOptions
    mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    deviation: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    last_layers: ClassVar[tuple[str, ...]] = ("head.",)
    # Of no paper here: trained as I3D is, slower, as transformers want it.
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
