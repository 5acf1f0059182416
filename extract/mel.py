"""Mel scales and filterbanks, without torch: descriptors run in workers that have none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadSetting


@dataclass(frozen=True)
class MelSettings:
    """Everything that decides a mel spectrogram in decibel.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    n_fft, hop_length
        Frame and step in samples.
    n_mels, fmin, fmax
        Number of mel bands, and the range in Hz that they cover.
    htk
        HTK's mel scale; else Slaney's.
    norm
        ``slaney``: bands of unit area; ``none``: bands of unit height.
    frames
        Frames are centred on multiples of the hop and zero-padded. ``centre`` keeps all,
        1 + samples // hop; ``same`` keeps ceil(samples / hop), as a convolution with
        `same` padding does.
    reverse_window
        Reverse the window in time. A periodic Hann window is not symmetric, and Theano,
        which convolves in place of correlating, applies it reversed.
    amin
        Power below this counts as this.
    dynamic_range
        In decibel; values further below the clip's maximum are raised to it.
    """

    sr: int
    n_fft: int = 512
    hop_length: int = 256
    n_mels: int = 96
    fmin: float = 0.0
    fmax: float = 0.0
    htk: bool = False
    norm: Literal["slaney", "none"] = "slaney"
    frames: Literal["centre", "same"] = "centre"
    reverse_window: bool = False
    amin: float = 1e-10
    dynamic_range: float = 80.0

    def __post_init__(self) -> None:
        for name in ("sr", "n_fft", "hop_length", "n_mels", "amin", "dynamic_range"):
            if not getattr(self, name) > 0:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.fmax == 0.0:
            object.__setattr__(self, "fmax", self.sr / 2)
        if not 0 <= self.fmin < self.fmax <= self.sr / 2:
            raise BadSetting(
                f"fmin {self.fmin} and fmax {self.fmax} Hz: they must rise within 0 to "
                f"{self.sr / 2} Hz, half the sampling rate"
            )
        if self.norm not in ("slaney", "none"):
            raise BadSetting(f"norm {self.norm!r} is not known: one of slaney, none")
        if self.frames not in ("centre", "same"):
            raise BadSetting(f"frames {self.frames!r} is not known: one of centre, same")

    def n_frames(self, samples: int) -> int:
        """Frames of a waveform of this many samples."""
        if self.frames == "centre":
            return 1 + samples // self.hop_length
        return -(-samples // self.hop_length)

    def record(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {**asdict(self), "window": "hann", "power": 2, "reference": "clip maximum"}


def hz_to_mel(hz: NDArray[np.float64], *, htk: bool = False) -> NDArray[np.float64]:
    """Mel of a frequency in Hz.

    Slaney's scale (Auditory Toolbox) is linear, 200/3 Hz a mel, to 1 kHz and then
    logarithmic, 27 mels for a factor of 6.4; HTK's is 2595 log10(1 + f / 700).
    """
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    high = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / math.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, high)


def mel_to_hz(mel: NDArray[np.float64], *, htk: bool = False) -> NDArray[np.float64]:
    """Frequency in Hz of a mel; the inverse of `hz_to_mel`."""
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    high = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * math.log(6.4) / 27.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, high)


def mel_filterbank(settings: MelSettings) -> NDArray[np.float64]:
    """Triangular mel bands over the bins of a DFT, float64 (n_fft // 2 + 1, n_mels)."""
    bins = np.arange(settings.n_fft // 2 + 1) * (settings.sr / settings.n_fft)
    low, high = hz_to_mel(np.array([settings.fmin, settings.fmax]), htk=settings.htk)
    edges = mel_to_hz(np.linspace(low, high, settings.n_mels + 2), htk=settings.htk)
    # (bins, edges): distance of each bin above each edge, in Hz.
    above = bins[:, None] - edges[None, :]
    width = np.diff(edges)
    rising = above[:, :-2] / width[:-1]
    falling = -above[:, 2:] / width[1:]
    bank: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    if settings.norm == "slaney":
        bank *= 2.0 / (edges[2:] - edges[:-2])
    return bank
