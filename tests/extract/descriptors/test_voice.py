"""Pitch, linear prediction and formants of known signals, also against SciPy and librosa."""

import librosa
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.descriptors.framing import blocks
from mvemo.extract.descriptors.spectral import power_spectrum
from mvemo.extract.descriptors.voice import (
    NOISE,
    formants,
    levinson,
    normalised_difference,
    residual_phase,
)

SR = 44_100
FORMANTS = np.array([700.0, 1220.0, 2600.0, 3500.0])
BANDWIDTHS = np.array([80.0, 90.0, 120.0, 150.0])


def all_pole(hz=FORMANTS, width=BANDWIDTHS, sr=SR):
    """Coefficients a_i of the resonator h(t) = e(t) + sum a_i h(t - i)."""
    poles = np.exp((-np.pi * width + 2j * np.pi * hz) / sr)
    return -np.poly(np.concatenate([poles, poles.conj()])).real[1:]


def pulses(period, samples):
    e = np.zeros(samples)
    e[10::period] = 0.01
    return e


def voice(period, samples, a=None):
    """A pulse train through a resonator, float32."""
    a = all_pole() if a is None else a
    filtered = scipy.signal.lfilter([1.0], np.r_[1.0, -a], pulses(period, samples))
    return (0.5 * filtered / np.abs(filtered).max()).astype(np.float32)


def music(seed=0):
    rng = np.random.default_rng(seed)
    noise = scipy.signal.lfilter([1.0], [1.0, -0.9], rng.standard_normal(6 * 2048))
    return (0.1 * noise + 0.5 * voice(401, 6 * 2048)).astype(np.float32)


def some_frames(y, settings, count=5):
    return next(blocks(y, settings, np.arange(count)))


def test_frames_without_energy_have_zero_coefficients():
    a, error = levinson(np.zeros((2, 5)))
    assert not a.any()
    assert not error.any()


@pytest.mark.parametrize("window", ["blackmanharris", "hann"])
def test_rp_is_the_chain_of_scipy_and_librosa(window):
    s = DescriptorSettings(window=window)
    y = np.concatenate([np.zeros(s.lpc_order), music()])  # prediction begins before the first frame
    window = scipy.signal.get_window(window, s.n_fft)
    rp = describe(y[s.lpc_order :].astype(np.float32), s, ["rp"])["rp"]
    for i, row in enumerate(rp[:8]):
        whole = y[i * s.hop_length :][: s.lpc_order + s.n_fft]
        x = whole[s.lpc_order :]
        r = np.correlate(x * window, x * window, "full")[s.n_fft - 1 :][: s.lpc_order + 1]
        r[0] *= 1 + NOISE
        a = scipy.linalg.solve_toeplitz(r[:-1], r[1:])
        error = scipy.signal.lfilter(np.r_[1, -a], [1.0], whole)[s.lpc_order :]
        # The mean counts in r(t) and has no quadrature (J22 eq. 3).
        phase = error / np.abs(scipy.signal.hilbert(error))
        power = np.abs(np.fft.rfft(phase * window)) ** 2
        mel = librosa.feature.melspectrogram(S=power[:, None], sr=s.sr, n_mels=s.n_mels)
        level = librosa.power_to_db(mel, top_db=None)
        expected = librosa.feature.mfcc(S=level, n_mfcc=s.n_mfcc)[:, 0]
        assert np.abs(row - expected).max() < 1e-3


def test_residual_phase_without_residual_is_zero():
    assert not residual_phase(np.zeros((1, 64))).any()


def test_formants_of_single_pulses_are_the_poles():
    settings = DescriptorSettings(
        n_fft=4096, hop_length=4096, window="boxcar", formant_order=12, silence_db=-100
    )
    frames = some_frames(voice(4096, 5 * 4096), settings)
    found = formants(power_spectrum(frames.values, settings), settings)
    assert found[:, :4] == pytest.approx(np.tile(FORMANTS, (5, 1)), abs=40)
    assert found[:, 4:] == pytest.approx(np.tile(BANDWIDTHS, (5, 1)), abs=40)


