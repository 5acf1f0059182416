"""2D Music CNN on the mel spectrogram (C17, and as modified by PL20 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.frontends import (
    C17,
    C17_SECONDS,
    PL20,
    PL20_SECONDS,
    MelSpectrogram,
    fit_waveform,
)
from mvemo.extract.nets.parts.inputs import AudioInput, SharedSettings
from mvemo.extract.nets.parts.layers import Elu
from mvemo.extract.nets.parts.registry import scaled
from mvemo.extract.nets.parts.weights import Match, load_mapped, load_own
from mvemo.extract.settings import NetSettings, TrainSettings

# Size of each layer's pooling as (mel bands, frames), for 96 bands.
POOLS = ((2, 4), (3, 4), (2, 5), (2, 4), (4, 4))
FRONT_ENDS = {"c17": (C17, C17_SECONDS), "pl20": (PL20, PL20_SECONDS)}
ACTIVATIONS = ("elu", "relu")
NORMS = ("clip", "batch")
# Default of Keras 1, which C17 used.
EPSILON = 1e-3


@dataclass(frozen=True)
class Music2DOptions:
    """Options of `Music2D`; the released weights need the defaults, which are those of C17.

    Parameters
    ----------
    front_end
        Mel spectrogram: ``c17`` (12 kHz, 29 s, 96 x 1,360) or ``pl20`` (16 kHz, 30 s,
        96 x 1,876).
    activation
        Activation function: ``elu`` (C17) or ``relu`` (PL20 3.2).
    norm
        Statistics of the normalisation. ``clip``: those of the single clip, in training and
        afterwards, as in C17's script for single files. ``batch``: ordinary batch
        normalisation, which uses the batch during training and running statistics
        afterwards. C17 used the statistics of the current batch also at test time, and its
        file has no running ones; so with ``batch`` the released weights are useful only after
        fine-tuning.
    seconds
        Length of the input in seconds; 0 for the default of the front end.
    """

    front_end: str = "c17"
    activation: str = "elu"
    norm: str = "clip"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("front_end", tuple(FRONT_ENDS)),
            ("activation", ACTIVATIONS),
            ("norm", NORMS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise BadSetting(f"music2d: {name} {value!r}: one of {', '.join(allowed)}")
        settings, default_seconds = FRONT_ENDS[self.front_end]
        if self.seconds == 0.0:
            object.__setattr__(self, "seconds", default_seconds)
        if not (math.isfinite(self.seconds) and self.seconds * settings.sr >= settings.n_fft):
            least = settings.n_fft / settings.sr
            raise BadSetting(
                f"music2d: seconds is {self.seconds}: it must be at least {least:.4g}, or 0"
            )


class Music2D(Net):
    """2D Music CNN: five layers of convolution, normalisation, activation and max-pooling.

    Convolutions are 3 x 3 with 32 channels, padded to keep the size. The feature of a layer
    is the mean of its pooled map over frequency and time. The five features are concatenated
    to the embedding of 160 numbers (C17 section 3; PL20 3.2).

    Poolings drop an incomplete last window, as in C17. Clips shorter than about 15 s have too
    few frames for the last layers; there a pooling covers the remaining frames, so the same
    weights serve any length.
    """

    name: ClassVar[str] = "music2d"
    modality: ClassVar[Literal["audio", "video"]] = "audio"
    Options = Music2DOptions
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        # PL20 3.1, 3.2 and the chosen row of its Table 2. Normalisation is per clip, which
        # the pretrained weights need.
        "paper": NetSettings(
            "music2d",
            options={"front_end": "pl20", "activation": "relu"},
            train=TrainSettings(optimizer="sgd", momentum=0.5),
        ),
        # Default options, with which the released weights were trained.
        "c17": NetSettings("music2d", train=TrainSettings(optimizer="sgd", momentum=0.5)),
        "demo": NetSettings(
            "music2d",
            width=0.25,
            options={"seconds": 4.0, "front_end": "pl20", "activation": "relu", "norm": "batch"},
            train=TrainSettings(lr=1e-2, epochs=20, patience=6),
        ),
    }
    started_from: ClassVar[str] = "C17's weights, of the Million Song Dataset (PL20 3.2)"
    fixed: ClassVar[tuple[str, ...]] = ("front_end.",)
    known_files: ClassVar[Mapping[str, str]] = {
        "caf89f811415691fbb245be7eef394b9cebd787d7e3f78e29695972141cf2a08": (
            "C17's music tagger, trained on the Million Song Dataset (Keras 1.2.2, Theano)"
        ),
    }
    published: ClassVar[tuple[str, ...]] = (
        "C17's msd_compact_cnn_theano.hdf5: Million Song Dataset, 50 tags; exact with profile "
        "c17 (front_end c17, norm clip, activation elu)",
    )

    options: Music2DOptions  # see `Music2DOptions`
    input: AudioInput

    def __init__(
        self, n_outputs: int, *, width: float = 1.0, options: Music2DOptions | None = None
    ) -> None:
        super().__init__(options or Music2DOptions())
        self.front_end = MelSpectrogram(FRONT_ENDS[self.options.front_end][0])
        channels = scaled(32, width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels if i else 1, channels, 3, padding=1) for i in range(len(POOLS))
        )
        self.norms = nn.ModuleList(
            nn.InstanceNorm2d(channels, eps=EPSILON, affine=True)
            if self.options.norm == "clip"
            else nn.BatchNorm2d(channels, eps=EPSILON)
            for _ in POOLS
        )
        self.activation = Elu() if self.options.activation == "elu" else nn.ReLU()
        self.embedding_dim = len(POOLS) * channels
        self.classifier = nn.Linear(self.embedding_dim, n_outputs)

    @classmethod
    def input_of(cls, options: Music2DOptions) -> AudioInput:
        return AudioInput(FRONT_ENDS[options.front_end][0].sr, options.seconds)

    @classmethod
    def options_for(cls, seconds: float, shared: SharedSettings) -> dict[str, Any]:
        return {"seconds": seconds}

    def prepare(self, raw: Tensor) -> Tensor:
        """Map float32 (batch, samples) in [-1, 1] to decibels (batch, 1, 96, frames)."""
        mel: Tensor = self.front_end(fit_waveform(raw, self.input.samples))
        return mel.unsqueeze(1)

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, 1, 96, frames) to (batch, embedding_dim)."""
        # five of (batch, channels) -> (batch, 5 * channels)
        return torch.cat(self.layer_features(x), dim=1)

    def layer_features(self, x: Tensor) -> list[Tensor]:
        """Return the features of the five layers: (batch, 1, 96, frames) -> (batch, channels)."""
        features = []
        for i in range(len(POOLS)):
            x = self._layer(i, x)
            features.append(x.mean(dim=(2, 3)))
        return features

    def _layer(self, i: int, x: Tensor) -> Tensor:
        """Apply layer `i` to (batch, channels, bands, frames), and return its pooled map."""
        x = self.activation(self.norms[i](self.convolutions[i](x)))
        bands, frames = POOLS[i]
        # -> (batch, channels, bands // pool, frames // pool)
        return nn.functional.max_pool2d(x, (bands, min(frames, x.shape[3])))

    def preprocessing(self) -> dict[str, Any]:
        return {
            "sr": self.input.sr,
            "samples": self.input.samples,
            "range": [-1, 1],
            "shorter": "zero-padded at the end",
            "longer": "cut",
            "mel": self.front_end.settings.record(),
            "options": asdict(self.options),
        }

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> Match:
        """Load C17's released file, or a file that mvemo saved.

        Theano convolves and torch correlates, so kernels are rotated by 180 degrees. The net
        does not use the running means and standard deviations of the file (0 and 1, never
        used by C17), nor its 50-tag layer on the last 32 features. The DFT kernels and the
        filterbank are used if the front end is ``c17``.
        """
        theano = "ConvBNEluDr/convolution2d_1_W"
        if theano not in tensors:
            return load_own(self, tensors)
        mapped: dict[str, Tensor] = {}
        used: set[str] = set()
        for i in range(len(POOLS)):
            for name, published in (
                (f"convolutions.{i}.weight", f"convolution2d_{i + 1}_W"),
                (f"convolutions.{i}.bias", f"convolution2d_{i + 1}_b"),
                (f"norms.{i}.weight", f"batchnormalization_{i + 1}_gamma"),
                (f"norms.{i}.bias", f"batchnormalization_{i + 1}_beta"),
            ):
                source = f"ConvBNEluDr/{published}"
                if source not in tensors:
                    continue
                used.add(source)
                value = tensors[source]
                mapped[name] = value.flip(2, 3) if value.dim() == 4 else value
        kernels = tuple(f"melgram/param_{i}" for i in range(3))
        if self.options.front_end == "c17" and all(name in tensors for name in kernels):
            real, imag, bank = (tensors[name] for name in kernels)
            self.front_end.load_kernels(real, imag, bank)
            used.update(kernels)
            mapped["front_end.window"] = self.front_end.window
            mapped["front_end.filterbank"] = self.front_end.filterbank
        return load_mapped(self, mapped, unexpected=[n for n in tensors if n not in used])
