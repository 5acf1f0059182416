"""Video nets of torchvision, used without their last layer.

Nothing is downloaded: pretrained weights are files of torchvision, passed with ``--weights``. No
paper trains these nets on emotions; the settings are those of I3D, with a lower learning rate
for transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts.base import VideoNet
from mvemo.extract.nets.parts.cards import NetCard, NetOptions, dropout, profile
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

# Prefix of the names of torchvision's tensors in the net.
PREFIX = "backbone."
CONVOLUTIONAL = {"paper": profile(TrainSettings(lr=1e-4, batch_size=8))}
TRANSFORMER = {"paper": profile(TrainSettings(lr=2e-5, batch_size=8))}
SIZE_MEANING = (
    "Height and width of the input in pixels; the default is that of the published weights."
)
Colours = tuple[float, float, float]


@dataclass(frozen=True)
class TorchvisionOptions(NetOptions):
    n_frames: int = setting(
        16,
        "Number of frames of the input; the default is that of the published weights.",
        ge=1,
    )
    size: int = setting(224, SIZE_MEANING, ge=32)
    dropout: float = dropout(0.5)


class TorchvisionNet(VideoNet):
    """Base of torchvision's video nets, whose embedding is the input of the layer `last`."""

    # Normalisation of red, green and blue, from 0 to 1, in the training of the weights.
    mean: ClassVar[Colours] = (0.43216, 0.394666, 0.37645)
    deviation: ClassVar[Colours] = (0.22803, 0.22145, 0.216989)
    last: ClassVar[str] = "head"  # attribute of torchvision's module

    options: TorchvisionOptions
    _mean: Tensor
    _deviation: Tensor

    def build(self, width: float) -> int:
        if width != 1.0:
            raise BadOption(f"{self.name}: width is {width}: it must be 1 for torchvision's nets")
        from torchvision.models import video

        self.backbone: Any = getattr(video, self.name)(weights=None)
        last: Any = getattr(self.backbone, self.last)
        linear: Any = list(last)[1] if isinstance(last, nn.Sequential) else last
        setattr(self.backbone, self.last, nn.Identity())
        for name, values in (("_mean", self.mean), ("_deviation", self.deviation)):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        return int(linear.weight.shape[1])

    def prepare(self, raw: Tensor) -> Tensor:
        """Map RGB uint8 (batch, frames, height, width, 3) to float32 (batch, 3, frames, ...)."""
        values = raw.float().div(255).sub_(self._mean).div_(self._deviation)
        return values.permute(0, 4, 1, 2, 3)

    def embed(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def scaling(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "deviation": list(self.deviation)}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Map a file of torchvision without its last layer."""
        return {
            name: (PREFIX + name, value)
            for name, value in tensors.items()
            if not name.startswith((PREFIX, f"{self.last}.", "classifier."))
        }


@dataclass(frozen=True)
class R2Plus1D18Options(TorchvisionOptions):
    """Options of `R2Plus1D18`, whose published net reads 112 x 112 pixels."""

    size: int = setting(112, SIZE_MEANING, ge=32)


@NetCard(
    "r2plus1d_18",
    R2Plus1D18Options,
    CONVOLUTIONAL,
    published=("r2plus1d_18-91a641e6.pth of torchvision (Kinetics-400)",),
    pretrained_outputs=400,
)
class R2Plus1D18(TorchvisionNet):
    """R(2+1)D with 18 layers (Tran et al. 2018): convolutions over picture and time alternate."""

    last = "fc"


@NetCard(
    "s3d",
    TorchvisionOptions,
    CONVOLUTIONAL,
    published=("s3d-d76dad2f.pth of torchvision (Kinetics-400)",),
    pretrained_outputs=400,
)
class S3D(TorchvisionNet):
    """S3D (Xie et al. 2018): Inception blocks with convolutions separated into picture and time.

    The published net classifies pooled pairs of frames; the embedding is the mean of the pairs.
    """

    last = "classifier"
    # Size of the published net's last pooling: frames, height, width.
    pooling: ClassVar[tuple[int, int, int]] = (2, 7, 7)

    def embed(self, x: Tensor) -> Tensor:
        # 16 frames of 224: (batch, 1024, 2, 7, 7)
        y: Tensor = self.backbone.features(x)
        kernel = [min(size, limit) for size, limit in zip(self.pooling, y.shape[2:], strict=True)]
        return functional.avg_pool3d(y, kernel, stride=1).mean(dim=(2, 3, 4))


@NetCard(
    "swin3d_t",
    TorchvisionOptions,
    TRANSFORMER,
    published=("swin3d_t-7615ae03.pth of torchvision (Kinetics-400)",),
    pretrained_outputs=400,
)
class Swin3DT(TorchvisionNet):
    """Video Swin, tiny (Liu et al. 2022): attention in shifted windows of time and picture."""

    mean: ClassVar[Colours] = (0.485, 0.456, 0.406)
    deviation: ClassVar[Colours] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class MViTv2SOptions(TorchvisionOptions):
    """Options of `MViTv2S`, which takes only 16 frames of 224 x 224 pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.n_frames, self.size) != (16, 224):
            raise BadOption(
                f"expected 16 frames of 224 pixels, got {self.n_frames} frames of "
                f"{self.size} pixels"
            )


@NetCard(
    "mvit_v2_s",
    MViTv2SOptions,
    TRANSFORMER,
    published=("mvit_v2_s-ae3be167.pth of torchvision (Kinetics-400)",),
    pretrained_outputs=400,
)
class MViTv2S(TorchvisionNet):
    """MViTv2-S (Li et al. 2022): attention over time and picture that pools layer by layer."""

    mean: ClassVar[Colours] = (0.45, 0.45, 0.45)
    deviation: ClassVar[Colours] = (0.225, 0.225, 0.225)
