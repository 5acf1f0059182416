"""Filter banks over the bins of a spectrum: mel bands and pitch classes, equal to librosa's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvemo.extract.arrays import F32, F64
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.mel import MelSettings, mel_filter_bank

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
