"""A deep recurrent net on MFCC: the baseline that J22 Fig. 8 compares with, its [19]."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.base import Net, SequenceInput
from mvemo.extract.nets.registry import scaled
from mvemo.extract.nets.sequences import FrameNorm, check_width, split_frames

HIDDEN = 64


@dataclass(frozen=True)
class RNNOptions:
    """Options of `RNN`.

    Parameters
    ----------
    n_frames
        Frames of the input; 430 are the 10 s of J22 3.2 at 44.1 kHz and a hop of 1,024.
    n_mfcc
        Cepstral coefficients a frame.
    layers
        Recurrent layers, at least 1.
    dropout
        Probability, between layers and before the classifier, in training.
    """

    n_frames: int = 430
    n_mfcc: int = 20
    layers: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("n_frames", "n_mfcc", "layers"):
            if getattr(self, name) < 1:
                raise BadSetting(f"rnn: {name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"rnn: dropout is {self.dropout}: it must lie in [0, 1)")


class RNN(Net):
    """Layers of gated recurrent units over the frames' MFCC; the last state is the embedding.

    J22 3.6 says of [19] only that features are extracted by an RNN; number and width of
    the layers are the usual ones. Each coefficient is normalised by statistics of the
    training frames.

    Parameters
    ----------
    n_outputs
        Classes, tags or dimensions.
    width
        Multiplies the hidden units.
    options
        See `RNNOptions`.
    """

    name: ClassVar[str] = "rnn"
    modality = "audio"
    Options = RNNOptions

    def __init__(
        self, n_outputs: int, *, width: float = 1.0, options: RNNOptions | None = None
    ) -> None:
        super().__init__()
        self.options = options or RNNOptions()
        self.input: SequenceInput = SequenceInput(("mfcc",), self.options.n_frames)
        layers = self.options.layers
        self.embedding_dim = scaled(HIDDEN, width)
        self.input_norm = FrameNorm(self.options.n_mfcc, momentum=None)
        self.gru = nn.GRU(
            self.options.n_mfcc,
            self.embedding_dim,
            num_layers=layers,
            batch_first=True,
            dropout=self.options.dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(self.options.dropout)
        self.classifier = nn.Linear(self.embedding_dim, n_outputs)

    def prepare(self, raw: Tensor) -> Tensor:
        """float32 (batch, n_frames, n_mfcc), NaN after a clip's end: as it is."""
        check_width(self.name, raw, self.options.n_mfcc, "n_mfcc")
        return raw

    def embed(self, x: Tensor) -> Tensor:
        """float32 (batch, frames, n_mfcc), NaN after a clip's end -> (batch, embedding_dim)."""
        x, lengths = split_frames(x)
        x = self.input_norm(x.transpose(1, 2), lengths).transpose(1, 2)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        # (layers, batch, hidden): the state at each clip's own end
        _, hidden = self.gru(packed)
        last: Tensor = hidden[-1]
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (batch, outputs), of a prepared batch."""
        logits: Tensor = self.classifier(self.dropout(self.embed(x)))
        return logits

    def preprocessing(self) -> dict[str, Any]:
        return {
            "features": list(self.input.features),
            "n_frames": self.input.n_frames,
            "shorter": "their own length",
            "longer": "cut",
            "options": asdict(self.options),
        }
