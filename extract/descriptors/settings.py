"""Settings that decide the values of the descriptors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy

from mvemo.extract.arrays import F64
from mvemo.extract.errors import BadSetting

# Names of settings in the first caches: new names would change the key of each descriptor.
_RECORDED_NAMES = {"silence_db": "mute_db"}
# Weights of the windows that are sums of cosines (Harris 1978).
_COSINES = {
    "hann": (0.5, 0.5),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
}
# Descriptors with the spectrogram's framing.
SPECTROGRAM = ("spectrogram", "spectrogram_times")
# Upper end of the formants' range in Hz, if half the sampling rate is not lower.
FORMANT_RANGE = 5500.0


@dataclass(frozen=True)
class DescriptorSettings:
    """Settings of all descriptors of a clip; only the spectrogram has its own framing.

    The defaults of the framing are J22's (2.2.1): half overlapping frames of 2,048 samples at
    44.1 kHz (46 ms) under the Blackman-Harris window. For the spectrogram J22 2.3.1 names
    frames of 10 to 30 ms: 1,024 samples are 23 ms. J22 does not give the other values.

    Parameters
    ----------
    sr
        Sampling rate in Hz, from 4,000 to 384,000.
    n_fft
        Frame length in samples, even, at least 64.
    hop_length
        Step between frames in samples, from 1 to `n_fft`.
    spectrogram_n_fft
        Frame length of the spectrogram in samples, even, at least 64.
    spectrogram_hop_length
        Step between frames of the spectrogram in samples.
    window
        Name of a window that ``scipy.signal.get_window`` knows.
    silence_db
        RMS in dB of full scale below which a frame is silent and dropped (J22 3.1, Fig. 6:
        "mute frames").
    n_mels
        Number of mel bands, kappa_1 of J22 2.2.1, from 0 Hz to half of `sr`.
    n_mfcc
        Number of cepstral coefficients of `mfcc`, `rp` and `mfcc_rp`, from 1 to `n_mels`.
    lpc_order
        Order p of the linear prediction in J22 eq. 1, whose residual gives the residual phase,
        at most 64.
    alpha
        Weight of RP in `mfcc_rp`, from 0 (only MFCC) to 1 (only RP).
    f0_min
        Lower end of the fundamental frequency's range in Hz. Periods longer than half a frame
        cannot be found: the lower end is at least ``sr / (n_fft / 2 - 1)``.
    f0_max
        Upper end of the fundamental frequency's range in Hz, at most a quarter of `sr`.
    f0_threshold
        Cumulative mean normalised difference at the period below which a frame is voiced. The
        period itself is chosen with YIN's own threshold of 0.1.
    n_formants
        Number of formants, at most half of `formant_order`.
    formant_order
        Order of the prediction that finds the formants, from 2 to 64.
    n_bands
        Number of octaves of the spectral contrast; one more band lies below them.
    contrast_min
        Lower edge of the lowest octave in Hz.

    Raises
    ------
    BadSetting
        If a value is out of range.

    Examples
    --------
    >>> settings = DescriptorSettings(sr=16000, n_fft=512, hop_length=256, n_mels=40)
    >>> settings.n_mfcc
    20
    >>> DescriptorSettings(n_fft=1001)
    Traceback (most recent call last):
        ...
    mvemo.extract.errors.BadSetting: n_fft is 1001: it must be even
    """

    sr: int = 44_100
    n_fft: int = 2048
    hop_length: int = 1024
    spectrogram_n_fft: int = 1024
    spectrogram_hop_length: int = 512
    window: str = "blackmanharris"
    silence_db: float = -60.0
    n_mels: int = 64
    n_mfcc: int = 20
    lpc_order: int = 16
    alpha: float = 0.5
    f0_min: float = 55.0
    f0_max: float = 2000.0
    f0_threshold: float = 0.2
    n_formants: int = 4
    formant_order: int = 12
    n_bands: int = 6
    contrast_min: float = 200.0

    def __post_init__(self) -> None:
        self._within("sr", 4000, 384_000)
        self._within("n_fft", 64, 1 << 16)
        if self.n_fft % 2:
            raise BadSetting(f"n_fft is {self.n_fft}: it must be even")
        self._within("hop_length", 1, self.n_fft)
        self._within("spectrogram_n_fft", 64, 1 << 16)
        if self.spectrogram_n_fft % 2:
            raise BadSetting(f"spectrogram_n_fft is {self.spectrogram_n_fft}: it must be even")
        self._within("spectrogram_hop_length", 1, self.spectrogram_n_fft)
        self._within("silence_db", -200.0, 0.0)
        self._within("n_mels", 1, 4096)
        self._within("n_mfcc", 1, self.n_mels)
        self._within("lpc_order", 1, min(64, self.n_fft // 4))
        self._within("alpha", 0.0, 1.0)
        self._within("f0_min", 1.0, self.sr / 2)
        if self.f0_max <= self.f0_min:
            raise BadSetting(f"f0_max is {self.f0_max} Hz: it must be above f0_min, {self.f0_min}")
        self._within("f0_max", 1.0, self.sr / 4)
        if self.lags[1] < self.lags[0] + 2:
            raise BadSetting(
                f"f0_max is {self.f0_max} Hz: at {self.sr} Hz, frames of {self.n_fft} samples "
                f"show periods up to {self.lags[1]} samples, {self.sr / self.lags[1]:.0f} Hz"
            )
        self._within("f0_threshold", 0.0, 1.0)
        self._within("formant_order", 2, 64)
        self._within("n_formants", 1, self.formant_order // 2)
        if self.formant_bins <= self.formant_order:
            raise BadSetting(
                f"formant_order is {self.formant_order}: frames of {self.n_fft} samples at "
                f"{self.sr} Hz have {self.formant_bins} frequencies in the range, fewer are needed"
            )
        self._within("n_bands", 1, 16)
        self._within("contrast_min", 1.0, self.sr / 2)
        try:
            _window(self.window, self.n_fft)
        except (ValueError, TypeError) as error:
            raise BadSetting(f"window {self.window!r} is not known to scipy.signal") from error

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise BadSetting(f"{name} is {value}: it must lie within {low:g} to {high:g}")

    @property
    def lags(self) -> tuple[int, int]:
        """Shortest and longest period of the search, in samples."""
        longest = min(int(np.ceil(self.sr / self.f0_min)), self.n_fft // 2 - 1)
        return max(int(np.floor(self.sr / self.f0_max)), 2), longest

    @property
    def formant_bins(self) -> int:
        """Highest bin of the formants' range."""
        return min(int(FORMANT_RANGE * self.n_fft / self.sr), self.n_fft // 2)

    def framed(self, name: str) -> DescriptorSettings:
        """Return the settings with the `n_fft` and `hop_length` of a descriptor.

        Examples
        --------
        >>> settings = DescriptorSettings()
        >>> settings.framed("spectrogram").n_fft, settings.framed("mfcc").n_fft
        (1024, 2048)
        """
        if name not in SPECTROGRAM:
            return self
        values = asdict(self)
        values["n_fft"], values["hop_length"] = self.spectrogram_n_fft, self.spectrogram_hop_length
        return _SpectrogramSettings(**values)

    def record(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return some settings as JSON values, under their names in feature caches."""
        values = asdict(self)
        return {_RECORDED_NAMES.get(name, name): values[name] for name in names}


class _SpectrogramSettings(DescriptorSettings):
    """Settings with the spectrogram's framing; their values were checked before."""

    def __post_init__(self) -> None:
        pass


@lru_cache(maxsize=16)
def window_of(settings: DescriptorSettings) -> F64:
    """Return the periodic window, float64 (n_fft,)."""
    return _window(settings.window, settings.n_fft)


def _window(name: str, n_fft: int) -> F64:
    """Return a window of ``scipy.signal.get_window``, without its import if possible (0.5 s)."""
    if name not in _COSINES:
        return np.asarray(scipy.signal.get_window(name, n_fft), dtype=np.float64)
    angles = np.linspace(-np.pi, np.pi, n_fft + 1)
    window = np.zeros(n_fft + 1)
    for k, weight in enumerate(_COSINES[name]):
        window += weight * np.cos(k * angles)
    return window[:-1]


@lru_cache(maxsize=16)
def frequencies_of(settings: DescriptorSettings) -> F64:
    """Return the centre frequencies of the spectrum's bins in Hz, float64 (n_fft // 2 + 1,)."""
    return np.arange(settings.n_fft // 2 + 1, dtype=np.float64) * (settings.sr / settings.n_fft)
