"""S3D, the separable Inception over time (Xie et al. 2018), as torchvision has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts.torchvision_video import TorchvisionNet
from mvemo.extract.settings import NetSettings, TrainSettings

# Of the published net's last pooling: frames, height, width.
POOLING = (2, 7, 7)


class S3D(TorchvisionNet):
    """Inception blocks whose convolutions are divided into picture and time; 1,024 numbers.

    See `TorchvisionNet` for the parameters. The published classifier is applied at every
    time after a pooling of two frames, and then averaged; as it is linear, the average of
    what enters it is the embedding. Smaller inputs are pooled over what is left of them.
    """

    name: ClassVar[str] = "s3d"
    mean: ClassVar[tuple[float, float, float]] = (0.43216, 0.394666, 0.37645)
    deviation: ClassVar[tuple[float, float, float]] = (0.22803, 0.22145, 0.216989)
    last_layers: ClassVar[tuple[str, ...]] = ("classifier.",)
    # Of no paper here: trained as I3D is.
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        "paper": NetSettings("s3d", train=TrainSettings(lr=1e-4, batch_size=8)),
    }
    published: ClassVar[tuple[str, ...]] = ("s3d-d76dad2f.pth of torchvision (Kinetics-400)",)
    pretrained_outputs: ClassVar[int] = 400

    def make_backbone(self) -> tuple[nn.Module, int]:
        from torchvision.models.video import s3d

        module: Any = s3d(weights=None)
        dim: int = module.classifier[1].in_channels
        # Of this module only `features` is called.
        module.avgpool = module.classifier = nn.Identity()
        return module, dim

    def embed(self, x: Tensor) -> Tensor:
        """float32 (batch, 3, frames, height, width) -> (batch, 1024)."""
        # 16 frames of 224: (batch, 1024, 2, 7, 7)
        y: Tensor = self.backbone.features(x)  # type: ignore[operator]
        kernel = [min(size, left) for size, left in zip(POOLING, y.shape[2:], strict=True)]
        return functional.avg_pool3d(y, kernel, stride=1).mean(dim=(2, 3, 4))
