"""Layers and base class of nets on descriptor sequences.

Shorter clips of a batch are padded with NaN rows. The padding affects no layer here: the
embedding of a clip is the same in any batch and with any padding.
"""

from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from mvemo.extract.descriptors import DescriptorSettings, dim_of
from mvemo.extract.nets.parts import base, cards
from mvemo.manifests.errors import BadOption

FRAMES_MEANING = (
    "Number of frames of the input; 430 frames are the 10 s of J22 3.2 at 44.1 kHz and a hop of "
    "1,024."
)
# Record of `band_widths` and `band_means`.
BANDS = "means of bins, widths growing geometrically from one bin"
BANDS_MEANING = (
    "Number of bands to which the bins of the spectrogram are averaged; a value of at least "
    "`spectrogram_dim` keeps all bins."
)


class DescriptorNet(base.BuiltNet):
    """Base of nets that read `n_frames` frames of one descriptor."""

    modality: ClassVar[Literal["audio", "video"]] = "audio"
    descriptor: ClassVar[str]  # name of the descriptor
    columns_option: ClassVar[str]  # name of the option for its number of columns

    input: cards.SequenceInput

    @classmethod
    def input_of(cls, options: Any) -> cards.SequenceInput:
        return cards.SequenceInput((cls.descriptor,), options.n_frames)

    @classmethod
    def shared_options(cls, shared: cards.SharedSettings) -> dict[str, Any]:
        return {cls.columns_option: dim_of(cls.descriptor, shared.descriptors)}

    @classmethod
    def options_for(cls, seconds: float, shared: cards.SharedSettings) -> dict[str, Any]:
        return {"n_frames": frames_of(seconds, shared.descriptors, cls.descriptor)}

    def prepare(self, raw: Tensor) -> Tensor:
        """Return the batch unchanged: (batch, n_frames, columns), NaN after a clip's end."""
        self.check_columns(raw, getattr(self.options, self.columns_option), self.columns_option)
        return raw

    def check_columns(self, raw: Tensor, columns: int, option: str) -> None:
        if raw.dim() != 3 or raw.shape[2] != columns:
            raise BadOption(
                f"{self.name}: expected sequences of shape (batch, frames, {columns}), got "
                f"{tuple(raw.shape)}; the number of columns is set by the option {option}"
            )

    def preparation(self) -> dict[str, Any]:
        return {
            "features": list(self.input.features),
            "n_frames": self.input.n_frames,
            "shorter": "their own length",
            "longer": "cut",
        }


def frames_of(seconds: float, descriptors: DescriptorSettings, name: str = "mel") -> int:
    """Return the number of frames of a descriptor in a clip of this length, at least 1."""
    return max(1, round(seconds * descriptors.sr / descriptors.framed(name).hop_length))


def empty_input(net_input: cards.NetInput, device: str, descriptors: DescriptorSettings) -> Tensor:
    """Return a batch of one silent, black clip."""
    if isinstance(net_input, cards.AudioInput):
        return torch.zeros(1, net_input.samples, device=device)
    if isinstance(net_input, cards.VideoInput):
        shape = (1, net_input.n_frames, net_input.size, net_input.size, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    dim = sum(dim_of(name, descriptors) for name in net_input.features)
    return torch.zeros(1, net_input.n_frames, dim, device=device)


def split_frames(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the batch (batch, frames, dim), padded with zeros, and its lengths, int64 (batch,)."""
    valid = ~torch.isnan(x).all(dim=2)
    frames = torch.arange(1, x.shape[1] + 1, device=x.device)
    lengths = (valid * frames).amax(dim=1).clamp(min=1)
    return torch.where(valid[:, :, None], x, torch.zeros_like(x)), lengths


def band_widths(bins: int, bands: int) -> list[int]:
    """Return how many bins of a spectrum each band has.

    The lowest band is one bin wide, and widths grow geometrically, so low notes stay separate.
    """
    if bins <= bands:
        return [1] * bins
    if bands == 1:
        return [bins]
    # The edge at share s, from 0 to 1, is a ((1 + bins / a)^s - 1). A smaller a makes the first
    # band narrower. The smallest a that leaves no band empty gives this band the width 1.
    # scipy imports scipy.optimize on first use, which most runs do not need.
    log_a = scipy.optimize.brentq(
        lambda x: np.exp(x) * np.expm1(np.log1p(bins / np.exp(x)) / bands) - 1.0,
        np.log(1e-6),
        np.log(1e6 * bins),
        xtol=1e-12,
    )
    a = np.exp(log_a)
    edges = a * np.expm1(np.arange(bands + 1) / bands * np.log1p(bins / a))
    return np.diff(np.floor(edges + 0.5).astype(int)).tolist()


def band_means(x: Tensor, widths: list[int]) -> Tensor:
    """Average neighbouring bins: (batch, frames, bins) -> (batch, frames, bands)."""
    return torch.stack([part.mean(dim=2) for part in torch.split(x, widths, dim=2)], dim=2)


class FrameNorm(nn.Module):
    """Batch normalisation of real frames; with `momentum` None it averages all batches."""

    def __init__(self, channels: int, *, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.norm: nn.BatchNorm1d = nn.BatchNorm1d(channels, momentum=momentum)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise (batch, channels, ..., frames); the padding becomes zero."""
        # bool (batch, frames): True for real frames
        mask = torch.arange(x.shape[-1], device=lengths.device) < lengths[:, None]
        keep = mask.reshape(len(x), *[1] * (x.dim() - 2), x.shape[-1])
        if not self.training or mask.all():
            # Running statistics do not depend on padding, and without padding all frames are real.
            return self._normed(x.flatten(2)).reshape(x.shape) * keep
        # (batch, frames, channels, ...) -> (real frames, channels, the rest)
        moved = x.movedim(-1, 1)
        real = moved[mask]
        values = self._normed(real.reshape(*real.shape[:2], -1))
        out = torch.zeros_like(moved, dtype=values.dtype)
        out[mask] = values.reshape(real.shape)
        return out.movedim(1, -1)

    def _normed(self, x: Tensor) -> Tensor:
        """Normalise (batch, channels, values), by its own statistics during training."""
        if self.training and x.shape[0] * x.shape[2] < 2:
            # One value has no variance.
            norm = self.norm
            return functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False
            )
        return self.norm(x)


def pool(x: Tensor, lengths: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Max-pool values of at least 0 over (bands, frames); return the map and its lengths."""
    bands, frames = min(kernel[0], x.shape[2]), kernel[1]
    pooled = functional.max_pool2d(x, (bands, frames), ceil_mode=True)
    return pooled, (lengths + frames - 1) // frames


def last_states(layers: nn.LSTM | nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """Return the top layer's final states, (batch, hidden * directions) (J22 Fig. 5)."""
    lengths = lengths.cpu()
    # Packing takes as long as a small layer. If no clip is shorter, it does not change the result,
    # so it is left out.
    frames: Any = x
    if (lengths < x.shape[1]).any():
        frames = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    # Many processors have no LSTM of bf16.
    float32 = torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext()
    with float32:
        _, state = layers(frames.float() if x.dtype == torch.bfloat16 else frames)
    hidden = state[0] if isinstance(state, tuple) else state
    # (layers * directions, batch, hidden): the top layer's directions are last
    return torch.cat(list(hidden[-2:] if layers.bidirectional else hidden[-1:]), dim=1)
