"""Linear prediction of frames: coefficients, residual, residual phase, formants.

All frames are processed at once: loops run over lags and orders, never over frames. Prediction
uses float64: the window's side lobes are 92 dB down, so the normal equations of smooth sound
are nearly singular, and in float32 the small residual would be lost.
"""

from __future__ import annotations

import numpy as np
import scipy  # not scipy.fft, see `spectral`

from mvemo.extract.arrays import F32, F64
from mvemo.extract.descriptors.frames import Frames
from mvemo.extract.descriptors.settings import DescriptorSettings, window_of

# Share of white noise added to the energy, -90 dB: it keeps the recursion stable on frames that
# can be predicted exactly.
NOISE = 1e-9
# A residual whose peak is below this (full scale is 1) is a rounding error.
QUIET = 1e-12
# Smallest width of the rows into which a frame is folded, in samples.
ROW = 16
# Roots within this many Hz of the band's ends shape the slope and are not formants.
SLOPE = 90.0
# Largest bandwidth of a formant in Hz; wider resonances shape the slope.
WIDEST = 700.0
# Coefficient c of the pre-emphasis 1 - c z^-1 at the reduced rate.
EMPHASIS = 0.97


def autocorrelation(x: F64, lags: int) -> F64:
    """Return the autocorrelation of each frame at lags 0 to `lags`, (frames, lags + 1).

    Each frame is folded into rows of `width` samples: fast matrix products then give the sums
    of ``x[t] x[t + lag]`` by the place of ``t`` in its row.
    """
    frames, n = x.shape
    width = max(lags, ROW)
    padded = np.zeros((frames, _rows(n, width) + 1, width))
    padded.reshape(frames, -1)[:, :n] = x
    here, following = padded[:, :-1], padded[:, 1:]
    turned = here.transpose(0, 2, 1)
    sums = np.concatenate([turned @ here, turned @ following], axis=2)
    place = np.arange(width)
    r = np.empty((frames, lags + 1))
    for lag in range(lags + 1):
        r[:, lag] = sums[:, place, place + lag].sum(axis=1)
    return r


