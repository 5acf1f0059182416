"""1D Music CNN on the raw waveform (PL20 Fig. 3; Z22 Fig. 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvemo.extract.nets.parts import base, layers
from mvemo.extract.nets.parts.cards import AudioInput, NetCard, NetOptions, dropout, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting

SR = 16000
N_BLOCKS = 4
# Four convolutions and four poolings halve the length; at least one sample must remain.
MIN_SAMPLES = 2 ** (2 * N_BLOCKS)


@dataclass(frozen=True)
class Music1DOptions(NetOptions):
    seconds: float = setting(
        30.0, "Length of the input in seconds; 30 in PL20.", ge=MIN_SAMPLES / SR
    )
    dropout: float = dropout(0.1, "after each block")


@NetCard(
    "music1d",
    Music1DOptions,
    {
        # The settings that PL20 chose in Table 2; it gives neither epochs nor batch size.
        "paper": profile(seconds=30.0),
        "demo": profile(
            TrainSettings(lr=1e-2, epochs=24, patience=8), width=0.25, seconds=4.0, dropout=0.1
        ),
    },
)
class Music1D(base.WaveformNet):
    """1D Music CNN: four blocks of strided convolution and pooling, each averaged over time.

    The embedding concatenates the means over time of the convolutions (after their ELU) and of the
    poolings: 32 x 8 = 256 numbers. PL20 leaves some choices open: here convolutions pad one sample
    on both sides, so each halves the length. "Fully connected" and softmax of PL20 Fig. 3 are one
    layer, `classifier`. Pooling is along time, because "across the channels" cannot give 32 x 8.
    """

    options: Music1DOptions

    def build(self, width: float) -> int:
        channels = scaled(32, width)
        self.convolutions: nn.ModuleList = nn.ModuleList(
            nn.Conv1d(channels if i else 1, channels, 3, stride=2, padding=1)
            for i in range(N_BLOCKS)
        )
        self.dropout: nn.Dropout = nn.Dropout(self.options.dropout)
        # PL20 has no dropout before the classifier.
        self.classifier_dropout: nn.Module = nn.Identity()
        self.activation: layers.Elu = layers.Elu()
        return 2 * N_BLOCKS * channels

    @classmethod
    def input_of(cls, options: Music1DOptions) -> AudioInput:
        return AudioInput(SR, options.seconds)

    def prepare(self, raw: Tensor) -> Tensor:
        """Pad or cut float32 (batch, samples) in [-1, 1] to (batch, 1, input length)."""
        return layers.fit_waveform(raw, self.input.samples).unsqueeze(1)

    def embed(self, x: Tensor) -> Tensor:
        means = []
        for convolution in self.convolutions:
            # (batch, channels, length) -> (batch, channels, length / 2)
            x = self.activation(convolution(x))
            means.append(x.mean(dim=2))
            # -> (batch, channels, length / 4)
            x = nn.functional.max_pool1d(x, 2)
            means.append(x.mean(dim=2))
            x = self.dropout(x)
        # eight of (batch, channels) -> (batch, 8 * channels)
        return torch.cat(means, dim=1)
