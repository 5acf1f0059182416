"""Descriptors of the voice: pitch by YIN, residual phase and formants by linear prediction.

All frames are processed at once: loops run over lags and orders, never over frames. Prediction uses
float64: the window's side lobes are at -92 dB, so the normal equations of smooth sound are nearly
singular, and float32 would lose the small residual.
"""

import numpy as np
import scipy  # not scipy.fft, see `spectral`

from mvemo.extract.descriptors.framing import DescriptorSettings, Frames
from mvemo.manifests.array_types import F32, F64, Ints

# The period is the first dip of the normalised difference below this (step 4 of the YIN paper).
DIP = 0.1
# A frame counts as constant, without pitch, if its variance is below this share of its energy.
CONSTANT = 1e-10
# White noise (-90 dB) added as a share of the energy: it keeps the recursion stable for frames that
# can be predicted exactly.
NOISE = 1e-9
# A residual with a peak below this (full scale is 1) counts as a rounding error.
QUIET = 1e-12
# Minimum width, in samples, of the rows into which a frame is reshaped.
ROW = 16
# Roots within this many Hz of the band's ends model the spectral slope and are not formants.
SLOPE = 90.0
# Maximum bandwidth of a formant in Hz; wider resonances model the spectral slope.
WIDEST = 700.0
# Coefficient c of the pre-emphasis 1 - c z^-1 at the reduced rate.
EMPHASIS = 0.97


def fundamental(values: F32, settings: DescriptorSettings) -> F32:
    """Return YIN's frequency in Hz (0 if unvoiced) and voicing in [0, 1], (frames, 2)."""
    low, high = settings.lags
    # The mean does not change the difference function, but it would add rounding errors.
    centred = values - values.mean(axis=1, keepdims=True)
    energy, total = (np.einsum("ft,ft->f", x, x) for x in (centred, values))
    loud = energy > CONSTANT * total
    normalised = normalised_difference(centred, high)[:, low:]
    normalised[~loud] = 1.0
    lag = _pick(normalised)
    dip = normalised[np.arange(len(values)), lag]
    period = low + lag + _parabola(normalised, lag)
    hz = np.where(dip < settings.f0_threshold, settings.sr / period, 0.0)
    return np.column_stack([hz, np.clip(1.0 - dip, 0.0, 1.0)]).astype(np.float32)


def normalised_difference(values: F32, longest: int) -> F64:
    """Return YIN's d'(tau) (eq. 6, 8) for values with zero mean, (frames, longest + 1)."""
    n, window = values.shape[1], values.shape[1] // 2
    spectrum = scipy.fft.rfft(values, axis=1)
    # Correlate the first half of the frame with the frame: no lag up to n - window wraps around.
    half = scipy.fft.rfft(values[:, window - 1 :: -1], n=n, axis=1)
    half *= spectrum
    product = scipy.fft.irfft(half, n=n, axis=1, overwrite_x=True)
    # Energy of the window shifted by tau: add the entering sample, subtract the leaving sample.
    power = np.square(values)
    difference = np.empty((len(values), longest + 1))
    difference[:, 0] = power[:, :window].sum(axis=1, dtype=np.float64)
    np.subtract(power[:, window : window + longest], power[:, :longest], out=difference[:, 1:])
    np.cumsum(difference, axis=1, out=difference)
    difference += difference[:, :1].copy()
    difference -= 2.0 * product[:, window - 1 : window + longest]
    # Rounding causes small negative values if a frame is exactly periodic.
    np.maximum(difference, 0.0, out=difference)
    total = np.cumsum(difference[:, 1:], axis=1)
    out = np.ones_like(difference)
    scaled = difference[:, 1:] * np.arange(1, longest + 1)
    np.divide(scaled, total, out=out[:, 1:], where=total > 0)
    return out


def _pick(normalised: F64) -> Ints:
    """Return the lag of the first local minimum below `DIP`, or else of the global minimum."""
    dips = normalised < DIP
    dips[:, 1:] &= normalised[:, 1:] < normalised[:, :-1]
    dips[:, 1:-1] &= normalised[:, 1:-1] <= normalised[:, 2:]
    dips[:, 0] &= normalised[:, 0] < normalised[:, 1]
    dips[:, -1] = False
    return np.where(dips.any(axis=1), dips.argmax(axis=1), normalised.argmin(axis=1))


def _parabola(normalised: F64, lag: Ints) -> F64:
    """Return the offset of the vertex of a parabola through each lag and its neighbours."""
    row = np.arange(len(lag))
    inner = np.clip(lag, 1, normalised.shape[1] - 2)
    a, b, c = (normalised[row, inner + step] for step in (-1, 0, 1))
    curve = a + c - 2.0 * b
    shift = np.divide((a - c) / 2.0, curve, out=np.zeros_like(b), where=curve > 0)
    return np.where((inner == lag) & (np.abs(shift) <= 1.0), shift, 0.0)


