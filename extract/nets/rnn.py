"""Deep recurrent net on MFCC, the baseline [19] of J22 Fig. 8."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mvemo.extract.nets.parts.cards import (
    DEMO_TRAINING,
    NetCard,
    NetOptions,
    dropout,
    profile,
    scaled,
)
from mvemo.extract.nets.parts.sequences import (
    FRAMES_MEANING,
    DescriptorNet,
    FrameNorm,
    last_states,
    split_frames,
)
from mvemo.manifests.declared import setting

HIDDEN = 64


@dataclass(frozen=True)
class RNNOptions(NetOptions):
    """Options of `RNN`."""

    n_frames: int = setting(430, FRAMES_MEANING, ge=1)
    n_mfcc: int = setting(20, "Number of cepstral coefficients per frame.", ge=1)
    layers: int = setting(2, "Number of recurrent layers, at least 1.", ge=1)
    dropout: float = dropout(0.3, "between layers and before the classifier")


@NetCard(
    "rnn",
    RNNOptions,
    # J22: segments of 10 s; the paper gives neither optimizer nor learning rate.
    {"paper": profile(n_frames=430), "demo": profile(DEMO_TRAINING, width=0.5, n_frames=172)},
)
class RNN(DescriptorNet):
    """Gated recurrent units over the MFCC of the frames; the last state is the embedding.

    J22 3.6 says about [19] only that an RNN extracts features; the sizes are the usual ones.
    """

    descriptor = "mfcc"
    columns_option = "n_mfcc"
    options: RNNOptions

    def build(self, width: float) -> int:
        n_mfcc, layers = self.options.n_mfcc, self.options.layers
        hidden = scaled(HIDDEN, width)
        self.input_norm = FrameNorm(n_mfcc, momentum=None)
        dropout = self.options.dropout if layers > 1 else 0.0
        self.gru = nn.GRU(n_mfcc, hidden, num_layers=layers, batch_first=True, dropout=dropout)
        return hidden

    def embed(self, x: Tensor) -> Tensor:
        """Map (batch, frames, n_mfcc), NaN after a clip's end, to (batch, embedding_dim)."""
        x, lengths = split_frames(x)
        x = self.input_norm(x.transpose(1, 2), lengths).transpose(1, 2)
        return last_states(self.gru, x, lengths)
