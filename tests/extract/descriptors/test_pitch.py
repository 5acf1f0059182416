"""The fundamental frequency of signals that have one, and the paper's sums written out."""

import librosa
import numpy as np
import pytest

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.descriptors.voice import normalised_difference

SETTINGS = DescriptorSettings()


def f0(y, settings=SETTINGS):
    return describe(y.astype(np.float32), settings, ["f0"])["f0"]


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
    settings = DescriptorSettings(sr=sr, n_fft=n_fft, hop_length=n_fft // 2)
    found = f0(tone(hz, sr=sr), settings)[:-2]
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


def test_a_glide_agrees_with_librosa():
    t = np.arange(44_100) / 44_100
    phase = 2 * np.pi * (150 * t + 100 * t**2)
    y = sum(np.sin(k * phase) / k for k in range(1, 6)).astype(np.float32) * 0.2
    ours = f0(y)[:, 0]
    other = librosa.yin(
        y, fmin=55, fmax=2000, sr=44_100, frame_length=2048, hop_length=1024, center=False
    )
    ours = ours[: len(other)]
    # Same paper, other windows of the sum: librosa's sees later samples less.
    assert (ours > 0).all()
    assert np.median(np.abs(other / ours - 1)) < 0.02
    assert np.abs(other / ours - 1).max() < 0.05
