"""Base class of the CNNs on a spectrogram (J22, L17)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts.registry import check_options, scaled
from mvemo.extract.nets.parts.sequences import (
    DescriptorNet,
    FrameNorm,
    masked_mean,
    pool,
    split_frames,
)

CHANNELS = (32, 64, 128, 256)
# Size of the pooling after each convolution: mel bands, frames.
POOL = (2, 2)


@dataclass(frozen=True)
class MelCNNOptions:
    """Options of nets that are a `MelCNN`.

    Parameters
    ----------
    n_frames
        Number of frames of the input; 430 frames are the 10 s of J22 3.2 at 44.1 kHz and a hop of
        1,024.
    n_mels
        Number of mel bands; J22 gives no number.
    dropout
        Probability of dropout before the classifier during training.
    """

    n_frames: int = 430
    n_mels: int = 64
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_options(self, "mel CNN: ", "n_frames", "n_mels")


class MelCNN(DescriptorNet):
    """Four layers of convolution, batch normalisation, ReLU and 2 x 2 max-pooling.

    The mean of the last map over frequency and over the frames of the clip goes through a
    fully connected layer, which a subclass may leave out.

    J22 compares two such nets (Table 3) without describing them, so the sizes are the usual
    ones. The input is the mel spectrogram, or the descriptor that a subclass names, in
    decibels. Each band is normalised by statistics of the training frames, so the loudness
    and the balance of a clip are kept.
    """

    descriptor = "mel"
    columns_option = "n_mels"
    Options: ClassVar[type[Any]] = MelCNNOptions

    options: Any  # a `MelCNNOptions`; subclasses may have another class

    def __init__(self, n_outputs: int, *, width: float = 1.0, options: Any = None) -> None:
        super().__init__(options or MelCNNOptions())
        self.input_norm = FrameNorm(self.n_bands, momentum=None)
        channels = [1, *(scaled(count, width) for count in CHANNELS)]
        self.convolutions = nn.ModuleList(
            self.make_convolution(i, a, b) for i, (a, b) in enumerate(pairwise(channels))
        )
        self.norms = nn.ModuleList(FrameNorm(count) for count in channels[1:])
        self.hidden = self.make_hidden(channels[-1])
        self.embedding_dim = channels[-1]
        self.classifier_dropout = nn.Dropout(self.options.dropout)
        self.classifier = nn.Linear(self.embedding_dim, n_outputs)

    @property
    def n_bands(self) -> int:
        """Return the number of bands of the first layer's input."""
        n_mels: int = self.options.n_mels
        return n_mels

    def make_convolution(self, layer: int, inputs: int, outputs: int) -> nn.Module:
        """Make the convolution of a layer, which keeps the size and has no bias."""
        return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def make_hidden(self, channels: int) -> nn.Module:
        """Make the layer from the mean of the last map to the embedding, both (batch, channels)."""
        return nn.Sequential(nn.Linear(channels, channels), nn.ReLU())

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, frames, bands), NaN after a clip's end, to (batch, embedding_dim)."""
        x, lengths = split_frames(x)
        # -> (batch, 1, bands, frames)
        x = self.input_norm(x.transpose(1, 2), lengths).unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # zeros after a clip's end, as beyond the edges
            x = functional.relu(norm(convolution(x), lengths))
            # -> (batch, channels, bands / 2, frames / 2), rounded up
            x, lengths = pool(x, lengths, POOL)
        # -> (batch, channels) -> (batch, embedding_dim)
        embedding: Tensor = self.hidden(masked_mean(x, lengths))
        return embedding
