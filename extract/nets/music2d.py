"""2D Music CNN on the mel spectrogram (C17, and as modified by PL20 3.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvemo.extract.descriptors.spectral import MelSettings, mel_filter_bank
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import base, layers
from mvemo.extract.nets.parts.cards import AudioInput, NetCard, NetOptions, profile, scaled
from mvemo.extract.settings import TrainSettings
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

# PL20 3.1: 480,000 samples give 96 x 1,876. PL20 gives neither the padding nor the reference of
# the decibels. Only centred frames give 1,876. The decibels are C17's, like the net.
PL20 = MelSettings(sr=16000)
PL20_SECONDS = 30.0
# C17's kapre layers under Theano: 348,000 samples give 96 x 1,360.
C17 = MelSettings(sr=12000, frames="same", reverse_window=True)
C17_SECONDS = 29.0
# Largest allowed difference between a released DFT kernel and the windowed DFT that replaces
# it; the maximum of the window is 1. C17's kernels differ by 3e-8, the rounding of float32.
KERNEL_TOLERANCE = 1e-6
# Size of each layer's pooling as (mel bands, frames), for 96 bands.
POOLS = ((2, 4), (3, 4), (2, 5), (2, 4), (4, 4))
FRONT_ENDS = {"c17": (C17, C17_SECONDS), "pl20": (PL20, PL20_SECONDS)}
# Default of Keras 1, which C17 used.
EPSILON = 1e-3


@dataclass(frozen=True)
class Music2DOptions(NetOptions):
    """Options of `Music2D`; the defaults are those of C17, which the released weights need."""

    front_end: str = setting(
        "c17",
        "Mel spectrogram: `c17` (12 kHz, 29 s, 96 x 1,360) or `pl20` (16 kHz, 30 s, 96 x 1,876).",
        names=tuple(FRONT_ENDS),
    )
    activation: str = setting(
        "elu", "Activation function: `elu` (C17) or `relu` (PL20 3.2).", names=("elu", "relu")
    )
    # C17 used the statistics of the batch also at test time, and its file has no running values.
    norm: str = setting(
        "clip",
        "Normalisation. `clip`: by the statistics of the single clip, also in training. "
        "`batch`: batch normalisation, for which the released weights must be fine-tuned.",
        names=("clip", "batch"),
    )
    seconds: float = setting(
        0.0, "Length of the input in seconds; 0 for the default of the front end."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        settings, default_seconds = FRONT_ENDS[self.front_end]
        if self.seconds == 0.0:
            object.__setattr__(self, "seconds", default_seconds)
        if not (math.isfinite(self.seconds) and self.seconds * settings.sr >= settings.n_fft):
            least = settings.n_fft / settings.sr
            raise BadOption(f"seconds is {self.seconds}: it must be at least {least:.4g}, or 0")


@NetCard(
    "music2d",
    Music2DOptions,
    {
        # PL20 3.1, 3.2 and its choice in Table 2. Normalisation is per clip, which
        # the pretrained weights need.
        "paper": profile(
            TrainSettings(optimizer="sgd", momentum=0.5), front_end="pl20", activation="relu"
        ),
        # Default options, with which the released weights were trained.
        "c17": profile(TrainSettings(optimizer="sgd", momentum=0.5)),
        "demo": profile(
            TrainSettings(lr=1e-2, epochs=20, patience=6),
            width=0.25,
            seconds=4.0,
            front_end="pl20",
            activation="relu",
            norm="batch",
        ),
    },
    started_from="C17's weights, of the Million Song Dataset (PL20 3.2)",
    fixed=("front_end.",),
    known_files={
        "caf89f811415691fbb245be7eef394b9cebd787d7e3f78e29695972141cf2a08": (
            "C17's music tagger, trained on the Million Song Dataset (Keras 1.2.2, Theano)"
        ),
    },
    published=(
        "C17's msd_compact_cnn_theano.hdf5: Million Song Dataset, 50 tags; exact with profile "
        "c17 (front_end c17, norm clip, activation elu)",
    ),
)
class Music2D(base.WaveformNet):
    """2D Music CNN: five layers of convolution, normalisation, activation and max-pooling.

    The feature of a layer is the mean of its pooled map; the five are concatenated to 160 numbers
    (C17 section 3; PL20 3.2). Poolings drop an incomplete last window, as in C17, and cover the
    remaining frames of clips shorter than about 15 s, so the same weights serve any length.
    """

    options: Music2DOptions

    def build(self, width: float) -> int:
        self.front_end: MelSpectrogram = MelSpectrogram(FRONT_ENDS[self.options.front_end][0])
        channels = scaled(32, width)
        self.convolutions: nn.ModuleList = nn.ModuleList(
            nn.Conv2d(channels if i else 1, channels, 3, padding=1) for i in range(len(POOLS))
        )
        self.norms: nn.ModuleList = nn.ModuleList(
            nn.InstanceNorm2d(channels, eps=EPSILON, affine=True)
            if self.options.norm == "clip"
            else nn.BatchNorm2d(channels, eps=EPSILON)
            for _ in POOLS
        )
        self.activation: nn.Module = layers.Elu() if self.options.activation == "elu" else nn.ReLU()
        return len(POOLS) * channels

    @classmethod
    def input_of(cls, options: Music2DOptions) -> AudioInput:
        return AudioInput(FRONT_ENDS[options.front_end][0].sr, options.seconds)

    def prepare(self, raw: Tensor) -> Tensor:
        """Map float32 (batch, samples) in [-1, 1] to decibels (batch, 1, 96, frames)."""
        return self.front_end(layers.fit_waveform(raw, self.input.samples)).unsqueeze(1)

    def embed(self, x: Tensor) -> Tensor:
        features = []
        for convolution, norm, (bands, frames) in zip(
            self.convolutions, self.norms, POOLS, strict=True
        ):
            x = self.activation(norm(convolution(x)))
            # -> (batch, channels, bands // pool, frames // pool)
            x = nn.functional.max_pool2d(x, (bands, min(frames, x.shape[3])))
            features.append(x.mean(dim=(2, 3)))
        # five of (batch, channels) -> (batch, 5 * channels)
        return torch.cat(features, dim=1)

    def preparation(self) -> dict[str, Any]:
        return {**super().preparation(), "mel": self.front_end.settings.record()}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        mapped: dict[str, tuple[str, Tensor]] = {}
        for i in range(len(POOLS)):
            for name, published in (
                (f"convolutions.{i}.weight", f"convolution2d_{i + 1}_W"),
                (f"convolutions.{i}.bias", f"convolution2d_{i + 1}_b"),
                (f"norms.{i}.weight", f"batchnormalization_{i + 1}_gamma"),
                (f"norms.{i}.bias", f"batchnormalization_{i + 1}_beta"),
            ):
                source = f"ConvBNEluDr/{published}"
                if source in tensors:
                    value = tensors[source]
                    # Theano flips the kernel of a convolution, but torch does not.
                    mapped[source] = (name, value.flip(2, 3) if value.dim() == 4 else value)
        kernels = [f"melgram/param_{i}" for i in range(3)]
        if self.options.front_end == "c17" and all(name in tensors for name in kernels):
            self.front_end.load_kernels(*(tensors[name] for name in kernels))
            for kernel, name in zip(kernels, ("window", "window", "filterbank"), strict=True):
                mapped[kernel] = (f"front_end.{name}", getattr(self.front_end, name))
        return mapped


class MelSpectrogram(nn.Module):
    """Mel spectrogram in decibels relative to the clip's maximum; a silent clip is 0 dB.

    The window and the filterbank are buffers, so the digest of a net covers them.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings
        window = torch.hann_window(settings.n_fft, periodic=True, dtype=torch.float64)
        if settings.reverse_window:
            window = window.flip(0)
        self.register_buffer("window", window.float())
        self.register_buffer("filterbank", torch.from_numpy(mel_filter_bank(settings)).float())

    def forward(self, waveform: Tensor) -> Tensor:
        """Map float32 (batch, samples) to (batch, n_mels, n_frames), in [-dynamic_range, 0] dB."""
        settings = self.settings
        # Half precision would lose the quiet bands: 80 dB are eight orders of magnitude.
        with torch.autocast(waveform.device.type, enabled=False):
            power = layers.power_spectrum(waveform, self.window, settings.hop_length)
            power = power[..., : settings.n_frames(waveform.shape[-1])]
            mel = self.filterbank.T @ power  # (batch, n_mels, frames)
            decibel = 10.0 * mel.clamp_min(settings.amin).log10()
            decibel = decibel - decibel.amax(dim=(1, 2), keepdim=True)
            return decibel.clamp_min(-settings.dynamic_range)

    def load_kernels(self, real: Tensor, imag: Tensor, filterbank: Tensor) -> None:
        """Set the window and the filterbank (n_fft // 2 + 1, n_mels) from released kernels.

        The DFT kernels (n_fft, n_fft // 2 + 1) must be a windowed DFT, which the fast transform
        computes.
        """
        n_fft, n_bins = self.settings.n_fft, self.settings.n_fft // 2 + 1
        real, imag = real.squeeze().double(), imag.squeeze().double()
        for name, kernel, shape in (
            ("real DFT kernel", real, (n_fft, n_bins)),
            ("imaginary DFT kernel", imag, (n_fft, n_bins)),
            ("filterbank", filterbank, (n_bins, self.settings.n_mels)),
        ):
            if tuple(kernel.shape) != shape:
                raise BadWeights(f"{name}: expected shape {shape}, got {tuple(kernel.shape)}")
        # At frequency zero the real kernel is the window itself.
        window = real[:, 0]
        times, bins = (torch.arange(n, dtype=torch.float64) for n in (n_fft, n_bins))
        angle = torch.outer(times, bins) * (2.0 * math.pi / n_fft)
        cosines, sines = window[:, None] * angle.cos(), window[:, None] * angle.sin()
        # The sign of the imaginary part is a convention that does not affect the power.
        sines = -sines if (sines * imag).sum() < 0 else sines
        deviation = float(torch.stack([real - cosines, imag - sines]).abs().max())
        if not deviation <= KERNEL_TOLERANCE:
            raise BadWeights(
                f"the DFT kernels differ from a windowed DFT by {deviation:.2g}, but at most "
                f"{KERNEL_TOLERANCE:g} is allowed"
            )
        self.window.copy_(window.flip(0) if self.settings.reverse_window else window)
        self.filterbank.copy_(filterbank)
