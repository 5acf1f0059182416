"""Descriptors of the spectrum: mel bands, cepstrum, octave-based contrast, chroma."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mvemo.extract.descriptors.settings import (
    DescriptorSettings,
    Floats,
    frequencies_of,
    mel_bands_of,
    window_of,
)
from mvemo.extract.errors import BadSetting

# Floor of a power before its logarithm: -100 dB.
POWER_FLOOR = 1e-10
# Share of a band's bins that makes its peak, and its valley: Jiang et al. 2002.
CONTRAST_SHARE = 0.02
# Concert pitch in Hz.
A4 = 440.0


def decibel(power: Floats) -> Floats:
    """10 log10 of a power, floored at `POWER_FLOOR`; no maximum is taken away."""
    level: Floats = np.log10(np.maximum(power, POWER_FLOOR)) * np.float32(10.0)
    return level


def power_spectrum(values: Floats, settings: DescriptorSettings) -> Floats:
    """Power of the windowed frames' DFT, float32 (frames, n_fft // 2 + 1).

    Parameters
    ----------
    values
        float32 (frames, n_fft).
    """
    # In float64: music that was low-passed has bands 140 dB below its loudest, where the
    # rounding of a float32 transform would show.
    spectrum = fft.rfft(values * window_of(settings), axis=1)
    power: Floats = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
    return power


def mel_level(power: Floats, settings: DescriptorSettings) -> Floats:
    """Decibel of the mel bands of a power spectrum (J22 2.2.1), float32 (frames, n_mels)."""
    return decibel(power @ mel_bands_of(settings))


def cepstrum(level: Floats, n_coefficients: int) -> Floats:
    """The first coefficients of the orthonormal DCT-II of each frame's level.

    Parameters
    ----------
    level
        float32 (frames, n_mels).

    Returns
    -------
    float32 (frames, n_coefficients), the 0th included.
    """
    coefficients: Floats = fft.dct(level, axis=1, norm="ortho")
    return coefficients[:, :n_coefficients]


def cut_blocks(sequence: Floats, size: int) -> tuple[Floats, NDArray[np.int64]]:
    """Cut a sequence into blocks of `size` frames (J22 2.2.1: L blocks of kappa-2 frames).

    Parameters
    ----------
    sequence
        float32 (frames, dim).
    size
        kappa_2.

    Returns
    -------
    float32 (blocks, size, dim), the last block filled up with zeros, and the number of
    real frames in each, int64 (blocks,).
    """
    if size < 1:
        raise BadSetting(f"size is {size}: a block needs at least 1 frame")
    frames, dim = sequence.shape
    count = -(-frames // size)
    padded = np.zeros((count * size, dim), dtype=np.float32)
    padded[:frames] = sequence
    lengths = np.minimum(size, frames - size * np.arange(count))
    return padded.reshape(count, size, dim), lengths


@lru_cache(maxsize=16)
def octave_bands(settings: DescriptorSettings) -> tuple[tuple[int, int, int], ...]:
    """First bin, bin after the last, and share of bins of each band of the contrast.

    The lowest band lies below `contrast_min`, then comes one an octave. As in librosa, each
    band also takes the bin below it and gives its highest away, and the last takes all that
    is above; the share is that of the peak, and of the valley. Bands without a bin of their
    own, above half the sampling rate or between bins, are (0, 0, 0).
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


def spectral_contrast(power: Floats, settings: DescriptorSettings) -> Floats:
    """Octave-based spectral contrast (Jiang et al. 2002), as J22 2.3.2 takes it.

    In each band, the mean of the largest magnitudes against the mean of the smallest, in
    ``10 log10`` of magnitudes: librosa's convention, half of what is usual for decibels.

    Parameters
    ----------
    power
        float32 (frames, n_fft // 2 + 1).

    Returns
    -------
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


@lru_cache(maxsize=16)
def chroma_filters(settings: DescriptorSettings) -> Floats:
    """Gaussian bumps around each of 12 pitch classes, float32 (bins, 12), C first.

    Ellis' construction: bin widths in semitones, each bin's weights of unit length, a
    wide Gaussian over octaves around the fifth.
    """
    hz = frequencies_of(settings)[1:]
    octaves = np.log2(hz / (A4 / 16.0))
    n_chroma = 12
    place = n_chroma * np.concatenate([[octaves[0] - 1.5], octaves])
    width = np.concatenate([np.maximum(np.diff(place), 1.0), [1.0]])
    distance = place[:, None] - np.arange(n_chroma)
    half = np.round(n_chroma / 2.0)
    distance = np.remainder(distance + half + 10 * n_chroma, n_chroma) - half
    weights = np.exp(-0.5 * (2.0 * distance / width[:, None]) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    weights *= np.exp(-0.5 * ((place / n_chroma - 5.0) / 2.0) ** 2)[:, None]
    # The construction counts from A; C comes three semitones later.
    filters: Floats = np.roll(weights, -3, axis=1).astype(np.float32)
    return filters


def chroma(power: Floats, settings: DescriptorSettings) -> Floats:
    """Energy by pitch class, float32 (frames, 12), largest class 1; all 0 without energy."""
    raw = power @ chroma_filters(settings)
    top = raw.max(axis=1, keepdims=True)
    normalised: Floats = np.divide(raw, top, out=np.zeros_like(raw), where=top > 1e-20)
    return normalised
