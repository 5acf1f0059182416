"""Descriptors of the spectrum: mel bands, cepstrum, octave-based contrast, chroma."""

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # imports scipy.fft at its first use: loading nets does not need it

from mvemo.extract.descriptors.framing import DescriptorSettings, window_of
from mvemo.manifests.array_types import F32, F64
from mvemo.manifests.declared import Allowed, check_settings, setting
from mvemo.manifests.errors import BadOption

# Smallest power for the logarithm: -100 dB.
POWER_FLOOR = 1e-10
# Share of a band's bins averaged for its peak, and for its valley (Jiang et al. 2002).
CONTRAST_SHARE = 0.02
# Number of pitch classes; centre (in octaves above 27.5 Hz) and width of the octave weights.
N_CHROMA, OCTAVE, OCTAVE_WIDTH = 12, 5.0, 2.0


@dataclass(frozen=True)
class MelSettings:
    """Settings of a mel spectrogram in decibels."""

    sr: int = field(metadata={"allowed": Allowed(gt=0)})  # Hz
    n_fft: int = setting(512, gt=0)  # frame length in samples
    hop_length: int = setting(256, gt=0)  # step between frames in samples
    n_mels: int = setting(96, gt=0)
    fmin: float = 0.0  # lower end of the bands in Hz
    fmax: float = 0.0  # upper end in Hz; 0 for half of `sr`
    htk: bool = False  # HTK's mel scale instead of Slaney's, which is linear up to 1 kHz
    norm: str = setting("slaney", names=("slaney", "none"))  # bands of unit area or unit height
    # Frames are centred on multiples of the hop and zero-padded. ``centre`` keeps 1 + samples //
    # hop of them; ``same`` keeps ceil(samples / hop), like a convolution with `same` padding.
    frames: str = setting("centre", names=("centre", "same"))
    # True to reverse the window in time, like Theano, which convolves instead of correlating; a
    # periodic Hann window is not symmetric.
    reverse_window: bool = False
    amin: float = setting(1e-10, gt=0)  # floor of the power
    # Lower values are raised to this many decibels below the clip's maximum.
    dynamic_range: float = setting(80.0, gt=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.fmax == 0.0:
            object.__setattr__(self, "fmax", self.sr / 2)
        if not 0 <= self.fmin < self.fmax <= self.sr / 2:
            raise BadOption(
                f"fmin is {self.fmin} Hz and fmax {self.fmax} Hz: expected 0 <= fmin < fmax <= "
                f"{self.sr / 2} Hz, half the sampling rate"
            )

    def n_frames(self, samples: int) -> int:
        """Return the number of frames of a waveform of this many samples."""
        if self.frames == "centre":
            return 1 + samples // self.hop_length
        return -(-samples // self.hop_length)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "window": "hann", "power": 2, "reference": "clip maximum"}


def mel_filter_bank(settings: MelSettings) -> F64:
    """Return triangular mel bands over the bins of a DFT, identical to librosa's values.

    Parameters
    ----------
    settings
        Settings of the spectrogram; only `sr`, `n_fft`, `n_mels`, `fmin`, `fmax`, `htk` and
        `norm` are used.

    Returns
    -------
    Filter bank, float64 (n_fft // 2 + 1, n_mels), without negative values. A band that contains
    no bin is all 0.

    See Also
    --------
    librosa.filters.mel : The same filter bank, but its import takes a second.

    Examples
    --------
    >>> mel_filter_bank(MelSettings(sr=16000, n_fft=512, n_mels=96)).shape
    (257, 96)
    """
    hz = np.fft.rfftfreq(settings.n_fft, 1.0 / settings.sr)
    low, high = (_mel_of(np.array(f), htk=settings.htk) for f in (settings.fmin, settings.fmax))
    edges = _hz_of(np.linspace(low, high, settings.n_mels + 2), htk=settings.htk)
    ramps = np.subtract.outer(edges, hz)
    widths = np.diff(edges)
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    bank: F64 = np.maximum(0.0, np.minimum(rising, falling))
    if settings.norm == "slaney":
        bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    # Adding 0.0 turns -0.0 into 0.0, because a net's digest depends on the bytes.
    return np.ascontiguousarray(bank.T) + 0.0


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz (15 mel), then 27 steps to 6.4 kHz.
_LINEAR_HZ, _BREAK_HZ = 200.0 / 3, 1000.0
_BREAK_MEL, _LOG_STEP = _BREAK_HZ / _LINEAR_HZ, np.log(6.4) / 27.0


def _mel_of(hz: F64, *, htk: bool) -> F64:
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0), dtype=np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz >= _BREAK_HZ, above, hz / _LINEAR_HZ)


def _hz_of(mel: F64, *, htk: bool) -> F64:
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0), dtype=np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel >= _BREAK_MEL, above, _LINEAR_HZ * mel)


@dataclass(frozen=True, eq=False)
class FilterBanks:
    mel: F32  # (n_fft // 2 + 1, n_mels): triangular bands of unit area on Slaney's scale
    chroma: F32  # (n_fft // 2 + 1, 12): weights of the pitch classes from C, with A4 = 440 Hz


