"""Descriptors of the spectrum: mel bands, cepstrum, octave-based contrast, chroma."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy  # imports scipy.fft at its first use: loading nets does not need it

from mvemo.extract.arrays import F32, F64
from mvemo.extract.descriptors.settings import DescriptorSettings, frequencies_of, window_of
from mvemo.extract.mel import MelSettings, mel_filter_bank

# Floor of a power before its logarithm: -100 dB.
POWER_FLOOR = 1e-10
# Share of a band's bins that is averaged for its peak and for its valley (Jiang et al. 2002).
CONTRAST_SHARE = 0.02
# Number of pitch classes; centre and width, in octaves above 27.5 Hz, of the octave weights.
N_CHROMA, OCTAVE, OCTAVE_WIDTH = 12, 5.0, 2.0


@dataclass(frozen=True, eq=False)
class FilterBanks:
    """Filter banks of the descriptors."""

    mel: F32  # (n_fft // 2 + 1, n_mels): triangular bands of unit area on Slaney's scale
    chroma: F32  # (n_fft // 2 + 1, 12): weights of the pitch classes from C, with A4 = 440 Hz


@lru_cache(maxsize=16)
def filter_banks(settings: DescriptorSettings) -> FilterBanks:
    """Return the filter banks of some settings, computed once per process.

    Examples
    --------
    >>> banks = filter_banks(DescriptorSettings(sr=16000, n_fft=512, hop_length=256, n_mels=40))
    >>> banks.mel.shape, banks.chroma.shape
    ((257, 40), (257, 12))
    """
    mel = mel_filter_bank(
        MelSettings(
            sr=settings.sr,
            n_fft=settings.n_fft,
            hop_length=settings.hop_length,
            n_mels=settings.n_mels,
        )
    )
    return FilterBanks(
        mel=mel.astype(np.float32),
        chroma=_chroma_bank(settings).astype(np.float32),
    )


def _chroma_bank(settings: DescriptorSettings) -> F64:
    """Return the weights of the bins in each pitch class from C, float64 (n_fft // 2 + 1, 12).

    They are a Gaussian over pitch around each class, normalised to unit length for each bin,
    times a wide Gaussian over octaves around the fifth one above 27.5 Hz (Ellis 2007, "Chroma
    feature analysis and synthesis"): librosa's values, bit for bit.
    """
    n_fft, n = settings.n_fft, N_CHROMA
    hz = np.linspace(0, settings.sr, n_fft, endpoint=False)[1:]
    # In semitones above the A of 27.5 Hz. The bin at 0 Hz gets the first bin less 1.5 octaves.
    pitch = n * np.log2(hz / (440.0 / 16))
    pitch = np.concatenate(([pitch[0] - 1.5 * n], pitch))
    width = np.concatenate((np.maximum(pitch[1:] - pitch[:-1], 1.0), [1]))
    distance = np.subtract.outer(pitch, np.arange(0, n, dtype="d")).T
    half = np.round(float(n) / 2)
    distance = np.remainder(distance + half + 10 * n, n) - half
    bank = np.exp(-0.5 * (2 * distance / np.tile(width, (n, 1))) ** 2)
    length = np.sum(np.abs(bank) ** 2, axis=0, keepdims=True) ** 0.5
    bank /= np.where(length < np.finfo(bank.dtype).tiny, 1.0, length)
    octaves = np.exp(-0.5 * (((pitch / n - OCTAVE) / OCTAVE_WIDTH) ** 2))
    bank *= np.tile(octaves, (n, 1))
    # Start from C instead of A.
    bank = np.roll(bank, -3 * (n // 12), axis=0)
    return np.ascontiguousarray(bank[:, : 1 + n_fft // 2].T)


def decibel(power: F32) -> F32:
    """Return 10 log10 of a power, floored at `POWER_FLOOR`; 0 dB is a power of 1."""
    level: F32 = np.log10(np.maximum(power, POWER_FLOOR)) * np.float32(10.0)
    return level


def power_spectrum(values: F32, settings: DescriptorSettings) -> F32:
    """Return the power of the windowed frames' DFT, float32 (frames, n_fft // 2 + 1)."""
    # float64: low-passed music has bands 140 dB below its loudest, where the rounding errors of
    # a float32 transform would show.
    spectrum = scipy.fft.rfft(values * window_of(settings), axis=1)
    power: F32 = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
    return power


def mel_level(power: F32, bank: F32) -> F32:
    """Return the level of the mel bands in decibels (J22 2.2.1), float32 (frames, n_mels)."""
    return decibel(power @ bank)


def cepstrum(level: F32, n_coefficients: int) -> F32:
    """Return the first coefficients of each frame's orthonormal DCT-II, from the 0th on."""
    coefficients: F32 = scipy.fft.dct(level, axis=1, norm="ortho")
    return coefficients[:, :n_coefficients]


@lru_cache(maxsize=16)
def octave_bands(settings: DescriptorSettings) -> tuple[tuple[int, int, int], ...]:
    """Return (first bin, bin after the last, number of averaged bins) of each contrast band.

    The lowest band lies below `contrast_min`; above it there is one band per octave. As in
    librosa, a band begins one bin below its edge and ends one bin before the next band, and the
    last one ends at half the sampling rate. The peak and the valley are means of the given
    number of bins. Bands without bins are (0, 0, 0): they lie above half the sampling rate, or
    between two bins.
    """
    hz = frequencies_of(settings)
    edges = [0.0, *(settings.contrast_min * 2.0 ** np.arange(settings.n_bands + 1))]
    bands = []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = np.flatnonzero((hz >= low) & (hz <= high))
        if len(inside) == 0:
            bands.append((0, 0, 0))
            continue
        first = max(int(inside[0]) - (k > 0), 0)
        stop = len(hz) if k == settings.n_bands else int(inside[-1]) + 1
        share = max(int(np.rint(CONTRAST_SHARE * (stop - first))), 1)
        if k < settings.n_bands:
            stop -= 1
        bands.append((first, stop, share) if stop > first else (0, 0, 0))
    return tuple(bands)


def spectral_contrast(power: F32, settings: DescriptorSettings) -> F32:
    """Return the octave-based spectral contrast (Jiang et al. 2002; J22 2.3.2).

    It is the mean of the largest magnitudes in each band over the mean of the smallest, in
    ``10 log10`` of magnitudes: librosa's convention, half the usual decibels. The result is
    float32 (frames, n_bands + 1), 0 or more; 0 in bands without bins.
    """
    contrast = np.zeros((len(power), settings.n_bands + 1), dtype=np.float32)
    for k, (first, stop, share) in enumerate(octave_bands(settings)):
        if stop == first:
            continue
        width = stop - first
        band = np.sqrt(power[:, first:stop])
        band.partition(sorted({share - 1, width - share}), axis=1)
        valley = band[:, :share].mean(axis=1)
        peak = band[:, width - share :].mean(axis=1)
        contrast[:, k] = decibel(peak) - decibel(valley)
    return contrast


def chroma(power: F32, bank: F32) -> F32:
    """Return the energy by pitch class, float32 (frames, 12), maximum 1; 0 without energy."""
    raw = power @ bank
    top = raw.max(axis=1, keepdims=True)
    normalised: F32 = np.divide(raw, top, out=np.zeros_like(raw), where=top > 1e-20)
    return normalised
