"""1D Music CNN on the raw waveform (PL20 Fig. 3; Z22 Fig. 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.frontends import fit_waveform
from mvemo.extract.nets.parts.inputs import AudioInput, SharedSettings
from mvemo.extract.nets.parts.layers import Elu
from mvemo.extract.nets.parts.registry import check_options, scaled
from mvemo.extract.settings import NetSettings, TrainSettings

SR = 16000
N_BLOCKS = 4
# Four convolutions and four poolings halve the length; at least one sample must remain.
MIN_SAMPLES = 2 ** (2 * N_BLOCKS)


@dataclass(frozen=True)
class Music1DOptions:
    """Options of `Music1D`.

    Parameters
    ----------
    seconds
        Length of the input in seconds; 30 in PL20.
    dropout
        Probability of dropout after each block.
    """

    seconds: float = 30.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds * SR >= MIN_SAMPLES):
            raise BadSetting(
                f"music1d: seconds is {self.seconds}: it must be at least {MIN_SAMPLES / SR}"
            )
        check_options(self, "music1d: ")


class Music1D(Net):
    """1D Music CNN: four blocks of strided convolution and pooling, all averaged over time.

    Each block is Conv1d(32, kernel 3, stride 2) -> ELU -> MaxPool(2) -> Dropout(0.1). The
    embedding concatenates the means over time of the four convolutions (after their ELU) and
    of the four poolings (before their dropout): 32 x 8 = 256 numbers.

    Choices that PL20 leaves open: convolutions pad one sample on either side, so each halves
    the length exactly. "Fully connected" and the softmax of PL20 Fig. 3 are one layer,
    `classifier`, since the penultimate size of 256 leaves no room for another. Pooling is
    along time, because "across the channels" cannot give 32 x 8.
    """

    name: ClassVar[str] = "music1d"
    modality: ClassVar[Literal["audio", "video"]] = "audio"
    Options = Music1DOptions
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        # The chosen row of PL20 Table 2; the paper gives neither epochs nor batch size.
        "paper": NetSettings("music1d", options={"seconds": 30.0}),
        "demo": NetSettings(
            "music1d",
            width=0.25,
            options={"seconds": 4.0, "dropout": 0.1},
            train=TrainSettings(lr=1e-2, epochs=24, patience=8),
        ),
    }

    options: Music1DOptions  # see `Music1DOptions`
    input: AudioInput

    def __init__(
        self, n_outputs: int, *, width: float = 1.0, options: Music1DOptions | None = None
    ) -> None:
        super().__init__(options or Music1DOptions())
        channels = scaled(32, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels if i else 1, channels, 3, stride=2, padding=1)
            for i in range(N_BLOCKS)
        )
        self.dropout = nn.Dropout(self.options.dropout)
        self.activation = Elu()
        self.embedding_dim = 2 * N_BLOCKS * channels
        self.classifier = nn.Linear(self.embedding_dim, n_outputs)

    @classmethod
    def input_of(cls, options: Music1DOptions) -> AudioInput:
        return AudioInput(SR, options.seconds)

    @classmethod
    def options_for(cls, seconds: float, shared: SharedSettings) -> dict[str, Any]:
        return {"seconds": seconds}

    def prepare(self, raw: Tensor) -> Tensor:
        """Pad or cut float32 (batch, samples) in [-1, 1] to (batch, 1, input length)."""
        return fit_waveform(raw, self.input.samples).unsqueeze(1)

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, 1, samples) to (batch, embedding_dim)."""
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

    def preprocessing(self) -> dict[str, Any]:
        return {
            "sr": SR,
            "samples": self.input.samples,
            "range": [-1, 1],
            "shorter": "zero-padded at the end",
            "longer": "cut",
            "options": asdict(self.options),
        }
