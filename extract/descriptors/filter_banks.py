"""Filter banks over the bins of a spectrum: mel bands and pitch classes, both librosa's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvemo.extract.arrays import F32
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.mel import MelSettings, mel_filter_bank


@dataclass(frozen=True, eq=False)
class FilterBanks:
    """The filter banks that descriptors need.

    Computed once and handed to the workers: importing librosa takes each process
    more than a second and 60 MiB.

    Parameters
    ----------
    mel
        float32 (n_fft // 2 + 1, n_mels): triangular bands of unit area on Slaney's scale.
    chroma
        float32 (n_fft // 2 + 1, 12): weights of the pitch classes, C first, for a tuning of
        A4 at 440 Hz.
    """

    mel: F32
    chroma: F32


@lru_cache(maxsize=16)
def filter_banks(settings: DescriptorSettings) -> FilterBanks:
    """The filter banks of some settings; computed once in a process.

    See Also
    --------
    mvemo.extract.mel.mel_filter_bank : The mel bands alone, on either scale.

    Examples
    --------
    >>> banks = filter_banks(DescriptorSettings(sr=16000, n_fft=512, hop_length=256, n_mels=40))
    >>> banks.mel.shape, banks.chroma.shape
    ((257, 40), (257, 12))
    """
    import librosa.filters

    mel = mel_filter_bank(
        MelSettings(
            sr=settings.sr,
            n_fft=settings.n_fft,
            hop_length=settings.hop_length,
            n_mels=settings.n_mels,
        )
    )
    chroma = librosa.filters.chroma(
        sr=settings.sr, n_fft=settings.n_fft, tuning=0.0, dtype=np.float64
    )
    return FilterBanks(
        mel=mel.astype(np.float32), chroma=np.ascontiguousarray(chroma.T, dtype=np.float32)
    )
