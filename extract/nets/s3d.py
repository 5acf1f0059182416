"""S3D, an Inception net with separable convolutions (Xie et al. 2018), from torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet
from mvemo.extract.settings import NetSettings, TrainSettings

# Size of the published net's last pooling: frames, height, width.
POOLING = (2, 7, 7)


class S3D(TorchvisionNet):
    """S3D: Inception blocks with convolutions separated into picture and time.

    The embedding has 1,024 numbers. The published net pools pairs of frames, classifies each
    pair and averages the logits. The classifier is linear, so the average of its inputs is
    the embedding. For smaller inputs the pooling covers the remaining frames and pixels.
    """

    name: ClassVar[str] = "s3d"
    mean: ClassVar[tuple[float, float, float]] = (0.43216, 0.394666, 0.37645)
    deviation: ClassVar[tuple[float, float, float]] = (0.22803, 0.22145, 0.216989)
    last_layers: ClassVar[tuple[str, ...]] = ("classifier.",)
    # No paper trains this net on emotions; the settings are those of I3D.
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        "paper": NetSettings("s3d", train=TrainSettings(lr=1e-4, batch_size=8)),
    }
    published: ClassVar[tuple[str, ...]] = ("s3d-d76dad2f.pth of torchvision (Kinetics-400)",)
    pretrained_outputs: ClassVar[int] = 400

    def make_backbone(self) -> tuple[nn.Module, int]:
        from torchvision.models.video import s3d

        module: Any = s3d(weights=None)
        dim: int = module.classifier[1].in_channels
        # `embed` calls only `features` of this module.
        module.avgpool = module.classifier = nn.Identity()
        return module, dim

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, 3, frames, height, width) to (batch, 1024)."""
        # 16 frames of 224: (batch, 1024, 2, 7, 7)
        y: Tensor = self.backbone.features(x)  # type: ignore[operator]
        kernel = [min(size, left) for size, left in zip(POOLING, y.shape[2:], strict=True)]
        return functional.avg_pool3d(y, kernel, stride=1).mean(dim=(2, 3, 4))
