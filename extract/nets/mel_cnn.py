"""CNNs on a spectrogram: J22's classical and lightweight CNN, and the CNN of L17."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.nets.parts import cards, sequences
from mvemo.extract.nets.parts.cards import DEMO_TRAINING, NetCard, NetOptions, dropout, profile
from mvemo.manifests.declared import setting

CHANNELS = (32, 64, 128, 256)
# Size of the pooling after each convolution, as (mel bands, frames).
POOL = (2, 2)


class MelCNN(sequences.DescriptorNet):
    """Four layers of convolution, batch normalisation, ReLU and max-pooling, and a dense layer.

    J22 compares two such nets (Table 3) without describing them, so usual sizes are chosen here.
    """

    descriptor = "mel"
    columns_option = "n_mels"

    def build(self, width: float) -> int:
        self.input_norm: sequences.FrameNorm = sequences.FrameNorm(self.n_bands, momentum=None)
        channels = [1, *(cards.scaled(count, width) for count in CHANNELS)]
        self.convolutions: nn.ModuleList = nn.ModuleList(
            self.make_convolution(i, a, b) for i, (a, b) in enumerate(pairwise(channels))
        )
        self.norms: nn.ModuleList = nn.ModuleList(
            sequences.FrameNorm(count) for count in channels[1:]
        )
        self.hidden: nn.Module = self.make_hidden(channels[-1])
        return channels[-1]

    @property
    def n_bands(self) -> int:
        return self.options.n_mels

    def make_convolution(self, layer: int, inputs: int, outputs: int) -> nn.Module:
        """Return the convolution of a layer; it keeps the size of its input and has no bias."""
        return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def make_hidden(self, channels: int) -> nn.Module:
        """Return the layer that maps the last mean to the embedding, both (batch, channels)."""
        return nn.Sequential(nn.Linear(channels, channels), nn.ReLU())

    def embed(self, x: Tensor) -> Tensor:
        x, lengths = sequences.split_frames(x)
        # -> (batch, 1, bands, frames)
        x = self.input_norm(x.transpose(1, 2), lengths).unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Values after a clip's end are zero, like the padding beyond the edges.
            x = functional.relu(norm(convolution(x), lengths))
            # -> (batch, channels, bands / 2, frames / 2), rounded up
            x, lengths = sequences.pool(x, lengths, POOL)
        # The mean over bands and real frames -> (batch, channels) -> (batch, embedding_dim)
        return self.hidden(x.sum(dim=(2, 3)) / (lengths[:, None] * x.shape[2]))


@dataclass(frozen=True)
class MelCNNOptions(NetOptions):
    n_frames: int = setting(430, sequences.FRAMES_MEANING, ge=1)
    n_mels: int = setting(64, "Number of mel bands; J22 gives no number.", ge=1)
    dropout: float = dropout(0.3)


@NetCard(
    "cnn",
    MelCNNOptions,
    # J22: segments of 10 s; the paper gives neither optimizer nor learning rate.
    {"paper": profile(n_frames=430), "demo": profile(DEMO_TRAINING, width=0.25, n_frames=172)},
)
class CNN(MelCNN):
    """J22's classical CNN (Tables 2-4): 3 x 3 convolutions over all channels, a dense layer."""


@NetCard(
    "lightcnn",
    MelCNNOptions,
    {"paper": profile(n_frames=430), "demo": profile(DEMO_TRAINING, width=0.5, n_frames=172)},
)
class LightCNN(MelCNN):
    """Classical CNN with depthwise separable convolutions (J22 3.4, Table 3; Howard et al. 2017).

    J22 asks for a net that overfits less on few clips, without describing it. The mean of the last
    map is the embedding, and the net has about a tenth of the parameters.
    """

    def make_convolution(self, layer: int, inputs: int, outputs: int) -> nn.Module:
        if layer == 0:
            # A single input channel cannot be separated.
            return super().make_convolution(layer, inputs, outputs)
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        )

    def make_hidden(self, channels: int) -> nn.Module:
        return nn.Identity()


@dataclass(frozen=True)
class SpecCNNOptions(NetOptions):
    n_frames: int = setting(
        1378,
        "Number of frames of the input; 1,378 frames are 16 s, the longest segments of "
        "CAL500exp, at 44.1 kHz and a hop of 512.",
        ge=1,
    )
    spectrogram_dim: int = setting(513, "Number of bins of the spectrogram.", ge=1)
    bands: int = setting(128, sequences.BANDS_MEANING, ge=1)
    dropout: float = dropout(0.3, "before the last layer")


@NetCard(
    "speccnn",
    SpecCNNOptions,
    {
        # The abstract of L17 gives neither optimizer nor learning rate.
        "paper": profile(n_frames=1378),
        "demo": profile(DEMO_TRAINING, width=0.25, n_frames=344, bands=64),
    },
)
class SpecCNN(MelCNN):
    """Square convolutions over time and frequency of the spectrogram; one sigmoid per tag.

    Only the abstract of L17 (Liu et al. 2017) is available, so the layers are those of the
    classical CNN here. The spectrogram is averaged to bands, one bin wide at low frequencies.
    """

    descriptor = "spectrogram"
    columns_option = "spectrogram_dim"

    def build(self, width: float) -> int:
        self._widths = sequences.band_widths(self.options.spectrogram_dim, self.options.bands)
        return super().build(width)

    @property
    def n_bands(self) -> int:
        return len(self._widths)

    def prepare(self, raw: Tensor) -> Tensor:
        """Average bins to bands: (batch, n_frames, spectrogram_dim) -> (batch, n_frames, bands)."""
        return sequences.band_means(super().prepare(raw), self._widths)

    def preparation(self) -> dict[str, Any]:
        return {**super().preparation(), "bands": sequences.BANDS}
