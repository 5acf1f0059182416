"""Recurrent nets on descriptors: the CRNN of J22 (2.3, Fig. 3-5) and its baseline on MFCC."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.descriptors import dim_of
from mvemo.extract.nets.parts import cards, sequences
from mvemo.extract.nets.parts.cards import DEMO_TRAINING, NetCard, NetOptions, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting

# Low-level descriptors of branch 2 (J22 2.3.2).
DESCRIPTORS = ("mfcc_rp", "f0", "formants", "contrast", "chroma")
CHANNELS = 32
HIDDEN = 64
# Length of the kernel along time, in frames, and of the kernel along frequency, in bands.
KERNEL = 9
# Length of both poolings over time, in frames.
POOL = 4


@dataclass(frozen=True)
class CRNNOptions(NetOptions):
    n_frames: int = setting(
        430,
        "Number of frames of the descriptors; 430 frames are the 10 s of J22 3.2 at 44.1 kHz and "
        "a hop of 1,024.",
        ge=1,
    )
    spectrogram_frames: int = setting(
        860,
        "Number of frames of the spectrogram, which are shorter (J22 2.3.1); 860 frames are also "
        "10 s.",
        ge=1,
    )
    spectrogram_dim: int = setting(
        513, "Number of bins of the spectrogram, the first columns of the input.", ge=1
    )
    lld_dim: int = setting(
        49, "Number of columns of the low-level descriptors, which follow the spectrogram.", ge=1
    )
    bands: int = setting(128, sequences.BANDS_MEANING, ge=1)
    dropout: float = cards.dropout(0.3)


@NetCard(
    "crnn",
    CRNNOptions,
    {
        # J22: segments of 10 s; the paper gives no optimizer, learning rate or tau.
        "paper": profile(
            TrainSettings(loss="improved-centre", tau=1.0), n_frames=430, spectrogram_frames=860
        ),
        "demo": profile(
            TrainSettings(lr=3e-3, epochs=20, patience=6, loss="improved-centre", tau=1.0),
            width=0.25,
            n_frames=172,
            spectrogram_frames=344,
            bands=64,
        ),
    },
    # Since version 2 the frames of the spectrogram differ from those of the descriptors.
    version=2,
)
class CRNN(sequences.DescriptorNet):
    """J22's improved CNN: two branches, whose concatenated last states are the embedding.

    Branch 1 reads the spectrogram in decibels through two convolutions, each followed by a maximum
    over time, and a Bi-LSTM (J22 2.3.1, Fig. 4). Branch 2 passes low-level descriptors through a
    two-layer Bi-LSTM (2.3.2). J22 gives only the number of frames; other sizes are chosen here.
    Batch normalisation precedes both branches, because each descriptor has its own unit.
    """

    options: CRNNOptions

    def build(self, width: float) -> int:
        self._widths = sequences.band_widths(self.options.spectrogram_dim, self.options.bands)
        bands = len(self._widths)
        half, hidden = scaled(CHANNELS // 2, width), scaled(HIDDEN, width)
        self.spectrogram_norm: sequences.FrameNorm = sequences.FrameNorm(bands, momentum=None)
        along_time, along_frequency = (1, KERNEL), (KERNEL, 1)
        # C1 and C2 have no bias because a normalisation follows.
        self.conv1_time: nn.Conv2d = nn.Conv2d(1, half, along_time, padding="same", bias=False)
        self.conv1_frequency: nn.Conv2d = nn.Conv2d(
            1, half, along_frequency, padding="same", bias=False
        )
        self.norm1: sequences.FrameNorm = sequences.FrameNorm(2 * half)
        self.conv2: nn.Conv2d = nn.Conv2d(2 * half, 2 * half, 3, padding=1, bias=False)
        self.norm2: sequences.FrameNorm = sequences.FrameNorm(2 * half)
        self.spectrogram_lstm: nn.LSTM = nn.LSTM(
            2 * half * bands, hidden, batch_first=True, bidirectional=True
        )
        self.lld_norm: sequences.FrameNorm = sequences.FrameNorm(
            self.options.lld_dim, momentum=None
        )
        self.lld_lstm: nn.LSTM = nn.LSTM(
            self.options.lld_dim, hidden, num_layers=2, batch_first=True, bidirectional=True
        )
        return 4 * hidden

    @classmethod
    def input_of(cls, options: CRNNOptions) -> cards.SequenceInput:
        frames = max(options.n_frames, options.spectrogram_frames)
        return cards.SequenceInput(("spectrogram", *DESCRIPTORS), frames)

    @classmethod
    def shared_options(cls, shared: cards.SharedSettings) -> dict[str, Any]:
        return {
            "spectrogram_dim": dim_of("spectrogram", shared.descriptors),
            "lld_dim": sum(dim_of(name, shared.descriptors) for name in DESCRIPTORS),
        }

    @classmethod
    def options_for(cls, seconds: float, shared: cards.SharedSettings) -> dict[str, Any]:
        return {
            "n_frames": sequences.frames_of(seconds, shared.descriptors),
            "spectrogram_frames": sequences.frames_of(seconds, shared.descriptors, "spectrogram"),
        }

    def prepare(self, raw: Tensor) -> Tensor:
        """Map (batch, frames, spectrogram_dim + lld_dim) to (batch, frames, bands + lld_dim)."""
        options = self.options
        bins, lld = options.spectrogram_dim, options.lld_dim
        self.check_columns(raw, bins + lld, "spectrogram_dim, and lld_dim for the rest")
        x = torch.cat(
            [sequences.band_means(raw[:, :, :bins], self._widths), raw[:, :, bins:]], dim=2
        )
        bands = len(self._widths)
        x[:, options.spectrogram_frames :, :bands] = torch.nan
        x[:, options.n_frames :, bands:] = torch.nan
        return x

    def embed(self, x: Tensor) -> Tensor:
        bands = len(self._widths)
        spectrogram, lengths = sequences.split_frames(x[:, :, :bands])
        # -> (batch, 1, bands, frames)
        y = self.spectrogram_norm(spectrogram.transpose(1, 2), lengths).unsqueeze(1)
        # C1 -> (batch, channels, bands, frames)
        y = torch.cat([self.conv1_time(y), self.conv1_frequency(y)], dim=1)
        # P1 -> (batch, channels, bands, frames / 4)
        y, lengths = sequences.pool(functional.relu(self.norm1(y, lengths)), lengths, (1, POOL))
        # C2, P2 -> (batch, channels, bands, frames / 16)
        y = functional.relu(self.norm2(self.conv2(y), lengths))
        y, lengths = sequences.pool(y, lengths, (1, POOL))
        # -> (batch, frames / 16, channels * bands) -> (batch, 2 * hidden)
        y = y.flatten(1, 2).transpose(1, 2)
        branch1 = sequences.last_states(self.spectrogram_lstm, y, lengths)
        lld, lengths = sequences.split_frames(x[:, :, bands:])
        lld = self.lld_norm(lld.transpose(1, 2), lengths).transpose(1, 2)
        # two of (batch, 2 * hidden) -> (batch, embedding_dim)
        return torch.cat([branch1, sequences.last_states(self.lld_lstm, lld, lengths)], dim=1)

    def preparation(self) -> dict[str, Any]:
        frames = {
            "n_frames": self.options.n_frames,
            "spectrogram_frames": self.options.spectrogram_frames,
        }
        return {**super().preparation(), **frames, "bands": sequences.BANDS}


@dataclass(frozen=True)
class RNNOptions(NetOptions):
    n_frames: int = setting(430, sequences.FRAMES_MEANING, ge=1)
    n_mfcc: int = setting(20, "Number of cepstral coefficients per frame.", ge=1)
    layers: int = setting(2, "Number of recurrent layers, at least 1.", ge=1)
    dropout: float = cards.dropout(0.3, "between layers and before the classifier")


@NetCard(
    "rnn",
    RNNOptions,
    # J22: segments of 10 s; the paper gives neither optimizer nor learning rate.
    {"paper": profile(n_frames=430), "demo": profile(DEMO_TRAINING, width=0.5, n_frames=172)},
)
class RNN(sequences.DescriptorNet):
    """Gated recurrent units over the MFCC of the frames; the last state is the embedding.

    J22 3.6 says about [19] only that an RNN extracts features, so usual sizes are chosen.
    """

    descriptor = "mfcc"
    columns_option = "n_mfcc"
    options: RNNOptions

    def build(self, width: float) -> int:
        n_mfcc, layers = self.options.n_mfcc, self.options.layers
        hidden = scaled(HIDDEN, width)
        self.input_norm: sequences.FrameNorm = sequences.FrameNorm(n_mfcc, momentum=None)
        dropout = self.options.dropout if layers > 1 else 0.0
        self.gru: nn.GRU = nn.GRU(
            n_mfcc, hidden, num_layers=layers, batch_first=True, dropout=dropout
        )
        return hidden

    def embed(self, x: Tensor) -> Tensor:
        x, lengths = sequences.split_frames(x)
        x = self.input_norm(x.transpose(1, 2), lengths).transpose(1, 2)
        return sequences.last_states(self.gru, x, lengths)
