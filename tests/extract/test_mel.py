"""The mel filter bank against the definition of its bands, on both scales."""

import warnings

import numpy as np
import pytest

from mvemo.extract.errors import BadSetting
from mvemo.extract.mel import MelSettings, mel_filter_bank


def to_mel(hz, htk):
    """HTK: 2595 log10(1 + f / 700). Slaney: 200/3 Hz a mel to 1 kHz, then 27 for a factor 6.4."""
    hz = np.asarray(hz, dtype=np.float64)
    if htk:
        return 2595 * np.log10(1 + hz / 700)
    high = 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4)
    return np.where(hz < 1000, hz * 3 / 200, high)


def plain_bank(settings):
    """Triangles between edges that are evenly spaced in mel; edges found by interpolation."""
    grid = np.linspace(0, settings.sr / 2, 2_000_001)
    low, high = to_mel(settings.fmin, settings.htk), to_mel(settings.fmax, settings.htk)
    edges = np.interp(np.linspace(low, high, settings.n_mels + 2), to_mel(grid, settings.htk), grid)
    hz = np.arange(settings.n_fft // 2 + 1) * settings.sr / settings.n_fft
    bands = [np.interp(hz, edges[m : m + 3], [0, 1, 0]) for m in range(settings.n_mels)]
    bank = np.array(bands).T
    if settings.norm == "slaney":
        bank /= (edges[2:] - edges[:-2]) / 2
    return bank


@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize(
    ("sr", "n_mels", "fmin", "fmax"), [(16000, 96, 0, 8000), (12000, 40, 50, 5000)]
)
def test_bands_are_triangles_of_the_scale(htk, norm, sr, n_mels, fmin, fmax):
    settings = MelSettings(sr, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm)
    bank = mel_filter_bank(settings)
    assert bank.shape == (257, n_mels)
    assert bank.dtype == np.float64
    # Edges by interpolation are exact to 1e-8 of a band's width of 30 Hz and more.
    np.testing.assert_allclose(bank, plain_bank(settings), rtol=1e-6, atol=1e-8)


def test_bands_between_two_bins_are_empty_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = mel_filter_bank(MelSettings(48000, n_fft=256, n_mels=128))
    assert (bank.sum(axis=0) == 0).any()
    assert (bank >= 0).all()


def test_no_zero_has_a_sign():
    # Bytes count in the digests of nets whose front end keeps the bank.
    assert not np.signbit(mel_filter_bank(MelSettings(16000))).any()
    assert not np.signbit(mel_filter_bank(MelSettings(12000))).any()


def test_settings_out_of_range():
    with pytest.raises(BadSetting, match="half the sampling rate"):
        MelSettings(8000, fmax=6000)
    with pytest.raises(BadSetting, match="n_mels is 0"):
        MelSettings(8000, n_mels=0)
    with pytest.raises(BadSetting, match="one of slaney, none"):
        MelSettings(8000, norm="l2")