def test_formants_are_the_roots_that_numpy_finds():
    settings = DescriptorSettings()
    power = power_spectrum(some_frames(music(), settings).values, settings)
    found = formants(power, settings)
    top = int(5500 * 2048 / SR)
    rate = 2 * top * SR / 2048
    for row, spectrum in zip(found, power.astype(float), strict=True):
        # Pre-emphasis as a filter's response on the band, autocorrelation by inverse DFT.
        _, response = scipy.signal.freqz([1.0, -0.97], worN=top + 1, include_nyquist=True)
        r = np.fft.irfft(spectrum[: top + 1] * np.abs(response) ** 2)[:13]
        r[0] *= 1 + NOISE
        roots = np.roots(np.r_[1.0, -scipy.linalg.solve_toeplitz(r[:-1], r[1:])])
        hz = np.angle(roots) * rate / (2 * np.pi)
        width = -np.log(np.abs(roots)) * rate / np.pi
        kept = (hz > 90) & (hz < rate / 2 - 90) & (width < 700)
        order = np.argsort(hz[kept])[:4]
        assert row[: len(order)] == pytest.approx(hz[kept][order], abs=0.01)
        assert row[4 : 4 + len(order)] == pytest.approx(width[kept][order], abs=0.01)


def test_absent_formants_are_zero_and_last():
    t = np.arange(SR // 4) / SR
    y = (0.3 * np.sin(2 * np.pi * 900 * t)).astype(np.float32)
    y += 1e-4 * np.random.default_rng(0).standard_normal(len(y)).astype(np.float32)
    found = describe(y, DescriptorSettings(), ["formants"])["formants"]
    hz, width = found[:, :4], found[:, 4:]
    assert ((hz == 0) == (width == 0)).all()
    assert (hz == 0).any()
    for row in hz:
        present = row[row > 0]
        assert (np.diff(present) > 0).all()
        assert not row[len(present) :].any()


def f0(y, **settings):
    return describe(y.astype(np.float32), DescriptorSettings(**settings), ["f0"])["f0"]


def tone(hz, sr=44100, seconds=0.3, harmonics=1):
    t = np.arange(int(seconds * sr)) / sr
    return sum(0.3 / k * np.sin(2 * np.pi * k * hz * t) for k in range(1, harmonics + 1))


@pytest.mark.parametrize(
    ("hz", "harmonics"),
    [(hz, n) for hz in (61.3, 110.0, 261.63, 440.0, 997.0) for n in (1, 5)] + [(1900.0, 1)],
)
def test_tones_have_their_frequency(hz, harmonics):
    found = f0(tone(hz, harmonics=harmonics))[:-2]
    assert found[:, 0] == pytest.approx(np.full(len(found), hz), rel=1e-3)
    assert (found[:, 1] > 0.95).all()


@pytest.mark.parametrize(("sr", "n_fft", "hz"), [(8_000, 512, 220.0), (192_000, 8192, 110.0)])
def test_other_rates(sr, n_fft, hz):
    found = f0(tone(hz, sr=sr), sr=sr, n_fft=n_fft, hop_length=n_fft // 2)[:-2]
    assert found[:, 0] == pytest.approx(np.full(len(found), hz), rel=1e-3)


def test_noise_is_unvoiced():
    found = f0(0.1 * np.random.default_rng(0).standard_normal(44_100))
    assert (found[:, 0] == 0).mean() > 0.95
    assert (found[:, 1] < 0.8)[found[:, 0] == 0].all()


@pytest.mark.parametrize("level", [1.0, 0.1, 0.3333])
def test_a_constant_is_unvoiced(level):
    found = f0(np.full(8192, level))[:-1]
    assert not found.any()


def test_a_tone_on_a_large_constant_keeps_its_frequency():
    found = f0(0.5 + 0.01 * tone(440.0))[:-2]
    assert found[:, 0] == pytest.approx(np.full(len(found), 440.0), rel=1e-3)


def test_normalised_difference_is_the_papers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    x[1] = np.sin(np.arange(256) / 5)
    ours = normalised_difference(x, 127)
    for frame, row in zip(x.astype(float), ours, strict=True):
        d = np.array([((frame[:128] - frame[tau : tau + 128]) ** 2).sum() for tau in range(128)])
        normalised = np.r_[1.0, [d[tau] * tau / d[1 : tau + 1].sum() for tau in range(1, 128)]]
        assert row == pytest.approx(normalised, abs=2e-5)
