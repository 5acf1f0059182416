"""Convolutions of 3 x 3 pixels with a quarter of the multiplications, for embedding on a CPU.

Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray 2016, "Fast algorithms for
convolutional neural networks"): tiles of 6 x 6 pixels, which overlap by two, are transformed;
each of their 36 places is then a matrix product over channels; and transformed back these are
4 x 4 outputs. Frames are convolved as they are: the products of neighbouring frames are summed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Outputs of a tile along one axis, and its inputs.
STEP, TILE = 4, 6
# Rows of the matrix products that are made at once, so that they fit into a core's cache.
ROWS = 1024
# With fewer channels transforming costs what multiplying saves.
LEAST_CHANNELS = 32

# Of inputs, of the kernel and of products (ibid. 4.2); the points are 0, 1, -1, 2, -2 and
# infinity.
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class WinogradConvolution(nn.Module):
    """A convolution's values, made of a quarter of its multiplications.

    They differ from those of direct convolution by rounding: some 1e-5 of the largest value
    in float32. No gradient goes to the weights.

    Parameters
    ----------
    convolution
        Of a kernel (t, 3, 3), t odd, with stride 1 and zeros around, so that outputs have the
        places of the inputs (see `suits`).

    Examples
    --------
    >>> direct = nn.Conv3d(32, 32, 3, padding=1)
    >>> x = torch.rand(1, 32, 4, 9, 9)
    >>> torch.allclose(WinogradConvolution(direct)(x), direct(x), atol=1e-5)
    True
    """

    _input_transform: Tensor
    _output_transform: Tensor
    kernel: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self.outputs, self.inputs, self.taps = weight.shape[:3]
        transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
        # (out, in, taps, 3, 3) -> (taps, 36, in, out); places go along columns first.
        kernel = torch.einsum("wk,hj,oitjk->twhio", transform, transform, weight.double())
        kernel = kernel.reshape(self.taps, TILE * TILE, self.inputs, self.outputs)
        self.register_buffer("kernel", kernel.to(weight.dtype).contiguous())
        bias = convolution.bias
        self.register_buffer(
            "bias", weight.new_zeros(self.outputs) if bias is None else bias.detach().clone()
        )
        self.register_buffer("_input_transform", weight.new_tensor(INPUT_TRANSFORM))
        of_axis = torch.tensor(OUTPUT_TRANSFORM, dtype=weight.dtype)
        # (rows and columns of the outputs, columns and rows of the products)
        of_both = torch.einsum("ph,qw->pqwh", of_axis, of_axis)
        self.register_buffer("_output_transform", of_both.reshape(STEP * STEP, TILE * TILE))

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Whether a layer can be made so, and is worth it."""
        return (
            isinstance(layer, nn.Conv3d)
            and layer.kernel_size[0] % 2 == 1
            and layer.kernel_size[1:] == (3, 3)
            and layer.padding == tuple(side // 2 for side in layer.kernel_size)
            and layer.padding_mode == "zeros"
            and layer.stride == layer.dilation == (1, 1, 1)
            and layer.groups == 1
            and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, frames, height, width) -> (batch, out, ...), channels last in memory."""
        places = x.permute(0, 2, 3, 4, 1)
        batch, frames, height, width = places.shape[:4]
        y = x.new_empty((batch, frames, height, width, self.outputs))
        tiles = -(-height // STEP) * -(-width // STEP)
        n_frames = min(frames, max(1, ROWS // tiles))
        n_clips = max(1, ROWS // (tiles * frames))
        for clip in range(0, batch, n_clips):
            for first in range(0, frames, n_frames):
                # (frames, clips, height, width, channels): a tap is a slice of the first axis.
                part = y[clip : clip + n_clips, first : first + n_frames].transpose(0, 1)
                padded = self._padded(places[clip : clip + n_clips], first, len(part))
                self._convolve(padded, part)
        return y.permute(0, 4, 1, 2, 3)

    def _padded(self, places: Tensor, first: int, n_frames: int) -> Tensor:
        """The frames that some outputs depend on, with zeros around them."""
        clips, frames, height, width = places.shape[:4]
        reach = self.taps // 2
        start, stop = max(first - reach, 0), min(first + n_frames + reach, frames)
        padded = places.new_zeros(
            n_frames + 2 * reach,
            clips,
            -(-height // STEP) * STEP + 2,
            -(-width // STEP) * STEP + 2,
            self.inputs,
        )
        inside = slice(start - first + reach, stop - first + reach)
        padded[inside, :, 1 : height + 1, 1 : width + 1] = places[:, start:stop].transpose(0, 1)
        return padded

    def _convolve(self, padded: Tensor, y: Tensor) -> None:
        """Padded frames (frames, clips, height, width, in) -> y (frames, clips, ..., out)."""
        frames, clips, height, width = y.shape[:4]
        down, across = -(-height // STEP), -(-width // STEP)
        rows = clips * down * across
        v = self._transform(padded, down, across).view(TILE * TILE, -1, self.inputs)
        products = padded.new_empty(TILE * TILE, frames * rows, self.outputs)
        # One place after the other: its products stay in the cache while taps are summed.
        for place, product in enumerate(products):
            torch.mm(v[place, : frames * rows], self.kernel[0, place], out=product)
            for tap in range(1, self.taps):
                inputs = v[place, tap * rows : (frames + tap) * rows]
                product.addmm_(inputs, self.kernel[tap, place])
        values = torch.mm(self._output_transform, products.view(TILE * TILE, -1))
        values = values.view(STEP, STEP, frames, clips, down, across, self.outputs)
        # -> (frames, clips, down, rows of a tile, across, columns of a tile, out)
        values = values.permute(2, 3, 4, 0, 5, 1, 6)
        values = values.reshape(frames, clips, STEP * down, STEP * across, self.outputs)
        torch.add(values[:, :, :height, :width], self.bias, out=y)

    def _transform(self, padded: Tensor, down: int, across: int) -> Tensor:
        """(frames, clips, height, width, in) -> (columns, rows, frames, clips, tiles, in)."""
        frames, clips, _, width, channels = padded.shape
        line, images = width * channels, frames * clips
        # Rows first, whole lines at once: (6, images, down, line).
        strides = (line, padded.stride(1), STEP * line, 1)
        x = padded.as_strided((TILE, images, down, line), strides).reshape(TILE, -1)
        x = torch.mm(self._input_transform, x)
        # Then columns: (6, 6, images, down, across, channels).
        shape = (TILE, TILE, images * down, across, channels)
        x = x.as_strided(shape, (channels, x.stride(0), line, STEP * channels, 1))
        return torch.mm(self._input_transform, x.reshape(TILE, -1))


class PointConvolution(nn.Module):
    """A convolution of one place, as one matrix product over all places.

    Parameters
    ----------
    convolution
        Of a kernel (1, 1, 1) with stride 1, not in groups.

    Examples
    --------
    >>> direct = nn.Conv3d(4, 3, 1)
    >>> x = torch.rand(1, 4, 2, 5, 5)
    >>> torch.allclose(PointConvolution(direct)(x), direct(x), atol=1e-6)
    True
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1))
        self.bias = convolution.bias

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Whether a layer is one."""
        return (
            isinstance(layer, nn.Conv3d)
            and layer.kernel_size == layer.stride == (1, 1, 1)
            and layer.padding == (0, 0, 0)
            and layer.groups == 1
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, frames, height, width) -> (batch, out, ...), channels last in memory."""
        places = x.permute(0, 2, 3, 4, 1)
        return nn.functional.linear(places, self.weight, self.bias).permute(0, 4, 1, 2, 3)
