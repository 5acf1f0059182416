"""Fundamental frequency by YIN (de Cheveigné & Kawahara 2002), all frames at once."""

from __future__ import annotations

import numpy as np
import scipy  # not scipy.fft, see `spectral`

from mvemo.extract.arrays import F32, F64, I64
from mvemo.extract.descriptors.settings import DescriptorSettings

# The period is the first dip of the normalised difference below this (the paper's step 4).
DIP = 0.1
# A frame is constant, without pitch, if the share of its energy outside its mean is below this.
CONSTANT = 1e-10


def fundamental(values: F32, settings: DescriptorSettings) -> F32:
    """Return the fundamental frequency and the voicing of each frame, float32 (frames, 2).

    The frequency is in Hz, 0 if unvoiced; voicing is 1 minus the normalised difference at the
    period, in [0, 1]. The window of the difference function is half a frame: all lags use the
    same number of samples, as in the paper's eq. 6, while librosa's `yin` uses ever fewer.
    """
    low, high = settings.lags
    # The mean does not change the difference function, but it would add rounding errors.
    centred = values - values.mean(axis=1, keepdims=True)
    loud = np.einsum("ft,ft->f", centred, centred) > CONSTANT * np.einsum(
        "ft,ft->f", values, values
    )
    normalised = normalised_difference(centred, high)[:, low:]
    normalised[~loud] = 1.0
    lag = _pick(normalised)
    dip = normalised[np.arange(len(values)), lag]
    period = low + lag + _parabola(normalised, lag)
    out = np.zeros((len(values), 2), dtype=np.float32)
    out[:, 0] = np.where(dip < settings.f0_threshold, settings.sr / period, 0.0)
    out[:, 1] = np.clip(1.0 - dip, 0.0, 1.0)
    return out


def normalised_difference(values: F32, longest: int) -> F64:
    """Return the cumulative mean normalised difference d'(tau), the paper's eq. 6 and 8.

    `values`, (frames, n), have zero mean; `longest` is the longest lag, at most n - n // 2. The
    result is (frames, longest + 1), from lag 0 on.
    """
    return _cumulative_mean_normalised(_difference(values, values.shape[1] // 2, longest))


def _difference(values: F32, window: int, high: int) -> F64:
    """Return d(tau), the paper's eq. 6, for tau from 0 to `high`."""
    n = values.shape[1]
    spectrum = scipy.fft.rfft(values, axis=1)
    # Product of the frame's first half with the whole frame: no lag up to n - window wraps.
    half = scipy.fft.rfft(values[:, window - 1 :: -1], n=n, axis=1)
    half *= spectrum
    product = scipy.fft.irfft(half, n=n, axis=1, overwrite_x=True)[:, window - 1 : window + high]
    # Energy of the window moved by tau: add the entering sample, subtract the leaving one.
    power = np.square(values)
    energy = np.empty((len(values), high + 1))
    energy[:, 0] = power[:, :window].sum(axis=1, dtype=np.float64)
    np.subtract(power[:, window : window + high], power[:, :high], out=energy[:, 1:])
    np.cumsum(energy, axis=1, out=energy)
    first = energy[:, :1].copy()
    energy += first
    energy -= 2.0 * product
    # Rounding gives small negative values if a frame repeats exactly.
    return np.maximum(energy, 0.0, out=energy)


def _cumulative_mean_normalised(difference: F64) -> F64:
    """Return d'(tau), the paper's eq. 8; 1 at lag 0 and for frames without energy."""
    tau = np.arange(1, difference.shape[1])
    total = np.cumsum(difference[:, 1:], axis=1)
    out = np.ones_like(difference)
    np.divide(difference[:, 1:] * tau, total, out=out[:, 1:], where=total > 0)
    return out


def _pick(normalised: F64) -> I64:
    """Return the lag of the first local dip below `DIP`, otherwise of the minimum."""
    dips = np.zeros(normalised.shape, dtype=bool)
    middle = normalised[:, 1:-1]
    dips[:, 1:-1] = (middle < normalised[:, :-2]) & (middle <= normalised[:, 2:])
    dips[:, 0] = normalised[:, 0] < normalised[:, 1]
    dips &= normalised < DIP
    first = dips.argmax(axis=1)
    lag: I64 = np.where(dips.any(axis=1), first, normalised.argmin(axis=1))
    return lag


def _parabola(normalised: F64, lag: I64) -> F64:
    """Return the offset of the parabola's vertex through each lag and its neighbours."""
    row = np.arange(len(lag))
    inner = np.clip(lag, 1, normalised.shape[1] - 2)
    a, b, c = (normalised[row, inner + step] for step in (-1, 0, 1))
    curve = a + c - 2.0 * b
    shift = np.divide((a - c) / 2.0, curve, out=np.zeros_like(b), where=curve > 0)
    return np.where((inner == lag) & (np.abs(shift) <= 1.0), shift, 0.0)
