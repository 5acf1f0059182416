"""Descriptors of the spectrum, filter banks and windows against librosa and SciPy."""

import warnings

import librosa
import librosa.filters
import numpy as np
import pytest
from scipy.signal import get_window

from mvemo.extract.descriptors import DescriptorSettings, describe, framing
from mvemo.extract.descriptors.spectral import MelSettings, filter_banks, mel_filter_bank
from mvemo.manifests.errors import BadOption

SETTINGS = DescriptorSettings()


def noisy_glide(seconds=1.0, sr=44100, seed=0):
    """A gliding tone with harmonics in noise: no frame is silent, no band empty."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sr)) / sr
    phase = 2 * np.pi * (150 * t + 200 * t**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * tone + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def magnitude(y, settings=SETTINGS):
    """librosa's spectrogram in float64, of the frames that are full."""
    s, y = settings, y.astype(np.float64)
    return np.abs(
        librosa.stft(y, n_fft=s.n_fft, hop_length=s.hop_length, window=s.window, center=False)
    )


@pytest.mark.parametrize("sr", [8_000, 44_100])
def test_mel_mfcc_and_spectrogram_are_librosas(sr):
    settings = DescriptorSettings(sr=sr, n_fft=1024, hop_length=512)
    y = noisy_glide(sr=sr)
    ours = describe(y, settings, ["mel", "mfcc", "spectrogram"])
    power = magnitude(y, settings) ** 2
    bank = librosa.filters.mel(sr=sr, n_fft=1024, n_mels=settings.n_mels, dtype=np.float64)
    level = librosa.power_to_db(bank @ power, top_db=None)
    full = power.shape[1]
    # float32 spectra: relative 1e-6 at most of a power, 1e-3 dB far below the frame's peak.
    assert np.abs(ours["mel"][:full] - level.T).max() < 1e-3
    spectrogram = librosa.power_to_db(power, top_db=None).T
    assert np.abs(ours["spectrogram"][:full] - spectrogram).max() < 0.1
    cepstra = librosa.feature.mfcc(S=level, n_mfcc=settings.n_mfcc)
    assert np.abs(ours["mfcc"][:full] - cepstra.T).max() < 1e-3


def test_contrast_and_chroma_are_librosas():
    y = noisy_glide()
    ours = describe(y, SETTINGS, ["contrast", "chroma"])
    other = librosa.feature.spectral_contrast(S=magnitude(y), sr=44_100)
    assert ours["contrast"][: other.shape[1]] == pytest.approx(other.T, abs=2e-3)
    other = librosa.feature.chroma_stft(S=magnitude(y) ** 2, sr=44_100, tuning=0)
    assert ours["chroma"][: other.shape[1]] == pytest.approx(other.T, abs=1e-5)


def test_bands_above_half_the_sampling_rate_have_no_contrast():
    settings = DescriptorSettings(sr=8_000)
    # 200 Hz and six octaves: the last two begin at 6,400 and 3,200 Hz, half the rate is 4,000.
    contrast = describe(noisy_glide(sr=8_000), settings, ["contrast"])["contrast"]
    assert (contrast[:, 6] == 0).all()
    assert (contrast[:, :6] > 0).all()


@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_mel_bands_are_librosas(htk, norm):
    shared = {"sr": 22050, "n_fft": 1024, "n_mels": 96, "fmin": 20.0, "fmax": 9000.0, "htk": htk}
    theirs = None if norm == "none" else norm
    expected = librosa.filters.mel(**shared, norm=theirs, dtype=np.float64)
    np.testing.assert_array_equal(mel_filter_bank(MelSettings(**shared, norm=norm)), expected.T)


@pytest.mark.parametrize(("sr", "n_fft"), [(44100, 2048), (16000, 512)])
def test_pitch_classes_are_librosas(sr, n_fft):
    settings = DescriptorSettings(sr=sr, n_fft=n_fft, hop_length=256, n_mels=40)
    expected = librosa.filters.chroma(sr=sr, n_fft=n_fft, tuning=0.0, dtype=np.float64)
    np.testing.assert_array_equal(filter_banks(settings).chroma, expected.T.astype(np.float32))


@pytest.mark.parametrize("name", ["hann", "blackmanharris", "hamming"])
def test_windows_are_scipys(name):
    np.testing.assert_array_equal(framing.window_of(name, 2048), get_window(name, 2048))


def test_bands_between_two_bins_are_empty_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = mel_filter_bank(MelSettings(48000, n_fft=256, n_mels=128))
    assert (bank.sum(axis=0) == 0).any()
    # No zero has a sign: bytes count in the digests of nets whose front end keeps the bank.
    for values in (bank, mel_filter_bank(MelSettings(16000)), mel_filter_bank(MelSettings(12000))):
        assert not np.signbit(values).any()


def test_settings_out_of_range():
    with pytest.raises(BadOption, match="half the sampling rate"):
        MelSettings(8000, fmax=6000)