def autocorrelation(x: F64, lags: int) -> F64:
    """Return the autocorrelation of each frame at lags 0 to `lags`, (frames, lags + 1)."""
    # Frames are reshaped into rows, so that matrix products give the sums of x[t] x[t + lag] for
    # each position of t in its row.
    frames, n = x.shape
    width = max(lags, ROW)
    padded = np.zeros((frames, -(-n // width) + 1, width))
    padded.reshape(frames, -1)[:, :n] = x
    here, following = padded[:, :-1], padded[:, 1:]
    turned = here.transpose(0, 2, 1)
    sums = np.concatenate([turned @ here, turned @ following], axis=2)
    place = np.arange(width)
    r = np.empty((frames, lags + 1))
    for lag in range(lags + 1):
        r[:, lag] = sums[:, place, place + lag].sum(axis=1)
    return r


def levinson(r: F64) -> F64:
    """Return a_i of ``h(t) ~ sum a_i h(t - i)``, (frames, order), with noise added to h."""
    frames, order = r.shape[0], r.shape[1] - 1
    a = np.zeros((frames, order))
    error = r[:, 0] * (1.0 + NOISE)
    alive = error > 0
    for i in range(order):
        rest = r[:, i + 1] - np.einsum("fj,fj->f", a[:, :i], r[:, i:0:-1])
        k = np.divide(rest, error, out=np.zeros_like(rest), where=alive)
        a[:, :i] -= k[:, None] * a[:, :i][:, ::-1]
        a[:, i] = k
        error = error * (1.0 - k * k)
        alive &= error > 0
    return a


def residual(frames: Frames, coefficients: F64) -> F64:
    """Return the prediction error e(t) of each frame (J22 eq. 2), float64 (frames, n_fft)."""
    # Prediction begins with the samples before the frame, so there is no transient.
    count, order = coefficients.shape
    n_before, n = frames.before.shape[1], frames.values.shape[1]
    # Multiply rows of samples by a Toeplitz matrix per frame: the errors of a row depend on it and
    # on the row before it.
    width = max(order, ROW)
    padded = np.zeros((count, 1 - (-n // width), width))
    padded[:, 0, width - order :] = frames.before[:, n_before - order :]
    padded.reshape(count, -1)[:, width : width + n] = frames.values
    # The inverse filter, followed by a zero for all longer delays.
    inverse = np.pad(-coefficients, ((0, 0), (1, 1)))
    inverse[:, 0] = 1.0
    delay = width + np.arange(width) - np.arange(2 * width)[:, None]
    matrix = inverse[:, np.where((delay >= 0) & (delay <= order), delay, order + 1)]
    error = padded[:, :-1] @ matrix[:, :width]
    error += padded[:, 1:] @ matrix[:, width:]
    return np.asarray(error.reshape(count, -1)[:, :n])


def residual_phase(error: F64) -> F32:
    """Return cos(theta(t)) = r(t) / |r_a(t)| (J22 eq. 3-5), 0 if r is 0, (frames, n_fft)."""
    n = error.shape[1]
    # A residual of rounding errors has no phase.
    top = np.abs(error).max(axis=1, keepdims=True)
    scaled = np.divide(error, top, out=np.zeros_like(error), where=top > QUIET).astype(np.float32)
    spectrum = scipy.fft.rfft(scaled, axis=1)
    spectrum *= np.complex64(-1j)
    # The mean and, because the length is even, the highest frequency have no quadrature.
    spectrum[:, [0, -1]] = 0
    envelope = np.square(scipy.fft.irfft(spectrum, n=n, axis=1, overwrite_x=True))
    envelope += np.square(scaled)
    np.sqrt(envelope, out=envelope)
    phase: F32 = np.divide(scaled, envelope, out=np.zeros_like(scaled), where=envelope > 0)
    return np.clip(phase, -1.0, 1.0, out=phase)


def formants(power: F32, settings: DescriptorSettings) -> F32:
    """Return formant frequencies, ascending, then bandwidths in Hz, (frames, 2 * n_formants)."""
    # Selective linear prediction (Makhoul 1975): the spectrum up to `FORMANT_RANGE` is treated as
    # that of a signal sampled at twice that frequency; a complex root in the band is a resonance.
    top, order, count = settings.formant_bins, settings.formant_order, settings.n_formants
    rate = 2.0 * top * settings.sr / settings.n_fft
    band = power[:, : top + 1].astype(np.float64)
    band *= 1.0 + EMPHASIS**2 - 2.0 * EMPHASIS * np.cos(np.pi * np.arange(top + 1) / top)
    # The autocorrelation from power spectra of even DFT length.
    waves = np.cos(np.pi / top * np.outer(np.arange(top + 1), np.arange(order + 1)))
    waves[1:top] *= 2.0
    r = band @ (waves / (2.0 * top))
    a = levinson(r)
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
    found = np.concatenate(
        [np.take_along_axis(x, pick, axis=1) for x in (ranked, bandwidth)], axis=1
    )
    valid = np.isfinite(found[:, :count])
    return np.where(np.tile(valid, 2), found, 0.0).astype(np.float32)
