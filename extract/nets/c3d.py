"""C3D (Tran et al. 2015) with its last layers replaced as in PL20 3.3 and Z22 1.2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts.base import VideoNet
from mvemo.extract.nets.parts.cards import NetCard, NetOptions, dropout, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting

# Name and number of channels of each convolution; a pooling follows those in `POOLED`.
CONVOLUTIONS = (
    ("conv1a", 64),
    ("conv2a", 128),
    ("conv3a", 256),
    ("conv3b", 256),
    ("conv4a", 512),
    ("conv4b", 512),
    ("conv5a", 512),
    ("conv5b", 512),
)
POOLED = ("conv1a", "conv2a", "conv3b", "conv4b", "conv5b")
# Mean of the published Sports-1M mean clip over its 16 frames and 112 x 112 pixels, in the
# order blue, green, red. Single pixels of the mean clip differ from it by about 10.
SPORTS1M_MEAN = (95.135, 102.863, 107.760)
# Divisor of the values after the mean is subtracted. Pixels have a deviation of about 64.
SCALES = {"sports1m": 1.0, "unit": 64.0}

# Layer name at the end of a tensor's name, with the suffixes that may follow it.
_NAMED = re.compile(
    r"(?:^|[./])(conv\d[ab]?|[wb]c\d[ab]?)(?:[./]conv)?(?:[./](?:weight|bias|kernel|0|1))?$"
)


@dataclass(frozen=True)
class C3DOptions(NetOptions):
    n_frames: int = setting(32, "Number of frames of the input; 32 in the papers.", ge=1)
    size: int = setting(112, "Height and width of the input in pixels; 112 in the papers.", ge=16)
    dropout: float = dropout(0.2, "after each fully connected layer")
    # For `unit`, published weights are multiplied by 64. They were trained with a mean for each
    # pixel and frame.
    scale: str = setting(
        "sports1m",
        "Scale of the input. `sports1m`: blue, green and red values from 0 to 255, minus the mean "
        "of each colour. `unit`: these values divided by 64; the default with random weights.",
        names=tuple(SCALES),
    )


@NetCard(
    "c3d",
    C3DOptions,
    {
        # The settings that PL20 chose in Table 2.
        "paper": profile(TrainSettings(optimizer="sgd", lr=1e-5, batch_size=8), size=112),
        "demo": profile(TrainSettings(lr=1e-3, epochs=20, patience=6), width=0.125, size=56),
    },
    windows_at_once=1,
    started_from="Sports-1M weights (PL20 3.3, 3.5)",
    random_options={"scale": "unit"},
    published=(
        "Sports-1M in Caffe's names (conv1a ... conv5b) as .npz or HDF5",
        "c3d.pickle of DavideA/c3d-pytorch (conv1.weight ... conv5b.weight)",
        "c3d_sports1m_pretrain of mmaction (conv1a.conv.weight ...)",
        "arrays of hx173149/C3D-tensorflow (wc1 ... wc5b, bc1 ... bc5b)",
    ),
)
class C3D(VideoNet):
    """C3D: eight 3 x 3 x 3 convolutions and five poolings, then layers of 1,024 and 512 units.

    The published fc6, fc7 and fc8 are replaced (PL20 3.3), so only the convolutions are loaded. A
    dropout follows each replaced layer, as in the published net.
    """

    colour = "BGR"
    follows_run = True
    options: C3DOptions
    _mean: Tensor

    def build(self, width: float) -> int:
        self.convolutions: nn.ModuleDict = nn.ModuleDict()
        last = 3
        for name, channels in CONVOLUTIONS:
            convolution = nn.Conv3d(last, scaled(channels, width), 3, padding=1)
            self.convolutions[name] = convolution
            last = convolution.out_channels
        frames, side = self.options.n_frames, self.options.size
        for name in POOLED:
            frames = frames if name == "conv1a" else max(frames // 2, 1)
            side = side // 2 + (name == "conv5b")
        self.fc6: nn.Linear = nn.Linear(last * frames * side * side, scaled(1024, width))
        self.fc7: nn.Linear = nn.Linear(self.fc6.out_features, scaled(512, width))
        layers: Any = (*self.convolutions.values(), self.fc6, self.fc7)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.dropout: nn.Module = self.classifier_dropout
        self._divisor = SCALES[self.options.scale]
        self.register_buffer("_mean", torch.tensor(SPORTS1M_MEAN), persistent=False)
        return self.fc7.out_features

    def prepare(self, raw: Tensor) -> Tensor:
        """Map RGB uint8 (batch, frames, height, width, 3) to BGR (batch, 3, frames, ...)."""
        values = raw.flip(4).float().sub_(self._mean)
        if self._divisor != 1.0:
            values.div_(self._divisor)
        return values.permute(0, 4, 1, 2, 3)

    def embed(self, x: Tensor) -> Tensor:
        for name, convolution in self.convolutions.items():
            x = functional.relu(convolution(x), inplace=True)
            if name in POOLED:
                # The first pooling keeps the frames.
                kernel = (1 if name == "conv1a" else min(2, x.shape[2]), 2, 2)
                # The published net pads by one pixel after conv5b: 7 x 7 becomes 4 x 4.
                side = int(name == "conv5b")
                x = functional.max_pool3d(x, kernel, kernel, padding=(0, side, side))
        # 32 frames of 112 x 112 pixels: (batch, 512, 2, 4, 4) -> (batch, 16384)
        x = self.dropout(functional.relu(self.fc6(x.flatten(1))))
        # -> (batch, embedding_dim)
        return functional.relu(self.fc7(x))

    def scaling(self) -> dict[str, Any]:
        return {"mean": list(SPORTS1M_MEAN), "divisor": self._divisor}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Map the convolutions of any published layout; fully connected layers are left out."""
        mapped: dict[str, tuple[str, Tensor]] = {}
        for published, value in tensors.items():
            match = _NAMED.search(published)
            if match is None or published.startswith("convolutions."):
                continue
            # hx173149/C3D-tensorflow has "wc" and "bc" in place of "conv".
            tensorflow = not match[1].startswith("conv")
            layer = re.sub("^[wb]c", "conv", match[1])
            # This and PyTorch ports have no "a" in the first two names.
            layer += "a" if layer in ("conv1", "conv2") else ""
            if value.dim() == 1 or (value.dim() == 5 and value.shape[:4] == (1, 1, 1, 1)):
                mapped[published] = (f"convolutions.{layer}.bias", value.flatten())
            elif value.dim() == 5:
                kernel = value.permute(4, 3, 0, 1, 2) if tensorflow else value
                # `prepare` divides by this value, so the features do not depend on the scale.
                scale = self._divisor if layer == "conv1a" else 1.0
                mapped[published] = (f"convolutions.{layer}.weight", kernel * scale)
        return mapped
