"""Faster copies of nets for embedding, with folded batch normalisation and fast convolutions.

The fast convolutions need a quarter of the multiplications, by Winograd's minimal filtering (Lavin
and Gray 2016, "Fast algorithms for convolutional neural networks"). Overlapping tiles of pixels are
transformed; each place of a tile then needs one matrix product over channels, and the inverse
transform gives 4 x 4 outputs. For kernels of 3 x 3 pixels a tile has 6 x 6 places: 36 products in
place of 144. Along time the convolution is direct: products of neighbouring frames are summed.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mvemo.extract.nets.parts.base import Net

# Number of outputs of a tile along one axis.
STEP = 4
# Points at which polynomials are evaluated, in addition to infinity, by the side of the kernel
# in pixels. Of the points that were tried, these have the smallest rounding errors.
POINTS: dict[int, tuple[float, ...]] = {
    3: (0.0, 1.0, -1.0, 0.5, -2.0),
    4: (0.0, 1.0, -1.0, 2.0, -2.0, 0.5),
    5: (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5),
}
# Number of rows of a matrix product, so that it fits into the cache of a core. More rows are
# not faster and take memory.
ROWS = 512
# With fewer channels the transforms cost as much as they save.
LEAST_CHANNELS = 32


@cache
def transforms(side: int) -> list[Tensor]:
    """Return `inputs`, `kernel` and `outputs` of y = outputs @ ((kernel @ g) * (inputs @ x))."""
    points = np.array(POINTS[side])
    tile = len(points) + 1
    inputs, kernel, outputs = (np.zeros(s) for s in ((tile, tile), (tile, side), (STEP, tile)))
    for i, point in enumerate(points):
        rest = np.delete(points, i)
        inputs[i, :-1] = np.poly(rest)[::-1]
        kernel[i] = point ** np.arange(side) / np.prod(point - rest)
        outputs[:, i] = point ** np.arange(STEP)
    inputs[-1] = np.poly(points)[::-1]
    kernel[-1, -1] = outputs[-1, -1] = 1.0
    return [torch.from_numpy(each) for each in (inputs, kernel, outputs)]


def is_convolution(layer: nn.Module, **attributes: Any) -> bool:
    """Return True for an undilated 3D convolution of one group that has these attributes."""
    expected = {"dilation": (1, 1, 1), "groups": 1, "padding_mode": "zeros", **attributes}
    return isinstance(layer, nn.Conv3d) and all(
        getattr(layer, name) == value for name, value in expected.items()
    )


class WinogradConvolution(nn.Module):
    """Convolution with a quarter of the multiplications, and kernel (t, 3, 3) with t odd.

    Values differ by rounding, by about 1e-5 of the largest value in float32. The weights get no
    gradient.
    """

    _of_inputs: Tensor
    _of_outputs: Tensor
    kernel: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        weight, bias = self._kernel(convolution.weight.detach()), convolution.bias
        self.outputs: int = weight.shape[0]
        self.inputs: int = weight.shape[1]
        self.taps: int = weight.shape[2]
        side = weight.shape[4]
        of_inputs, of_kernel, of_outputs = transforms(side)
        self.tile: int = len(of_inputs)
        # (columns and rows of a tile, columns and rows of the kernel)
        of_kernel = torch.kron(of_kernel, of_kernel).to(weight.dtype)
        # (out, in, taps, rows, columns) -> (columns and rows, taps, in, out)
        kernel = weight.permute(4, 3, 2, 1, 0).reshape(side**2, -1)
        kernel = torch.mm(of_kernel, kernel)
        kernel = kernel.view(self.tile**2, self.taps, self.inputs, self.outputs)
        of_outputs = torch.einsum("ph,qw->pqwh", of_outputs, of_outputs)
        of_outputs = of_outputs.reshape(STEP**2, self.tile**2)
        self.register_buffer("kernel", kernel)
        self.register_buffer("_of_inputs", of_inputs.to(weight.dtype))
        self.register_buffer("_of_outputs", of_outputs.to(weight.dtype))
        bias = weight.new_zeros(self.outputs) if bias is None else bias.detach()
        self.register_buffer("bias", bias)

    @staticmethod
    def _kernel(weight: Tensor) -> Tensor:
        """Return the kernel (out, in, taps, side, side) of the convolution that is computed."""
        return weight

    @staticmethod
    def supports(layer: Any) -> bool:
        """Return True if this class can replace a layer and is faster."""
        return (
            is_convolution(layer, stride=(1, 1, 1))
            and layer.kernel_size[0] % 2 == 1
            and layer.kernel_size[1:] == (3, 3)
            and layer.padding == tuple(side // 2 for side in layer.kernel_size)
            and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
        )

    def output_places(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, frames, height, width) to (batch, out, ...), channels last in memory."""
        places = x.permute(0, 2, 3, 4, 1)
        batch = len(places)
        frames, height, width = self.output_places(*places.shape[1:4])
        y = x.new_empty((batch, frames, height, width, self.outputs))
        # Numbers of tiles along height and width.
        down, across = -(-height // STEP), -(-width // STEP)
        # Bands of rows do not overlap, but blocks of few frames read many of the same frames.
        n_frames = min(frames, max(2 * self.taps, ROWS // across))
        n_down = min(down, max(1, ROWS // (n_frames * across)))
        n_clips = max(1, ROWS // (n_down * across * frames))
        for clip, first, tile in product(
            range(0, batch, n_clips), range(0, frames, n_frames), range(0, down, n_down)
        ):
            top = STEP * tile
            part = y[clip : clip + n_clips, first : first + n_frames, top : top + STEP * n_down]
            # (frames, clips, height, width, out)
            part = part.transpose(0, 1)
            shape = (len(part) + self.taps - 1, self._reach(part.shape[2]), self._reach(width))
            inputs = self._inputs(places[clip : clip + n_clips], first, top, shape)
            self._convolve(inputs, part)
        return y.permute(0, 4, 1, 2, 3)

    def _reach(self, n: int) -> int:
        """Return the number of pixels that `n` outputs in whole tiles depend on."""
        return -(-n // STEP) * STEP + self.tile - STEP

    def _inputs(self, places: Tensor, first: int, top: int, shape: tuple[int, int, int]) -> Tensor:
        """Return the zero-padded inputs of a block, (frames, clips, height, width, in)."""
        clips, frames, height, width = places.shape[:4]
        inputs = places.new_zeros(shape[0], clips, *shape[1:], self.inputs)
        before, above = first - self.taps // 2, top - 1
        start, stop = max(before, 0), min(before + shape[0], frames)
        high, low = max(above, 0), min(above + shape[1], height)
        inside = inputs[start - before : stop - before, :, high - above : low - above]
        inside[..., 1 : width + 1, :] = places[:, start:stop, high:low].transpose(0, 1)
        return inputs

    def _convolve(self, inputs: Tensor, y: Tensor) -> None:
        """Convolve inputs (frames, clips, height, width, in) into y (frames, clips, ..., out)."""
        frames, clips, height, width = y.shape[:4]
        down, across = -(-height // STEP), -(-width // STEP)
        rows = clips * down * across
        v = self._transform(inputs, down, across).view(self.tile**2, -1, self.inputs)
        products = inputs.new_empty(self.tile**2, frames * rows, self.outputs)
        # Each place of a tile in turn: its products stay in the cache while taps are summed.
        for place, of_place in enumerate(products):
            torch.mm(v[place, : frames * rows], self.kernel[place, 0], out=of_place)
            for tap in range(1, self.taps):
                of_tap = v[place, tap * rows : (frames + tap) * rows]
                of_place.addmm_(of_tap, self.kernel[place, tap])
        values = torch.mm(self._of_outputs, products.view(self.tile**2, -1))
        values = values.view(STEP, STEP, frames, clips, down, across, self.outputs)
        # -> (frames, clips, down, rows of a tile, across, columns of a tile, out)
        values = values.permute(2, 3, 4, 0, 5, 1, 6)
        values = values.reshape(frames, clips, STEP * down, STEP * across, self.outputs)
        torch.add(values[:, :, :height, :width], self.bias, out=y)

    def _transform(self, inputs: Tensor, down: int, across: int) -> Tensor:
        """Map (frames, clips, height, width, in) to (columns, rows, frames, clips, tiles, in)."""
        frames, clips, _, width, channels = inputs.shape
        line, images = width * channels, frames * clips
        # Rows first, whole lines at once: (tile, images, down, line).
        strides = (line, inputs.stride(1), STEP * line, 1)
        x = inputs.as_strided((self.tile, images, down, line), strides).reshape(self.tile, -1)
        x = torch.mm(self._of_inputs, x)
        # Then columns: (tile, tile, images and down, across, channels).
        shape = (self.tile, self.tile, images * down, across, channels)
        x = x.as_strided(shape, (channels, x.stride(0), line, STEP * channels, 1))
        return torch.mm(self._of_inputs, x.reshape(self.tile, -1))


class HalvingConvolution(WinogradConvolution):
    """Winograd convolution for a kernel of 7 x 7 x 7 with stride 2, the first layer of video nets.

    Pairs of frames, rows and columns become eight times the channels, and the kernel 4 x 4 x 4.
    """

    @staticmethod
    def _kernel(weight: Tensor) -> Tensor:
        kernel = nn.functional.pad(weight, (0, 1) * 3)
        kernel = kernel.view(*kernel.shape[:2], *(4, 2) * 3)
        # (out, in, t, dt, h, dh, w, dw) -> (out, (dt, dh, dw, in), t, h, w)
        return kernel.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)

    @staticmethod
    def supports(layer: nn.Module) -> bool:
        return is_convolution(layer, stride=(2, 2, 2), kernel_size=(7, 7, 7), padding=(0, 0, 0))

    def output_places(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return (frames - 5) // 2, (height - 5) // 2, (width - 5) // 2

    def _inputs(self, places: Tensor, first: int, top: int, shape: tuple[int, int, int]) -> Tensor:
        clips, _, _, width, channels = places.shape
        inputs = places.new_zeros(shape[0], clips, *shape[1:], 2, 2, 2 * channels)
        pairs = min(width // 2, shape[2])
        for frame in (0, 1):
            frames = places[:, 2 * first + frame :: 2, 2 * top :][:, : shape[0]].transpose(0, 1)
            for row in (0, 1):
                # Even or odd frames and rows; the two columns of a pair are adjacent.
                source = frames[:, :, row::2][:, :, : shape[1]]
                target = inputs[: len(source), :, : source.shape[2], :, frame, row]
                paired = source[..., : 2 * pairs, :].reshape(*source.shape[:3], pairs, -1)
                target[..., :pairs, :] = paired
                if width % 2 and pairs < shape[2]:
                    target[..., pairs, :channels] = source[..., -1, :]
        return inputs.flatten(4)


def convolution_peaks(x: Tensor, kernel: Tensor) -> Tensor:
    """Return the maximum over the width of a convolution with one input channel, float32 on a CPU.

    Winograd's method is used along the width, for pieces of a wide kernel. Inputs (n, 1, height,
    width) and a kernel (out, 1, rows, columns) give (n, out, height - rows + 1).
    """
    side, at_once = max(POINTS), 16
    of_inputs, of_kernel, of_outputs = (matrix.to(x.dtype) for matrix in transforms(side))
    tile = len(of_inputs)
    out, _, rows, columns = kernel.shape
    height, width = x.shape[2] - rows + 1, x.shape[3] - columns + 1
    pieces, tiles = -(-columns // side), -(-width // STEP)
    kernel = nn.functional.pad(kernel[:, 0], (0, side * pieces - columns))
    kernel = kernel.reshape(out, rows, pieces, side)
    kernel = torch.einsum("tc,orpc->trpo", of_kernel, kernel).reshape(tile, rows * pieces, out)
    reach = STEP * (tiles - 1) + side * (pieces - 1) + tile
    x = nn.functional.pad(x[:, 0], (0, reach - x.shape[3]))
    # (n, tile, rows of x, first columns)
    x = torch.einsum("tc,nhwc->nthw", of_inputs, x.unfold(2, tile, 1)).contiguous()
    peaks = x.new_empty(len(x), height, out)
    strides = (x.stride(1), x.stride(2), STEP, x.stride(2), side)
    for clip, first in product(range(len(x)), range(0, height, at_once)):
        part = peaks[clip, first : first + at_once]
        shape = (tile, len(part), tiles, rows, pieces)
        inputs = x[clip, :, first:].as_strided(shape, strides)
        products = torch.bmm(inputs.reshape(tile, -1, rows * pieces), kernel)
        values = torch.mm(of_outputs, products.view(tile, -1)).view(STEP, -1, tiles, out)
        highest = values.amax(dim=0)
        # The last tile may reach beyond the width.
        highest[:, -1] = values[: width - STEP * (tiles - 1), :, -1].amax(dim=0)
        part.copy_(highest.amax(dim=1))
    return peaks.transpose(1, 2)


class PointConvolution(nn.Module):
    """Convolution with kernel (1, 1, 1) and stride 1 as one matrix product over all places."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(convolution.weight.detach().flatten(1))
        self.bias: Tensor | None = convolution.bias

    @staticmethod
    def supports(layer: nn.Module) -> bool:
        return is_convolution(layer, stride=(1, 1, 1), kernel_size=(1, 1, 1), padding=(0, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        places = x.permute(0, 2, 3, 4, 1)
        return nn.functional.linear(places, self.weight, self.bias).permute(0, 4, 1, 2, 3)


AnyNet = TypeVar("AnyNet", bound=Net)


class NormedConvolution(nn.Module):
    """Layer with a convolution and then the normalisation `norm`."""

    convolution_name: ClassVar[str] = "convolution"
    norm: Any
    # True in copies of `optimized` that may call `fused_convolution`.
    fused = False

    def __init__(self) -> None:
        super().__init__()
        # Height and width of pictures to the weight in the order that oneDNN reads for them.
        self._packed: dict[torch.Size, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the packed weights, which cannot be copied."""
        return {**self.__dict__, "_packed": {}}

    def fold(self) -> None:
        """Fold the normalisation by running statistics into the weights of the convolution."""
        convolution, norm = getattr(self, self.convolution_name), self.norm
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        self.norm = nn.Identity()

    def fused_convolution(
        self, x: Tensor, weight: Tensor, padding: Sequence[int], *, clamped: bool
    ) -> Tensor:
        """Convolve by oneDNN, and clamp values to 0..6 (ReLU6) while they are in the cache."""
        layer = getattr(self, self.convolution_name)
        how = padding, layer.stride, [1, 1], layer.groups
        if (packed := self._packed.get(x.shape[2:])) is None:
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *how, x.shape)
            self._packed[x.shape[2:]] = packed
        activation = ("hardtanh", [0, 6], "") if clamped else ("none", [], "")
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, layer.bias, *how, *activation
        )
        return result


@torch.no_grad()
def optimized(net: AnyNet, precision: str = "float32") -> AnyNet:
    """Return a copy of a net that embeds faster, or the net itself if nothing can be improved.

    `net` must be in evaluation mode and on its final device. Embeddings differ only by rounding, by
    about 1e-4 of the largest value. Do not save the weights of the copy, which differ.
    """
    if not _unfolded(net) and not (precision == "float32" and any(_replacements(net))):
        return net
    faster = copy.deepcopy(net)
    fused = precision == "float32" and all(p.device.type == "cpu" for p in net.parameters())
    operators = "_convolution_pointwise", "_reorder_convolution_weight"
    fused = fused and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    for module in _unfolded(faster):
        module.fold()
        module.fused = fused
    if precision == "float32":
        for parent, name, replacement in list(_replacements(faster)):
            setattr(parent, name, replacement(getattr(parent, name)))
    return faster


def _unfolded(net: nn.Module) -> list[NormedConvolution]:
    layers = [module for module in net.modules() if isinstance(module, NormedConvolution)]
    return [layer for layer in layers if not isinstance(layer.norm, nn.Identity)]


def _replacements(net: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[Any], nn.Module]]]:
    """Yield parent, name and faster class of each layer on the CPU that has a faster class."""
    for module in net.modules():
        for name, child in module.named_children():
            for faster in (WinogradConvolution, HalvingConvolution, PointConvolution):
                if faster.supports(child) and child.weight.device.type == "cpu":
                    yield module, name, faster