def _rows(samples: int, width: int) -> int:
    return -(-samples // width)


def autocorrelation_of(power: F64, lags: int) -> F64:
    """Return the autocorrelation, (frames, lags + 1), from power spectra of an even DFT."""
    half = power.shape[1] - 1
    waves = np.cos(np.pi / half * np.outer(np.arange(half + 1), np.arange(lags + 1)))
    waves[1:half] *= 2.0
    r: F64 = power @ (waves / (2.0 * half))
    return r


def levinson(r: F64) -> tuple[F64, F64]:
    """Run the Levinson-Durbin recursion on autocorrelations, (frames, order + 1) (J22 eq. 1-2).

    Returns the coefficients a_i of ``h(t) ~ sum a_i h(t - i)``, (frames, order), and the power of
    the prediction error, (frames,). Frames without energy get zeros.
    """
    frames, order = r.shape[0], r.shape[1] - 1
    a = np.zeros((frames, order))
    error = r[:, 0].copy()
    alive = error > 0
    for i in range(order):
        rest = r[:, i + 1] - np.einsum("fj,fj->f", a[:, :i], r[:, i:0:-1])
        k = np.divide(rest, error, out=np.zeros_like(rest), where=alive)
        a[:, :i] -= k[:, None] * a[:, :i][:, ::-1]
        a[:, i] = k
        error = error * (1.0 - k * k)
        alive &= error > 0
    return a, error


def prediction_coefficients(frames: Frames, settings: DescriptorSettings) -> F64:
    """Return each frame's coefficients by the autocorrelation method, (frames, lpc_order).

    They are the result of `levinson` for the windowed frame's autocorrelation plus `NOISE`.
    """
    r = autocorrelation(frames.values * window_of(settings), settings.lpc_order)
    r[:, 0] *= 1.0 + NOISE
    return levinson(r)[0]


def residual(frames: Frames, coefficients: F64) -> F64:
    """Return the prediction error e(t) of each frame (J22 eq. 2), float64 (frames, n_fft).

    Prediction begins in the samples before the frame, so there is no transient.
    """
    count, order = coefficients.shape
    n_before, n = frames.before.shape[1], frames.values.shape[1]
    # Multiply rows of samples by one Toeplitz matrix per frame: a row's errors depend on the row
    # and on the row before it.
    width = max(order, ROW)
    padded = np.zeros((count, 1 + _rows(n, width), width))
    padded[:, 0, width - order :] = frames.before[:, n_before - order :]
    padded.reshape(count, -1)[:, width : width + n] = frames.values
    # The inverse filter, with a zero for all longer delays.
    inverse = np.concatenate([np.ones((count, 1)), -coefficients, np.zeros((count, 1))], axis=1)
    delay = width + np.arange(width) - np.arange(2 * width)[:, None]
    matrix = inverse[:, np.where((delay >= 0) & (delay <= order), delay, order + 1)]
    error = padded[:, :-1] @ matrix[:, :width]
    error += padded[:, 1:] @ matrix[:, width:]
    whole: F64 = error.reshape(count, -1)[:, :n]
    return whole


def residual_phase(error: F64) -> F32:
    """Return the cosine of the analytic residual's phase (J22 eq. 3-5), float32 (frames, n_fft).

    It is cos(theta(t)) = r(t) / |r_a(t)|, and 0 where the residual vanishes.
    """
    n = error.shape[1]
    # A residual of rounding errors has no phase.
    top = np.abs(error).max(axis=1, keepdims=True)
    scaled = np.divide(error, top, out=np.zeros_like(error), where=top > QUIET).astype(np.float32)
    spectrum = scipy.fft.rfft(scaled, axis=1)
    spectrum *= np.complex64(-1j)
    # The mean and, for even lengths, the highest frequency have no quadrature.
    spectrum[:, 0] = 0
    if n % 2 == 0:
        spectrum[:, -1] = 0
    power = np.square(scipy.fft.irfft(spectrum, n=n, axis=1, overwrite_x=True))
    power += np.square(scaled)
    envelope: F32 = np.sqrt(power, out=power)
    phase: F32 = np.divide(scaled, envelope, out=np.zeros_like(scaled), where=envelope > 0)
    return np.clip(phase, -1.0, 1.0, out=phase)


def formants(power: F32, settings: DescriptorSettings) -> F32:
    """Return formant frequencies and bandwidths in Hz, float32 (frames, 2 * n_formants).

    Selective linear prediction (Makhoul 1975): the power spectrum up to `FORMANT_RANGE` is
    treated as that of a signal sampled at twice that rate, pre-emphasised, and predicted. Each
    complex root within the band is a resonance. The frequencies ascend and come first; both are
    0 if a frame has fewer formants.
    """
    top, order, count = settings.formant_bins, settings.formant_order, settings.n_formants
    rate = 2.0 * top * settings.sr / settings.n_fft
    band = power[:, : top + 1].astype(np.float64)
    band *= 1.0 + EMPHASIS**2 - 2.0 * EMPHASIS * np.cos(np.pi * np.arange(top + 1) / top)
    r = autocorrelation_of(band, order)
    r[:, 0] *= 1.0 + NOISE
    a = levinson(r)[0]
    companion = np.zeros((len(a), order, order))
    companion[:, 0] = a
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    roots = np.linalg.eigvals(companion)
    frequency = np.angle(roots) * rate / (2.0 * np.pi)
    bandwidth = -np.log(np.maximum(np.abs(roots), 1e-12)) * rate / np.pi
    good = (frequency > SLOPE) & (frequency < rate / 2 - SLOPE)
    good &= (bandwidth > 0) & (bandwidth < WIDEST)
    ranked = np.where(good, frequency, np.inf)
    pick = np.argsort(ranked, axis=1)[:, :count]
    hz = np.take_along_axis(ranked, pick, axis=1)
    valid = np.isfinite(hz)
    width = np.where(valid, np.take_along_axis(bandwidth, pick, axis=1), 0.0)
    return np.concatenate([np.where(valid, hz, 0.0), width], axis=1).astype(np.float32)
