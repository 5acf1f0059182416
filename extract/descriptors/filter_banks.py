"""Filter banks over the bins of a spectrum: mel bands and pitch classes, librosa's to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvemo.extract.arrays import F32, F64
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.mel import MelSettings, mel_filter_bank

# Pitch classes; the middle of the octaves that count, from 27.5 Hz up, and how many do.
N_CHROMA, OCTAVE, OCTAVE_WIDTH = 12, 5.0, 2.0


@dataclass(frozen=True, eq=False)
class FilterBanks:
    """The filter banks that descriptors need."""

    mel: F32  # float32 (n_fft // 2 + 1, n_mels): triangular bands of unit area on Slaney's scale
    # Float32 (n_fft // 2 + 1, 12): weights of the pitch classes, C first, for a tuning of A4
    # at 440 Hz.
    chroma: F32


@lru_cache(maxsize=16)
def filter_banks(settings: DescriptorSettings) -> FilterBanks:
    """The filter banks of some settings; computed once in a process.

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
    """Weights of the bins in each pitch class from C, float64 (n_fft // 2 + 1, 12).

    A Gaussian over pitch around each class, columns of unit length, with a wide one over
    octaves around the fifth above 27.5 Hz (Ellis 2007, "Chroma feature analysis and
    synthesis"): librosa's to the bit.
    """
    n_fft, n = settings.n_fft, N_CHROMA
    hz = np.linspace(0, settings.sr, n_fft, endpoint=False)[1:]
    # In semitones above the A of 27.5 Hz; the bin at 0 Hz is put an octave and a half below.
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
    # From C in place of A.
    bank = np.roll(bank, -3 * (n // 12), axis=0)
    return np.ascontiguousarray(bank[:, : 1 + n_fft // 2].T)
