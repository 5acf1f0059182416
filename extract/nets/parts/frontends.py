"""Audio front ends: waveforms of fixed length and mel spectrograms.

The mel front ends of PL20 and C17 are one module with two settings. The released weights of
C17 were trained with C17's front end and are exact only with it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.errors import BadSetting, BadWeights
from mvemo.extract.mel import MelSettings, mel_filter_bank

# Largest allowed difference between a released DFT kernel and the windowed DFT that replaces
# it; the maximum of the window is 1. Those of C17 differ by 3e-8, the rounding of float32.
KERNEL_TOLERANCE = 1e-6


# PL20 3.1: 480,000 samples give 96 x 1,876. PL20 gives neither the padding nor the reference of
# the decibels. Only centred frames give 1,876; the net is C17's, and so are the decibels.
PL20 = MelSettings(sr=16000)
PL20_SECONDS = 30.0
# C17's kapre layers under Theano: 348,000 samples give 96 x 1,360.
C17 = MelSettings(sr=12000, frames="same", reverse_window=True)
C17_SECONDS = 29.0


def fit_waveform(waveform: Tensor, samples: int) -> Tensor:
    """Zero-pad a waveform (..., length) at the end, or shorten it, to (..., samples).

    Examples
    --------
    >>> fit_waveform(torch.ones(3), 5)
    tensor([1., 1., 1., 0., 0.])
    """
    if samples < 1:
        raise BadSetting(f"samples is {samples}: it must be above 0")
    length = waveform.shape[-1]
    if length >= samples:
        return waveform[..., :samples]
    return functional.pad(waveform, (0, samples - length))


class MelSpectrogram(nn.Module):
    """Mel spectrogram in decibels relative to the clip's maximum.

    The steps are: power of a Hann-windowed DFT, mel bands, 10 log10 with the floor `amin`,
    minus the maximum over the clip, clipped at ``-dynamic_range``. A silent clip is 0 dB
    throughout. The window and the filterbank are buffers, so the digest of a net covers them.
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
            spectrum = torch.stft(
                waveform.float(),
                settings.n_fft,
                settings.hop_length,
                window=self.window,
                center=True,
                pad_mode="constant",
                return_complex=True,
            )  # (batch, n_fft // 2 + 1, frames)
            spectrum = spectrum[..., : settings.n_frames(waveform.shape[-1])]
            power = spectrum.real.square() + spectrum.imag.square()
            mel = self.filterbank.T @ power  # (batch, n_mels, frames)
            decibel = 10.0 * mel.clamp_min(settings.amin).log10()
            decibel = decibel - decibel.amax(dim=(1, 2), keepdim=True)
            return decibel.clamp_min(-settings.dynamic_range)

    def load_kernels(self, real: Tensor, imag: Tensor, filterbank: Tensor) -> float:
        """Take the window and the filterbank from released kernels.

        The DFT kernels (n_fft, n_fft // 2 + 1) must be a windowed DFT, because the fast
        transform replaces the convolution with them. `filterbank` is (n_fft // 2 + 1, n_mels).
        The return value is the largest difference from a windowed DFT.
        """
        n_fft, n_bins = self.settings.n_fft, self.settings.n_fft // 2 + 1
        real, imag = real.squeeze().double(), imag.squeeze().double()
        for name, kernel, shape in (
            ("real DFT kernel", real, (n_fft, n_bins)),
            ("imaginary DFT kernel", imag, (n_fft, n_bins)),
            ("filterbank", filterbank, (n_bins, self.settings.n_mels)),
        ):
            if tuple(kernel.shape) != shape:
                raise BadWeights(f"{name} has shape {tuple(kernel.shape)}, {shape} is needed")
        # At frequency zero the real kernel is the window itself.
        window = real[:, 0]
        angle = (
            torch.arange(n_fft, dtype=torch.float64)[:, None]
            * torch.arange(n_bins, dtype=torch.float64)
            * (2.0 * math.pi / n_fft)
        )
        cosines, sines = window[:, None] * angle.cos(), window[:, None] * angle.sin()
        # The sign of the imaginary part is a convention that does not affect the power.
        sign = 1.0 if float((sines * imag).sum()) >= 0 else -1.0
        deviation = max(
            float((real - cosines).abs().max()),
            float((imag - sign * sines).abs().max()),
        )
        if not deviation <= KERNEL_TOLERANCE:
            raise BadWeights(
                f"DFT kernels are {deviation:.2g} from a windowed DFT, at most "
                f"{KERNEL_TOLERANCE:g} is allowed"
            )
        with torch.no_grad():
            self.window.copy_(window.flip(0) if self.settings.reverse_window else window)
            self.filterbank.copy_(filterbank)
        return deviation
