"""The mel filter bank, whose values `test_spectral` compares with librosa's, at its edges."""

import warnings

import numpy as np
import pytest

from mvemo.extract.errors import BadSetting
from mvemo.extract.mel import MelSettings, mel_filter_bank


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
