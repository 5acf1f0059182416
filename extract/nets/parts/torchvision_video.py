"""Base class of torchvision's video nets, used without their last layer.

Nothing is fetched: pretrained weights are files of torchvision, passed with ``--weights``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.inputs import VideoInput
from mvemo.extract.nets.parts.registry import check_options
from mvemo.extract.nets.parts.weights import Match, load_mapped, load_own

# Prefix of the names of torchvision's tensors in the net.
PREFIX = "backbone."


@dataclass(frozen=True)
class TorchvisionOptions:
    """Options of `TorchvisionNet`.

    Parameters
    ----------
    n_frames
        Number of frames of the input; the default is that of the published weights.
    size
        Height and width of the input in pixels; the default is that of the published weights.
    dropout
        Probability of dropout before the classifier during training.
    """

    n_frames: int = 16
    size: int = 224
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_options(self, "", "n_frames", least_size=32)


class TorchvisionNet(Net):
    """Base of torchvision's video nets.

    A subclass states the mean and deviation of its colours, and makes torchvision's module
    without the last layer. The embedding is the input of that layer. The width is always 1.
    """

    modality: ClassVar[Literal["audio", "video"]] = "video"
    Options = TorchvisionOptions
    # Normalisation of red, green and blue, from 0 to 1, in the training of the weights.
    mean: ClassVar[tuple[float, float, float]]
    deviation: ClassVar[tuple[float, float, float]]
    last_layers: ClassVar[tuple[str, ...]]  # prefixes of the last layer's tensors in the files

    options: TorchvisionOptions  # see `TorchvisionOptions`
    input: VideoInput
    _mean: Tensor
    _deviation: Tensor

    def __init__(
        self, n_outputs: int, *, width: float = 1.0, options: TorchvisionOptions | None = None
    ) -> None:
        super().__init__(options or self.Options())
        if width != 1.0:
            raise BadSetting(f"{self.name}: width is {width}: torchvision's nets have width 1 only")
        self.backbone, self.embedding_dim = self.make_backbone()
        self.classifier_dropout = nn.Dropout(self.options.dropout)
        self.classifier = nn.Linear(self.embedding_dim, n_outputs)
        for name, values in (("_mean", self.mean), ("_deviation", self.deviation)):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    @abstractmethod
    def make_backbone(self) -> tuple[nn.Module, int]:
        """Make the module without its last layer, with random weights; return it and its size."""

    @classmethod
    def input_of(cls, options: TorchvisionOptions) -> VideoInput:
        return VideoInput(options.n_frames, options.size)

    def prepare(self, raw: Tensor) -> Tensor:
        """Map RGB uint8 (batch, frames, height, width, 3) to float32 (batch, 3, frames, ...)."""
        values = raw.float().div(255).sub_(self._mean).div_(self._deviation)
        return values.permute(0, 4, 1, 2, 3)

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, 3, frames, height, width) to (batch, embedding_dim)."""
        embedding: Tensor = self.backbone(x)
        return embedding

    def preprocessing(self) -> dict[str, Any]:
        return {
            "frames": "uniform presentation times",
            "colour": "RGB",
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "crop": "short side scaled, middle",
            "options": asdict(self.options),
        }

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> Match:
        """Load a file of torchvision or a file that mvemo saved.

        The last layer is replaced, so the `Match` lists it as unexpected.
        """
        if any(name.startswith(PREFIX) for name in tensors):
            return load_own(self, tensors)
        state = self.state_dict()
        mapped = {
            PREFIX + name: value
            for name, value in tensors.items()
            if PREFIX + name in state and not name.startswith(self.last_layers)
        }
        unexpected = [name for name in tensors if PREFIX + name not in mapped]
        return load_mapped(self, mapped, unexpected=unexpected)
