"""What decides the values of the descriptors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy

from mvemo.extract.arrays import F64
from mvemo.extract.errors import BadSetting

# Names that settings had when the first caches were written: another one would change the
# key of every descriptor in them.
_RECORDED_NAMES = {"silence_db": "mute_db"}
# Windows that are sums of cosines of the phase's multiples, from 0 on (Harris 1978).
_COSINES = {
    "hann": (0.5, 0.5),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
}
# The descriptors that have the spectrogram's frames.
SPECTROGRAM = ("spectrogram", "spectrogram_times")
# Formants are looked for below this, in Hz, or below half the sampling rate.
FORMANT_RANGE = 5500.0


@dataclass(frozen=True)
class DescriptorSettings:
    """Settings of all descriptors of a clip; all but the spectrogram share one framing.

    The defaults of the framing are J22's (2.2.1): 2,048 samples at 44.1 kHz, half
    overlapping, under the Blackman-Harris window, which are frames of 46 ms. For the
    spectrogram J22 2.3.1 names frames of 10 to 30 ms: 1,024 samples are 23 ms. J22 gives none
    of the other numbers.

    Parameters
    ----------
    sr
        Sampling rate in Hz, from 4,000 to 384,000.
    n_fft
        Samples a frame, even, at least 64.
    hop_length
        Samples between the starts of neighbouring frames, from 1 to n_fft.
    spectrogram_n_fft, spectrogram_hop_length
        `n_fft` and `hop_length` of the spectrogram.
    window
        Name of a window that ``scipy.signal.get_window`` knows.
    silence_db
        Frames with an RMS below this, in dB of full scale, are silent and are dropped
        (J22 3.1, Fig. 6: "mute frames").
    n_mels
        Mel bands, kappa_1 of J22 2.2.1, from 0 Hz to half of `sr`.
    n_mfcc
        Cepstral coefficients kept of `mfcc`, `rp` and `mfcc_rp`, from 1 to `n_mels`.
    lpc_order
        Order p of J22 eq. 1, at most 64: of the prediction whose residual has the residual phase.
    alpha
        Weight of RP in `mfcc_rp`, from 0 (MFCC alone) to 1 (RP alone).
    f0_min, f0_max
        Range of the fundamental frequency in Hz. Periods above half a frame cannot be
        seen: the lower end is never below ``sr / (n_fft / 2 - 1)``.
    f0_threshold
        A frame is voiced where the cumulative mean normalised difference at its period is
        below this; YIN's own threshold for the choice of a period is 0.1.
    n_formants, formant_order
        Formants kept, and the order of the prediction that finds them.
    n_bands
        Octaves of the spectral contrast; one more band lies below them.
    contrast_min
        Lower edge of the lowest octave in Hz.

    Raises
    ------
    BadSetting
        A value out of range.

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
        """Shortest and longest period that is looked for, in samples."""
        longest = min(int(np.ceil(self.sr / self.f0_min)), self.n_fft // 2 - 1)
        return max(int(np.floor(self.sr / self.f0_max)), 2), longest

    @property
    def formant_bins(self) -> int:
        """Highest bin of the band in which formants are looked for."""
        return min(int(FORMANT_RANGE * self.n_fft / self.sr), self.n_fft // 2)

    def framed(self, name: str) -> DescriptorSettings:
        """The settings with `n_fft` and `hop_length` as a descriptor has them.

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
        """Some settings as JSON values, under the names that feature caches know."""
        values = asdict(self)
        return {_RECORDED_NAMES.get(name, name): values[name] for name in names}


class _SpectrogramSettings(DescriptorSettings):
    """Checked already; nothing but a spectrum is taken of such frames."""

    def __post_init__(self) -> None:
        pass


@lru_cache(maxsize=16)
def window_of(settings: DescriptorSettings) -> F64:
    """The window, float64 (n_fft,), periodic."""
    return _window(settings.window, settings.n_fft)


def _window(name: str, n_fft: int) -> F64:
    """float64 (n_fft,), as of ``scipy.signal.get_window``, whose import takes half a second."""
    if name not in _COSINES:
        return np.asarray(scipy.signal.get_window(name, n_fft), dtype=np.float64)
    angles = np.linspace(-np.pi, np.pi, n_fft + 1)
    window = np.zeros(n_fft + 1)
    for k, weight in enumerate(_COSINES[name]):
        window += weight * np.cos(k * angles)
    return window[:-1]


@lru_cache(maxsize=16)
def frequencies_of(settings: DescriptorSettings) -> F64:
    """Centre frequencies of the spectrum's bins in Hz, float64 (n_fft // 2 + 1,)."""
    return np.arange(settings.n_fft // 2 + 1, dtype=np.float64) * (settings.sr / settings.n_fft)