@lru_cache(maxsize=16)
def filter_banks(settings: DescriptorSettings) -> FilterBanks:
    s = settings
    mel = mel_filter_bank(MelSettings(s.sr, s.n_fft, s.hop_length, s.n_mels))
    return FilterBanks(mel.astype(np.float32), _chroma_bank(s).astype(np.float32))


def _chroma_bank(settings: DescriptorSettings) -> F64:
    """Return librosa's weights of the bins in each pitch class, (n_fft // 2 + 1, 12)."""
    # The weights are a Gaussian over pitch around each class, of unit norm for each bin, times a
    # wide Gaussian over octaves (Ellis 2007, "Chroma feature analysis and synthesis").
    n_fft, n = settings.n_fft, N_CHROMA
    hz = np.linspace(0, settings.sr, n_fft, endpoint=False)[1:]
    # Pitch is in semitones above A (27.5 Hz). The bin at 0 Hz lies 1.5 octaves below the next bin.
    pitch = n * np.log2(hz / (440.0 / 16))
    pitch = np.concatenate(([pitch[0] - 1.5 * n], pitch))
    width = np.append(np.maximum(np.diff(pitch), 1.0), 1.0)
    distance = pitch - np.arange(n, dtype=np.float64)[:, None]
    distance = np.remainder(distance + n / 2 + 10 * n, n) - n / 2
    bank: F64 = np.exp(-0.5 * (2 * distance / width) ** 2)
    length = np.sum(bank**2, axis=0) ** 0.5
    bank /= np.where(length < np.finfo(bank.dtype).tiny, 1.0, length)
    bank *= np.exp(-0.5 * (((pitch / n - OCTAVE) / OCTAVE_WIDTH) ** 2))
    # Order the pitch classes from C instead of A.
    return np.ascontiguousarray(np.roll(bank, -3, axis=0)[:, : 1 + n_fft // 2].T)


def decibel(power: F32) -> F32:
    """Return 10 log10 of a power, which is raised to at least `POWER_FLOOR`."""
    return np.log10(np.maximum(power, POWER_FLOOR)) * np.float32(10.0)


def power_spectrum(values: F32, settings: DescriptorSettings) -> F32:
    """Return the power of the windowed frames' DFT, float32 (frames, n_fft // 2 + 1)."""
    # Use float64, because low-passed music has bands 140 dB below its loudest band, where rounding
    # errors of a float32 transform would be visible.
    spectrum = scipy.fft.rfft(values * window_of(settings.window, settings.n_fft), axis=1)
    return (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)


def cepstrum(level: F32, n_coefficients: int) -> F32:
    """Return coefficients 0 to `n_coefficients` - 1 of each frame's orthonormal DCT-II."""
    coefficients: F32 = scipy.fft.dct(level, axis=1, norm="ortho")
    return coefficients[:, :n_coefficients]


@lru_cache(maxsize=16)
def octave_bands(settings: DescriptorSettings) -> tuple[tuple[int, int, int], ...]:
    """Return (first bin, bin after the last, number of averaged bins) of each contrast band."""
    # As in librosa, a band begins one bin below its edge and ends one bin before the next band.
    hz = np.arange(settings.n_fft // 2 + 1) * (settings.sr / settings.n_fft)
    edges = np.append(0.0, settings.contrast_min * 2.0 ** np.arange(settings.n_bands + 1))
    firsts = np.searchsorted(hz, edges[:-1]).tolist()
    stops = np.searchsorted(hz, edges[1:], side="right").tolist()
    bands = []
    for k, (first, stop) in enumerate(zip(firsts, stops, strict=True)):
        last, empty = k == settings.n_bands, first == stop
        first = max(first - (k > 0), 0)
        stop = len(hz) if last else stop - 1
        share = max(round(CONTRAST_SHARE * (stop + (not last) - first)), 1)
        bands.append((0, 0, 0) if empty or stop <= first else (first, stop, share))
    return tuple(bands)


def spectral_contrast(power: F32, settings: DescriptorSettings) -> F32:
    """Return the octave-based contrast, float32 (frames, n_bands + 1) (Jiang et al. 2002)."""
    # The contrast is 10 log10 of a ratio of magnitudes, which is half the usual decibels.
    peaks, valleys = np.zeros((2, len(power), settings.n_bands + 1), dtype=np.float32)
    for k, (first, stop, share) in enumerate(octave_bands(settings)):
        if share == 1:
            valleys[:, k] = np.sqrt(power[:, first:stop].min(axis=1))
            peaks[:, k] = np.sqrt(power[:, first:stop].max(axis=1))
        elif share:
            band = np.sqrt(power[:, first:stop])
            band.partition(sorted({share - 1, stop - first - share}), axis=1)
            valleys[:, k] = band[:, :share].mean(axis=1)
            peaks[:, k] = band[:, -share:].mean(axis=1)
    return decibel(peaks) - decibel(valleys)


def chroma(power: F32, bank: F32) -> F32:
    """Return each frame's energy by pitch class, (frames, 12), with maximum 1 or all 0."""
    raw = power @ bank
    top = raw.max(axis=1, keepdims=True)
    return np.divide(raw, top, out=np.zeros_like(raw), where=top > 1e-20)
