"""Pitch, linear prediction and formants of known signals, also against SciPy and librosa."""

import librosa
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from mvemo.extract.descriptors import DescriptorSettings, describe, framing, spectral
from mvemo.extract.descriptors.voice import (
    NOISE,
    formants,
    normalised_difference,
)

SR = 44_100
FORMANTS = np.array([700.0, 1220.0, 2600.0, 3500.0])
BANDWIDTHS = np.array([80.0, 90.0, 120.0, 150.0])


def music(samples=6 * 2048):
    """Pulses through resonators, like a voice, and noise."""
    poles = np.exp((-np.pi * BANDWIDTHS + 2j * np.pi * FORMANTS) / SR)
    pulses = (np.arange(samples) % 401 == 10).astype(float)
    voice = scipy.signal.lfilter([1.0], np.poly([*poles, *poles.conj()]).real, pulses)
    noise = scipy.signal.lfilter([1.0], [1.0, -0.9], np.random.default_rng(0).normal(size=samples))
    return (0.1 * noise + 0.25 * voice / np.abs(voice).max()).astype(np.float32)


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


def test_formants_are_the_roots_that_numpy_finds():
    settings = DescriptorSettings()
    frames = next(framing.blocks(music(), settings, np.arange(5)))
    power = spectral.power_spectrum(frames.values, settings)
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


@pytest.mark.parametrize(
    ("hz", "harmonics", "sr", "n_fft", "constant"),
    [(hz, n, SR, 2048, 0.0) for hz in (61.3, 261.63, 997.0) for n in (1, 5)]
    + [(1900.0, 1, SR, 2048, 0.0), (440.0, 1, SR, 2048, 15.0)]
    + [(220.0, 1, 8_000, 512, 0.0), (110.0, 1, 192_000, 8192, 0.0)],
)
def test_tones_have_their_frequency(hz, harmonics, sr, n_fft, constant):
    t = np.arange(int(0.3 * sr)) / sr
    y = constant + sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, harmonics + 1))
    found = f0(0.03 * y, sr=sr, n_fft=n_fft, hop_length=n_fft // 2)[:-2]
    assert found[:, 0] == pytest.approx(np.full(len(found), hz), rel=1e-3)
    assert (found[:, 1] > 0.95).all()


def test_noise_is_unvoiced():
    found = f0(0.1 * np.random.default_rng(0).standard_normal(44_100))
    assert (found[:, 0] == 0).mean() > 0.95
    assert (found[:, 1] < 0.8)[found[:, 0] == 0].all()


def test_a_constant_is_unvoiced():
    assert not f0(np.full(8192, 0.3333))[:-1].any()


def test_normalised_difference_is_the_papers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    x[1] = np.sin(np.arange(256) / 5)
    ours = normalised_difference(x, 127)
    for frame, row in zip(x.astype(float), ours, strict=True):
        d = np.array([((frame[:128] - frame[tau : tau + 128]) ** 2).sum() for tau in range(128)])
        normalised = np.r_[1.0, [d[tau] * tau / d[1 : tau + 1].sum() for tau in range(1, 128)]]
        assert row == pytest.approx(normalised, abs=2e-5)
