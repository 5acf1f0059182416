"""Names and axes of musicnn's tensors in the published TensorFlow graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


def from_tensorflow(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """Map the variables of the published graph to the net's tensors; also return those used."""
    names = [(name, published) for name, published in _published_names() if published in tensors]
    mapped = {name: _torch_axes(tensors[published], name) for name, published in names}
    return mapped, {published for _, published in names}


def _published_names() -> Iterator[tuple[str, str]]:
    """Yield the net's name and the published name of every tensor.

    The published graph numbers the layers of one kind in the order of their creation.
    """
    fronts = [*(f"timbral.{i}" for i in range(2)), *(f"temporal.{i}" for i in range(3))]
    layers = [(f"{front}.convolution", f"{front}.norm") for front in fronts]
    layers += [(f"context.{i}", f"context_norms.{i}") for i in range(3)]
    kernels = [(layer, f"conv2d{_count(i)}") for i, (layer, _) in enumerate(layers)]
    kernels += [("dense", "dense"), ("tags", "dense_1")]
    for name, published in kernels:
        yield f"{name}.weight", f"{published}/kernel"
        yield f"{name}.bias", f"{published}/bias"
    norms = ["input_norm", *(norm for _, norm in layers), "pooled_norm", "dense_norm"]
    for i, name in enumerate(norms):
        published = f"batch_normalization{_count(i)}"
        yield f"{name}.weight", f"{published}/gamma"
        yield f"{name}.bias", f"{published}/beta"
        yield f"{name}.running_mean", f"{published}/moving_mean"
        yield f"{name}.running_var", f"{published}/moving_variance"


def _count(i: int) -> str:
    """Return the suffix of TensorFlow's layer `i`: the first layer of a kind has none."""
    return f"_{i}" if i else ""


def _torch_axes(value: Tensor, name: str) -> Tensor:
    """Return a kernel (frames, bands, inputs, outputs) or a matrix in torch's axis order."""
    if value.dim() == 2:
        return value.T
    if value.dim() != 4:
        return value
    if name.startswith("context."):
        # A convolution over time only is published with the channels in the place of bands.
        return value.permute(3, 1, 0, 2).squeeze(3)
    return value.permute(3, 2, 0, 1)
